"""Answers read out of replies, and their comparison with targets."""
