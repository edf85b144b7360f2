"""An engine without a model, and ordered faults, for tests of scheduling, faults and scale.

- engine: scores and replies by hash, at the pace of a real model if requested
- faults: faults that a test orders
"""
