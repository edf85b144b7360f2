"""Configurations: their sections with all defaults, reading and writing them, and errors about them."""
