"""Callbacks of a run: the built-in trackers, and user-defined ones."""
