"""A run with injected faults, compared with the same run without faults."""
