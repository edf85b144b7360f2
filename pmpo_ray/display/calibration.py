"""The constants of calibrated choices, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.outcomes import AnswerBias
from pmpo_ray.text import in_line

_LISTED = 8
"""Answers that are listed with their constants; where there are more, the exports have them."""


def calibration_words(biases: Sequence[AnswerBias]) -> str:
    """How an answer is chosen, with the constant of each answer."""
    rule = "calibrated: the answer is the one with the highest log-likelihood less its bias"
    if len(biases) > _LISTED:
        return f"{rule} ({len(biases)} constants in nats: pmpo export --format json)"
    listed = ", ".join(f"{in_line(one.answer)} {one.nats:.2f}" for one in biases)
    return f"{rule} (in nats: {listed})"
