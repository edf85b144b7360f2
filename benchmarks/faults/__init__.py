"""A run that faults are done to on purpose, beside the same run left alone."""
