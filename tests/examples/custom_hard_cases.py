"""A custom rule for hard cases."""

from __future__ import annotations

from pmpo_ray import HardCaseContext


def nearest_to_undecided(context: HardCaseContext) -> list[int]:
    """The examples on which the right answer is neither safe nor lost."""
    undecided = {index: abs(context.parent.losses[index] - 0.69) for index in context.eligible}
    return sorted(undecided, key=undecided.__getitem__)[: context.count]
