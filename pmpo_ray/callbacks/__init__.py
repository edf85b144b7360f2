"""Callbacks of a run: the trackers that come along, and the user's own."""
