"""Engines: one model replica each, usable, tested and timed without Ray."""
