"""Timing of the likelihood engine side by side with its alternatives; see __main__.py."""
