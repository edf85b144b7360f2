"""Engines over vLLM."""
