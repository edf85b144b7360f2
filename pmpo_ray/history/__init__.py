"""A run folder as values: what displays, reports and exports are made from."""
