"""Engines over transformers models."""
