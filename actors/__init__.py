"""Pools of Ray actors, each hosting one model replica.

Invariant: only `cluster`, `launcher`, `clients` and `metrics` import ray; everything else is plain Python.
"""
