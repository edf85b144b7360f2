"""Runs on terminals, in notebooks and as JSON."""
