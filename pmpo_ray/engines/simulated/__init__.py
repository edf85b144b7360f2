"""An engine without a model, and faults for it, for tests of scheduling, faults and scale."""
