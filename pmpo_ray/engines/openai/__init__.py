"""Engines over OpenAI-compatible servers.

- client: requests to one server, and the errors of its failures
- scorer, generator: the two roles of a replica
"""
