"""The plan of a run as values: what it will score and write, and how long that takes.

Invariants: tokens are those that a bill would count; everything is known before the first round; with
racing, the bounds are those without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Amount: TypeAlias = Literal["typical", "at_most"]
"""Which of two amounts of a plan: what a run typically takes, or what it never exceeds."""


@dataclass(frozen=True, slots=True)
class PlannedTokens:
    """Tokens by kind: the scorer reads `scored`, the model that writes reads `prompted` and writes
    `generated`."""

    scored: int = 0
    prompted: int = 0
    generated: int = 0

    @property
    def total(self) -> int:
        """The tokens of all kinds."""
        return self.scored + self.prompted + self.generated

    def __add__(self, other: PlannedTokens) -> PlannedTokens:
        return PlannedTokens(
            self.scored + other.scored, self.prompted + other.prompted, self.generated + other.generated
        )

    def times(self, number: int) -> PlannedTokens:
        """The tokens of `number` such parts."""
        return PlannedTokens(number * self.scored, number * self.prompted, number * self.generated)

    def within(self, limit: int | None) -> PlannedTokens:
        """The tokens of each kind within a limit of all together (None: no limit)."""
        if limit is None:
            return self
        return PlannedTokens(min(self.scored, limit), min(self.prompted, limit), min(self.generated, limit))

    def most(self, scored: float, prompted: float, generated: float, limit: int | None = None) -> float:
        """The highest sum of the tokens, weighted by kind, of which at most `limit` are used."""
        left = self.total if limit is None else limit
        kinds = [(scored, self.scored), (prompted, self.prompted), (generated, self.generated)]
        value = 0.0
        for weight, tokens in sorted(kinds, reverse=True):
            used = min(tokens, left)
            value += weight * used
            left -= used
        return value


@dataclass(frozen=True, slots=True)
class PlannedWork:
    """The tokens of one search without its limits: of one round, of the whole search (the starts and all
    rounds), of the final pick on the validation part, and of the evaluation."""

    round: PlannedTokens
    search: PlannedTokens
    pick: PlannedTokens
    evaluation: PlannedTokens

    def tokens(self, limit: int | None) -> PlannedTokens:
        """The tokens of all by kind, those of search and pick each within a limit (None: no limit)."""
        return (self.search + self.pick).within(limit) + self.evaluation

    def most(
        self, scored: float, prompted: float, generated: float, limit: int | None = None
    ) -> tuple[float, float]:
        """The highest weighted sum of the tokens of search and pick, within a limit, and that of the
        evaluation."""
        weights = scored, prompted, generated
        return (self.search + self.pick).most(*weights, limit), self.evaluation.most(*weights)


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The plan of one search.

    `training`, `validation` and `held_out` are the numbers of rows that are scored, picked on and evaluated.
    `candidates` has the most candidates of a round by operator; those of `mask_drop` are the masked texts.
    `text` are the tokens of scoring the first start instruction on the training rows. `at_most` is what the
    search never exceeds. `typical` is what it takes if instructions stay as long as that start,
    demonstrations are of mean length, and every answer of the rewriter is used; generated answers of the
    evaluation count at their longest. Neither has the limits `max_tokens` (of search and pick) and
    `max_seconds` (None: none). `notes` say what the plan cannot know.
    """

    task: str
    training: int
    validation: int
    held_out: int
    rounds: int
    candidates: Mapping[str, int]
    text: int
    typical: PlannedWork
    at_most: PlannedWork
    max_tokens: int | None = None
    max_seconds: float | None = None
    notes: tuple[str, ...] = ()

    def work(self, amount: Amount) -> PlannedWork:
        """The work of this amount."""
        return self.typical if amount == "typical" else self.at_most


@dataclass(frozen=True, slots=True)
class Pace:
    """A measured pace: `tokens` of the kind that is counted in `seconds` on `replicas` replicas, of at most
    `max_replicas` that a run may have."""

    tokens: int
    seconds: float
    replicas: int
    max_replicas: int

    @property
    def per_second(self) -> float:
        """Tokens per second of all replicas together."""
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The plan of a run, which no run folder keeps. `scoring` is the pace of scored tokens, `writing` that of
    generated ones (None: nothing is written, or it is not known), both measured with this run's replicas;
    `measuring` are the tokens that the measurement took. `notes` say where a run may differ.

    What the run takes is told for two amounts: "typical" and "at_most" (see `SearchPlan`), both within the
    limits of tokens and seconds.
    """

    searches: tuple[SearchPlan, ...]
    scoring: Pace
    writing: Pace | None
    measuring: PlannedTokens
    notes: tuple[str, ...] = ()

    def tokens(self, amount: Amount = "at_most") -> PlannedTokens:
        """The tokens of all searches and evaluations by kind. Within a limit not every kind reaches its
        number."""
        return sum((one.work(amount).tokens(one.max_tokens) for one in self.searches), PlannedTokens())

    def total(self, amount: Amount = "at_most") -> int:
        """The tokens of all searches and evaluations, of all kinds together."""
        return round(self._most(1, 1, 1, amount))

    def seconds(self, amount: Amount = "at_most") -> float:
        """Seconds for these tokens at the measured pace, without the start of the models. Searches run at the
        same time, on the same replicas."""
        scored = 1 / self.scoring.per_second
        generated = 1 / self.writing.per_second if self.writing is not None else 0.0
        # The pace of writing includes the reading of the prompts.
        parts = self._parts(scored, 0.0, generated, amount)
        searching = sum(search for search, _ in parts)
        limits = [one.max_seconds for one in self.searches if one.max_seconds is not None]
        if len(limits) == len(self.searches):
            searching = min(searching, max(limits, default=0.0))
        return searching + sum(evaluation for _, evaluation in parts)

    def cost(self, price: float, price_generated: float | None = None, amount: Amount = "at_most") -> float:
        """The price of these tokens, at `price` for a million tokens that are read and `price_generated` for
        a million that are written (None: the same)."""
        read = price / 1e6
        return self._most(read, read, read if price_generated is None else price_generated / 1e6, amount)

    def _most(self, scored: float, prompted: float, generated: float, amount: Amount) -> float:
        return sum(map(sum, self._parts(scored, prompted, generated, amount)))

    def _parts(
        self, scored: float, prompted: float, generated: float, amount: Amount
    ) -> list[tuple[float, float]]:
        """The weighted tokens of each search, within its limit, and of its evaluation."""
        return [one.work(amount).most(scored, prompted, generated, one.max_tokens) for one in self.searches]
