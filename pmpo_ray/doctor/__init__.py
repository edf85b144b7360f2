"""Checks of a machine, a cluster, storage and data for `pmpo doctor`."""
