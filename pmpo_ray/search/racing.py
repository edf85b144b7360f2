"""Racing: candidates are scored on blocks of examples, and one that cannot survive leaves after a block.

After each block but the last, the survivors so far are chosen by the losses on the examples scored so far
(with `search.readability`, by losses and penalties), parents included. A candidate outside of them leaves if
its paired losses are above those of the worst survivor, whose place it would take, at the level
`search.racing` (one-sided, normal approximation to the paired t test). The difference of the penalties is
added to that of the losses on each example.

Invariants: a candidate whose value is not above that survivor's never leaves, nor does one for which
there is a free place; blocks depend on the training part alone; a decision is made when all
scores of a block are there, so it does not depend on the order of replies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist, fmean, stdev

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.search.selection import select_survivors, sibling_cap
from pmpo_ray.types import Example, ScoredCandidate

_BLOCKS = 4
"""The first two of three blocks have this fraction of the examples."""
_SMALLEST = 8
"""Examples of a block, for the normal approximation."""


def blocks_of(train: Sequence[Example], level: float | None) -> tuple[tuple[int, ...], ...]:
    """Indices of the training examples in blocks, each with as many examples of one answer as of another as
    can be: two quarters and a half. One block without racing, or if there are too few examples."""
    size = max(_SMALLEST, len(train) // _BLOCKS)
    if level is None or len(train) < 3 * _SMALLEST:
        return (tuple(range(len(train))),)
    by_answer: dict[str, list[int]] = {}
    for index, example in enumerate(train):
        by_answer.setdefault(example.target, []).append(index)
    # The n-th example of every answer comes before the next one of any.
    place = {index: rank for group in by_answer.values() for rank, index in enumerate(group)}
    order = sorted(place, key=lambda index: (place[index], index))
    return tuple(order[:size]), tuple(order[size : 2 * size]), tuple(order[2 * size :])


def leaving(
    children: Sequence[ScoredCandidate],
    parents: Sequence[ScoredCandidate],
    rows: Sequence[int],
    weights: Sequence[float],
    settings: SearchConfig,
) -> set[str]:
    """The ids of the children that leave the race after they were scored on the examples `rows` alone. Losses
    of children and parents, and the weights, are those of all training examples, in their order."""
    counted = [row for row in rows if weights[row] != 0]
    level = settings.racing
    if level is None or not counted:
        return set()

    def so_far(scored: ScoredCandidate) -> ScoredCandidate:
        losses = [scored.losses[row] for row in counted]
        return replace(scored, loss=batch_loss(losses, [weights[row] for row in counted]))

    running = [so_far(child) for child in children]
    size, cap = settings.population, sibling_cap(settings.population, settings.max_siblings)
    survivors = select_survivors(
        [so_far(parent) for parent in parents], running, size=size, max_siblings=settings.max_siblings
    )
    kept = {scored.candidate.id for scored in survivors}
    left = set()
    for child in running:
        siblings = [scored for scored in survivors if scored.candidate.parent == child.candidate.parent]
        # Those whose place it would have to take: the last of all, and the last of its siblings.
        bars = (*survivors[size - 1 :], *siblings[cap - 1 :])
        if child.candidate.id in kept or not bars:
            continue
        bar = min(bars, key=lambda scored: scored.value)
        more = child.penalty - bar.penalty
        differences = [
            # As in the batch loss, whose divisor are the absolute weights: their sum has the values' sign.
            weights[row] * (child.losses[row] - bar.losses[row]) + abs(weights[row]) * more
            for row in counted
        ]
        if math.isfinite(bar.value) and child.value > bar.value and is_worse(differences, level):
            left.add(child.candidate.id)
    return left


def is_worse(differences: Sequence[float], level: float) -> bool:
    """True if paired differences are above 0 on average, at this level (one-sided)."""
    if not all(map(math.isfinite, differences)):
        return True
    mean = fmean(differences)
    if mean <= 0:
        return False
    spread = stdev(differences) if len(differences) > 1 else 0.0
    if spread == 0:
        return True
    return mean * math.sqrt(len(differences)) / spread > NormalDist().inv_cdf(1 - level)


def rise(one: ScoredCandidate, other: ScoredCandidate, weights: Sequence[float]) -> float:
    """The loss of `one` less that of `other` on the examples that `one` was scored on."""
    if not one.left:
        return one.loss - other.loss
    rows = [row for row, loss in enumerate(one.losses) if not math.isnan(loss)]
    own = [weights[row] for row in rows]
    return one.loss - batch_loss([other.losses[row] for row in rows], own)
