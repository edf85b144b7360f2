"""The contestants: each module has a function from a job to its outcome, and runs in the environment that has
its library.

Invariants: what an optimizer searches for is what is measured, so that each answers with the instruction as
the system turn and the input as the user's, and counts a reply without a label as wrong; all else is as its
library has it, except where a comment says why not; the outcome is what the optimizer itself prefers at the
moment when its budget is spent.
"""
