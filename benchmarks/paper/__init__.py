"""The tables of the PMPO paper (arXiv 2505.16307v2), with a column of our results."""
