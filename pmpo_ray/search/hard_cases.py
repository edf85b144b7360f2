"""Which training examples a parent is rewritten for (bad case analysis; paper: Algorithm 1, step 2).

Invariants: a rule is pure, and its only source of chance is the seed of the context; an example without a
positive weight is never chosen, because its target is not an output to aim at.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol, TypeAlias, runtime_checkable

from pmpo_ray.config.import_paths import imported, is_import_path
from pmpo_ray.errors import ConfigError
from pmpo_ray.types import Example, RoundRecord, ScoredCandidate

_KEY = "search.hard_cases"
_FADING = 0.8
"""The weight of a round is this, to the power of its age in rounds."""


@dataclass(frozen=True, slots=True)
class HardCaseContext:
    """The data that a rule can use.

    `parent` has its losses on `examples`, the training examples, in their order; `population` are all parents
    of the round, best first. At most `count` examples are wanted. `seed` differs between rounds and parents.
    `history` are the finished rounds, the oldest first, with what was written for which example
    (`Candidate.hard_case`), its loss, and what was refused and why; of earlier rounds than the last it has no
    losses of single examples.
    """

    parent: ScoredCandidate
    population: tuple[ScoredCandidate, ...]
    examples: tuple[Example, ...]
    count: int
    round: int
    seed: int
    history: tuple[RoundRecord, ...] = ()

    @property
    def eligible(self) -> list[int]:
        """The indices of the examples that may be chosen."""
        return [index for index, example in enumerate(self.examples) if example.weight > 0]

    @property
    def hardest_first(self) -> list[int]:
        """The eligible indices by the parent's loss, the highest first, ties by index."""
        return sorted(self.eligible, key=lambda index: (-self.parent.losses[index], index))


@runtime_checkable
class HardCases(Protocol):
    """A rule that chooses the examples for which the rewriter is asked."""

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        """Return up to `context.count` indices of `context.examples`, each once, the most important first: if
        a budget does not suffice for all, the last ones are left out."""
        ...


HardCasesFunction: TypeAlias = Callable[[HardCaseContext], Sequence[int]]
"""The method of a HardCases rule as a function."""


class HighestLoss:
    """The k examples of the highest loss, the paper's rule."""

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        return context.hardest_first[: context.count]


class Balanced:
    """The hardest example of each target in turn, beginning with the target of the hardest example of all: an
    instruction that neglects one label has its hard cases there alone, and rewrites for them neglect the
    others."""

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        groups: dict[str, list[int]] = {}
        for index in context.hardest_first:
            groups.setdefault(context.examples[index].target, []).append(index)
        turns = max(map(len, groups.values()), default=0)
        spread = [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]
        return spread[: context.count]


class RandomCases:
    """Random examples: the paper's ablation of bad case analysis."""

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        eligible = context.eligible
        return random.Random(context.seed).sample(eligible, min(context.count, len(eligible)))


class Rewarding:
    """The hardest examples among those whose rewrites lowered the loss, or may still do so.

    Of n examples, the one of rank r by the parent's loss (0: the hardest) has the score

        (1 - r / n) * (1 + gained / mean) / (1 + asked)

    and the highest scores are chosen, the best first. `asked` is the number of finished rounds in which texts
    were written for the example. `gained` is the sum over these rounds of the mean gain of its texts: by how
    much a text lowered the value of its parent (the loss, without `search.readability`), at least 0, and 0
    for one that was refused, could not be scored or left the race. In both sums a round counts 0.8 to the
    power of its age. `mean` is gained / asked over all examples.

    So an example that was never asked for counts by its rank alone, and so does one that gained as much as
    is usual. Without a gain it yields its place to the next ones, until its rounds fade.
    """

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        asked: dict[str, float] = {}
        gained: dict[str, float] = {}
        for age, record in enumerate(reversed(context.history)):
            for name, gains in _gains(record).items():
                asked[name] = asked.get(name, 0.0) + _FADING**age
                gained[name] = gained.get(name, 0.0) + _FADING**age * fmean(gains)
        mean = math.fsum(gained.values()) / math.fsum(asked.values()) if asked else 0.0
        hardest = context.hardest_first

        def score(rank: int) -> float:
            name = context.examples[hardest[rank]].id
            reward = gained.get(name, 0.0) / mean if mean else 0.0
            return (1 - rank / len(hardest)) * (1 + reward) / (1 + asked.get(name, 0.0))

        # Stable: of equal scores the hardest comes first.
        best = sorted(range(len(hardest)), key=score, reverse=True)
        return [hardest[rank] for rank in best[: context.count]]


def _gains(record: RoundRecord) -> dict[str, list[float]]:
    """The gain of each text that was written for an example in this round, in nats, by the example's id."""
    values = {one.candidate.id: one.value for one in record.candidates}
    gains: dict[str, list[float]] = {}
    for one in record.candidates:
        written = one.candidate
        if written.round == record.round and written.hard_case is not None:
            gain = 0.0 if one.left else values[written.parent or ""] - one.value
            gains.setdefault(written.hard_case, []).append(max(0.0, gain) if math.isfinite(gain) else 0.0)
    for refusal in record.refusals:
        if refusal.hard_case is not None:
            gains.setdefault(refusal.hard_case, []).append(0.0)
    return gains


RULES: dict[str, type[HardCases]] = {
    "highest_loss": HighestLoss,
    "balanced": Balanced,
    "random": RandomCases,
    "rewarding": Rewarding,
}
"""The built-in rules by name: the values of `search.hard_cases`."""


@dataclass(frozen=True, slots=True)
class _Custom:
    """A user's rule, whose choices are checked."""

    path: str
    function: HardCasesFunction

    def choose(self, context: HardCaseContext) -> Sequence[int]:
        chosen = tuple(self.function(context))
        allowed = set(context.eligible)
        if not set(chosen) <= allowed or len(set(chosen)) < len(chosen) or len(chosen) > context.count:
            raise ConfigError(
                f"{_KEY}: {self.path} chose {list(chosen)!r:.80}; it should return at most {context.count} "
                "indices of examples with a weight above 0, each once"
            )
        return chosen


def load_hard_cases(name: str) -> HardCases:
    """The rule with that name in `RULES`, or the custom one at that import path: a class, which is called
    without arguments, an object with a method `choose`, or a function. Raises ConfigError for anything
    else."""
    if not is_import_path(name):
        return RULES[name]()
    target = imported(name, _KEY)
    rule = target() if isinstance(target, type) else target
    if isinstance(rule, HardCases):
        return _Custom(name, rule.choose)
    if not callable(rule):
        raise ConfigError(f"{_KEY}: {name} neither has a method choose nor is a function; see HardCases")
    return _Custom(name, rule)
