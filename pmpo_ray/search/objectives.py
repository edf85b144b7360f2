"""Losses of one example and of a training set, made from log-likelihoods.

Invariants: a lower loss is better; a loss depends on its own example's scores alone; nothing here
overflows for finite log-likelihoods; the batch loss does not depend on the order of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from pmpo_ray.config.import_paths import imported, is_import_path
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.types import AnswerScore, Example, ExampleScore


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of one example, in nats (nats per token where normalised).

    `needs_negatives`: every example must have at least one negative. `signed`: the loss still makes
    sense with a weight r < 0, which turns it into a penalty on the target.
    """

    name: str
    loss: Callable[[ExampleScore], float]
    needs_negatives: bool = False
    signed: bool = False

    def __call__(self, score: ExampleScore) -> float:
        return self.loss(score)


class ObjectiveFactory(Protocol):
    """Makes an objective from the settings search.beta and search.per_token."""

    def __call__(self, *, beta: float, per_token: bool) -> Objective: ...


_factories: dict[str, ObjectiveFactory] = {}

OBJECTIVES: Mapping[str, ObjectiveFactory] = MappingProxyType(_factories)
"""Every registered objective by name; a live view."""


def register_objective(name: str, factory: ObjectiveFactory) -> None:
    """Make `factory` available as `search.objective: name`. Raises ConfigError if the name is taken."""
    if name in _factories or name == "auto":
        raise ConfigError(f"objective {name!r} is already registered; choose another name")
    _factories[name] = factory


def make_objective(name: str, *, beta: float, per_token: bool) -> Objective:
    """The objective of that name or import path, for which the settings play no part. Raises ConfigError if
    there is none ("auto" must be resolved first)."""
    if is_import_path(name):
        return _own(name)
    factory = _factories.get(name)
    if factory is None:
        known = ", ".join(["auto", *_factories])
        raise ConfigError(
            f"search.objective: unknown objective {name!r}; use one of {known}, or module:name for your own"
        )
    return factory(beta=beta, per_token=per_token)


def _own(path: str) -> Objective:
    """The user's own objective: an Objective, or the loss itself, a function of an ExampleScore."""
    found = imported(path, "search.objective")
    if isinstance(found, Objective):
        return replace(found, name=path)
    if not callable(found) or isinstance(found, type):
        raise ConfigError(f"search.objective: {path} is neither a function nor an Objective")
    loss: Callable[[ExampleScore], float] = found
    return Objective(path, lambda score: float(loss(score)))


def resolve_auto(examples: Sequence[Example]) -> str:
    """The name that "auto" stands for: preferences where every example has negatives."""
    if examples and all(example.negatives for example in examples):
        return "preference"
    return "cross_entropy"


def _logprob(answer: AnswerScore, per_token: bool) -> float:
    return answer.logprob / max(answer.tokens, 1) if per_token else answer.logprob


def _softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def cross_entropy(*, beta: float, per_token: bool) -> Objective:  # noqa: ARG001 (every factory takes it)
    """Eq. 3: -sum_i log p(y_i), over the target's tokens; per token: their mean. `beta` plays no part."""
    return Objective("cross_entropy", lambda score: -_logprob(score.target, per_token), signed=True)


def preference(*, beta: float, per_token: bool) -> Objective:
    """Eq. 5: -log sigmoid(beta * (log p(y+) - log p(y-))), averaged over the negatives."""

    def loss(score: ExampleScore) -> float:
        target = _logprob(score.target, per_token)
        pairs = [_softplus(-beta * (target - _logprob(answer, per_token))) for answer in score.negatives]
        return sum(pairs) / len(pairs)

    return Objective("preference", loss, needs_negatives=True)


def listwise(*, beta: float, per_token: bool) -> Objective:
    """-log of the target's share in the softmax of beta * log p over target and negatives.

    With one negative it equals `preference`; with more, one strong distractor costs more than many weak.
    """

    def loss(score: ExampleScore) -> float:
        target = beta * _logprob(score.target, per_token)
        logits = [target, *(beta * _logprob(answer, per_token) for answer in score.negatives)]
        top = max(logits)
        return top - target + math.log(math.fsum(math.exp(logit - top) for logit in logits))

    return Objective("listwise", loss, needs_negatives=True)


register_objective("cross_entropy", cross_entropy)
register_objective("preference", preference)
register_objective("listwise", listwise)


def batch_loss(losses: Sequence[float], weights: Sequence[float]) -> float:
    """Eq. 4 with the weights r: sum(r * loss) / sum(|r|), the plain mean where every r is 1.

    The divisor is of absolute weights, so that examples with r < 0 (outputs to avoid) cannot make it
    vanish. Examples of weight 0 do not count. If a loss that counts is not finite, the result is
    infinite: such a candidate cannot be ranked. Raises ValueError if no example counts.
    """
    counted = [(loss, weight) for loss, weight in zip(losses, weights, strict=True) if weight != 0]
    if not counted:
        raise ValueError("the batch loss needs at least one example with a weight other than 0")
    if not all(math.isfinite(loss) for loss, _ in counted):
        return math.inf
    # fsum is exact, hence the same for every order in which replicas deliver.
    return math.fsum(weight * loss for loss, weight in counted) / math.fsum(
        abs(weight) for _, weight in counted
    )


def check_objective(objective: Objective, examples: Sequence[Example]) -> None:
    """Raise DataError if these training examples cannot be used with this objective."""
    for example in examples:
        if objective.needs_negatives and not example.negatives:
            raise DataError(
                f"{_where(example)} has no negatives, which objective {objective.name!r} compares with; "
                "give every example negatives or set search.objective=cross_entropy"
            )
        if not math.isfinite(example.weight):
            raise DataError(f"{_where(example)} has weight {example.weight}; give it a finite number")
        if example.weight < 0 and not objective.signed:
            raise DataError(
                f"{_where(example)} has weight {example.weight:g}, but objective {objective.name!r} takes no "
                "negative weights; make the unwanted output a negative or set search.objective=cross_entropy"
            )
    if not any(example.weight for example in examples):
        raise DataError("no training example has a weight other than 0; give at least one a positive weight")


def _where(example: Example) -> str:
    start = " ".join(example.input.split())
    return f"example {example.id!r} ({start[:40] + '…' if len(start) > 40 else start!r})"
