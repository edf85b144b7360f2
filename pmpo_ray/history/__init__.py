"""A run folder as values, for displays, reports, exports and comparisons."""
