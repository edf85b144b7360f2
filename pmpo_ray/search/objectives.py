"""The losses of one example and of a training set, computed from log-likelihoods.

Invariants: a lower loss is better; the loss of an example depends only on the scores of that example; finite
log-likelihoods never overflow; the batch loss does not depend on the order of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pmpo_ray.config.import_paths import imported, is_import_path
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.text import excerpt
from pmpo_ray.types import AnswerScore, Example, ExampleScore

PER_TOKEN = " per token"
"""The end of the description of an objective that is normalised by length."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of one example, in nats, or in nats per token if it is normalised by length.

    `needs_negatives`: every example must have at least one negative. `signed`: the loss remains meaningful
    with a weight r < 0, which turns it into a penalty on the target. `per_token`: log-likelihoods count per
    token.
    """

    name: str
    loss: Callable[[ExampleScore], float]
    needs_negatives: bool = False
    signed: bool = False
    per_token: bool = False

    @property
    def description(self) -> str:
        """The objective in words."""
        return f"{self.name}{PER_TOKEN}" if self.per_token else self.name

    def __call__(self, score: ExampleScore) -> float:
        return self.loss(score)


class ObjectiveFactory(Protocol):
    """Makes an objective from the settings search.beta and search.per_token."""

    def __call__(self, *, beta: float, per_token: bool) -> Objective: ...


def make_objective(name: str, *, beta: float, per_token: bool) -> Objective:
    """The objective with that name in `OBJECTIVES`, or the custom one at that import path, which ignores the
    settings. Raises ConfigError if there is none; "auto" must be resolved first."""
    if is_import_path(name):
        return _custom_objective(name)
    factory = OBJECTIVES.get(name)
    if factory is None:
        known = ", ".join(["auto", *OBJECTIVES])
        raise ConfigError(f"search.objective: unknown objective {name!r}; use one of {known}, or module:name")
    return factory(beta=beta, per_token=per_token)


def _custom_objective(path: str) -> Objective:
    """A user's objective: an Objective, or its loss alone, a function of an ExampleScore."""
    target = imported(path, "search.objective")
    if isinstance(target, Objective):
        return replace(target, name=path)
    if not callable(target) or isinstance(target, type):
        raise ConfigError(f"search.objective: {path} is neither a function nor an Objective")
    loss: Callable[[ExampleScore], float] = target
    return Objective(path, lambda score: float(loss(score)))


def resolve_auto(examples: Sequence[Example]) -> str:
    """The objective that "auto" chooses: "preference" if every example has negatives, which are given, or the
    rest of a closed set; "cross_entropy" for worked solutions and other free text (paper, section 3)."""
    if examples and all(example.negatives for example in examples):
        return "preference"
    return "cross_entropy"


def log_likelihood(answer: AnswerScore, per_token: bool) -> float:
    """The log-likelihood of an answer in nats, or its mean over the answer's tokens."""
    return answer.logprob / max(answer.tokens, 1) if per_token else answer.logprob


def _softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def cross_entropy(*, beta: float, per_token: bool) -> Objective:  # noqa: ARG001 (every factory takes it)
    """Eq. 3: -sum_i log p(y_i) over the target's tokens; per token: the mean. Ignores `beta`."""
    return Objective(
        "cross_entropy",
        lambda score: -log_likelihood(score.target, per_token),
        signed=True,
        per_token=per_token,
    )


def preference(*, beta: float, per_token: bool) -> Objective:
    """Eq. 5: -log sigmoid(beta * (log p(y+) - log p(y-))), averaged over the negatives."""

    def loss(score: ExampleScore) -> float:
        target = log_likelihood(score.target, per_token)
        pairs = [
            _softplus(-beta * (target - log_likelihood(answer, per_token))) for answer in score.negatives
        ]
        return sum(pairs) / len(pairs)

    return Objective("preference", loss, needs_negatives=True, per_token=per_token)


def listwise(*, beta: float, per_token: bool) -> Objective:
    """-log of the target's share in the softmax of beta * log p over target and negatives.

    With one negative it equals `preference`; with more, one strong distractor costs more than many weak ones.
    """

    def loss(score: ExampleScore) -> float:
        target = beta * log_likelihood(score.target, per_token)
        logits = [target, *(beta * log_likelihood(answer, per_token) for answer in score.negatives)]
        top = max(logits)
        return top - target + math.log(math.fsum(math.exp(logit - top) for logit in logits))

    return Objective("listwise", loss, needs_negatives=True, per_token=per_token)


OBJECTIVES: dict[str, ObjectiveFactory] = {
    "cross_entropy": cross_entropy,
    "preference": preference,
    "listwise": listwise,
}
"""The built-in objectives by name: the values of `search.objective`."""


def batch_loss(losses: Sequence[float], weights: Sequence[float]) -> float:
    """Eq. 4 with the weights r: sum(r * loss) / sum(|r|), the plain mean if every r is 1.

    The divisor sums absolute weights, so that examples with r < 0 (outputs to avoid) cannot make it vanish.
    Examples of weight 0 do not count. If a loss that counts is not finite, the result is infinite: such a
    candidate cannot be ranked. Raises ValueError if no example counts.
    """
    counted = [(loss, weight) for loss, weight in zip(losses, weights, strict=True) if weight != 0]
    if not counted:
        raise ValueError("the batch loss needs at least one example with a weight other than 0")
    if not all(math.isfinite(loss) for loss, _ in counted):
        return math.inf
    # fsum is exact: the result does not depend on the order in which replicas deliver.
    return math.fsum(weight * loss for loss, weight in counted) / math.fsum(
        abs(weight) for _, weight in counted
    )


def check_objective(objective: Objective, examples: Sequence[Example]) -> None:
    """Raise DataError if these training examples cannot be used with this objective."""
    for example in examples:
        if objective.needs_negatives and not example.negatives:
            raise DataError(
                f"{_label(example)} has no negatives, which objective {objective.name!r} needs; "
                "give every example negatives or set search.objective=cross_entropy"
            )
        if not math.isfinite(example.weight):
            raise DataError(f"{_label(example)} has weight {example.weight}; give it a finite number")
        if example.weight < 0 and not objective.signed:
            raise DataError(
                f"{_label(example)} has weight {example.weight:g}, and objective {objective.name!r} takes "
                "none below 0; make the unwanted output a negative or set search.objective=cross_entropy"
            )
    if not any(example.weight for example in examples):
        raise DataError("no training example has a weight other than 0; give at least one a positive weight")


def _label(example: Example) -> str:
    return f"example {example.id!r} ({excerpt(example.input, 41)!r})"
