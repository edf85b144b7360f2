"""The tables of the PMPO paper (arXiv 2505.16307v2), with our column beside them."""
