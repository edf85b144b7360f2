"""Engines over vLLM.

- engine: start, run and close one vLLM engine
- scorer, generator: the two roles over an engine
"""
