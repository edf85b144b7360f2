"""The arithmetic of a plan: how many texts a search scores and writes, and the tokens of them.

Invariants: pure; what a search counts in its records is never more than planned here, as long as texts have
no more tokens than estimated (`search.budget`) and operators of one's own propose what they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.run_plan import PlannedTokens
from pmpo_ray.search.bandit import most_proposals
from pmpo_ray.search.demonstrations import DEMONSTRATE
from pmpo_ray.search.finished_rounds import LEADERS, MASK_DROP
from pmpo_ray.search.mask_analysis import reply_tokens
from pmpo_ray.search.relevance import READINGS
from pmpo_ray.search.writers import WRITERS
from pmpo_ray.types import OPERATORS

_HINT_TOKENS = 20
"""Tokens around a segment in the hints of a writer's request."""
CLOSING_TOKENS = 8
"""Tokens that a text has beside its own where it is read as an answer."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The length that instructions may reach, in tokens or in characters.

    `base` is the longest that is there at the start or that the rewriter writes. From it the operator
    "compose" makes texts that are longer by `whole` at most: one sentence of its library for each place, or a
    sentence of another start. Then it adds a sentence in each round, its own or another text's, the longest
    of which has `sentence`, all together `library`. No text is longer than `limit`.
    """

    base: int
    limit: int
    whole: int = 0
    sentence: int = 0
    library: int = 0

    def at(self, number: int) -> int:
        """The length of the longest text of round `number`."""
        more = self.whole + (number - 1) * self.sentence
        return min(self.limit, self.base + min(more, self.library))

    @property
    def settled(self) -> int:
        """The first round whose texts no later round's exceed."""
        return 1 if self.sentence == 0 else 1 + math.ceil(self.library / self.sentence)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one part that are scored under one instruction, and their tokens under the start
    instruction, with what the calibration adds."""

    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Lengths that the plan of a search rests on, in tokens if nothing else is said.

    `seeds` are the tokens of scoring each start instruction on the training rows, and of reading it; `start`
    is the first of these instructions, at least, and `start_characters` its characters; `shots` are the most
    demonstrations of a candidate, the longest ones, and `mean_shots` as many of mean length; `mask` is what
    stands for a masked segment. `forms` are the longest requests of the writers, by operator, and `mask_form`
    is a masking request, all without the instruction. `judging` is the prompt before a text whose relevance
    is judged, `reading` the one before a text whose readability counts (0: there is no such text). `eligible`
    is the number of rows that can be hard cases.
    """

    training: Part
    seeds: tuple[int, ...]
    validation: Part
    start: int
    start_characters: int
    reach: Reach
    characters: Reach
    shots: int
    mean_shots: int
    mask: int
    forms: Mapping[str, int]
    mask_form: int
    judging: int
    reading: int
    eligible: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The most texts of a round: `proposals` by operator, those of all together, and the masked ones."""

    proposals: dict[str, int]
    together: int
    masked: int

    @property
    def by_operator(self) -> dict[str, int]:
        """The candidates by operator, the masked texts among them."""
        return {**self.proposals, MASK_DROP: self.masked} if self.masked else self.proposals


def counts(settings: SearchConfig, operators: Sequence[str], parents: int, eligible: int) -> Counts:
    """The most texts of a round with so many parents; `eligible` rows can be hard cases."""
    each = settings.hard_examples * settings.variants
    wanted = _wanted(settings, operators)
    together = parents * each * len(operators)
    asked = {name: sum(samples) for name, samples in _samples(settings, wanted, eligible).items()}
    proposals = {name: parents * number for name, number in (wanted | asked).items()}
    masked = 0 if settings.masking == "off" else parents * settings.max_segments
    return Counts(proposals, min(together, sum(proposals.values())), masked)


def _wanted(settings: SearchConfig, operators: Sequence[str]) -> dict[str, int]:
    """The most proposals for a parent by operator."""
    each = settings.hard_examples * settings.variants
    if settings.bandit and operators:
        each = most_proposals(each, len(operators))
    return dict.fromkeys(operators, each)


def _samples(settings: SearchConfig, wanted: Mapping[str, int], eligible: int) -> dict[str, list[int]]:
    """The samples of each request for a parent by writer, of which so many are `wanted`."""
    hard = settings.hard_examples
    cases = min(hard, eligible)
    return {
        name: WRITERS[name].samples(number, hard, cases) for name, number in wanted.items() if name in WRITERS
    }


@dataclass(frozen=True, slots=True)
class SearchTokens:
    """The tokens of one search at most. `reply` are those of an answer to a writer's request."""

    settings: SearchConfig
    operators: Sequence[str]
    sizes: Sizes
    reply: int

    def typical(self, reply: int) -> SearchTokens:
        """The search with instructions as long as the start, demonstrations of mean length, and an answer of
        `reply` tokens for each request, which is used."""
        sizes = replace(
            self.sizes,
            reach=Reach(self.sizes.start, self.sizes.start),
            characters=Reach(self.sizes.start_characters, self.sizes.start_characters),
            shots=self.sizes.mean_shots,
        )
        settings = self.settings.model_copy(update={"reasks": 0})
        return replace(self, settings=settings, sizes=sizes, reply=min(reply, self.reply))

    def grown(self, part: Part, number: int, *, more: int = 0, shown: bool = True) -> int:
        """The tokens of a part under the longest text of round `number`, longer by `more` tokens, with
        demonstrations if they are `shown`."""
        longer = max(0, self.sizes.reach.at(number) + more - self.sizes.start)
        return part.tokens + part.rows * (longer + (self.sizes.shots if shown else 0))

    @property
    def may_change(self) -> bool:
        """True if the best may be another text than the first start."""
        return self.settings.rounds > 0 or len(self.sizes.seeds) > 1

    def parents(self, number: int) -> int:
        """The most parents of round `number`, from 1."""
        population = self.settings.population
        return population if number > 1 else min(population, len(self.sizes.seeds))

    def of_round(self, number: int, parents: int) -> PlannedTokens:
        """The tokens of round `number` with so many parents."""
        sizes, settings = self.sizes, self.settings
        found = counts(settings, self.operators, parents, sizes.eligible)
        # The start has no demonstrations of its own, so only one operator's texts have any in round 1.
        shown = number > 1 or not set(OPERATORS).issuperset(self.operators)
        with_shots = found.together if shown else min(found.together, found.proposals.get(DEMONSTRATE, 0))
        mask = sizes.mask if settings.mask_mode == "token" else 0
        scored = with_shots * self.grown(sizes.training, number)
        scored += (found.together - with_shots) * self.grown(sizes.training, number, shown=False)
        scored += found.masked * self.grown(sizes.training, number, more=mask, shown=number > 1)
        longest, tries = sizes.reach.at(number), settings.reasks + 1
        asked = _samples(settings, _wanted(settings, self.operators), sizes.eligible)
        written = tries * min(found.together, sum(found.proposals[name] for name in asked))
        if sizes.judging:
            scored += written * READINGS * (sizes.judging + longest + CLOSING_TOKENS)
        if sizes.reading:
            scored += self._read(found, asked) * (sizes.reading + longest + CLOSING_TOKENS)
            scored += found.masked * (sizes.reading + longest + mask + CLOSING_TOKENS)
        hints = longest + _HINT_TOKENS * settings.max_segments if settings.masking != "off" else 0
        forms = sum(len(asked[name]) * (sizes.forms[name] + longest + hints) for name in asked)
        prompted, generated = tries * parents * forms, written * self.reply
        if settings.masking == "model":
            prompted += parents * (sizes.mask_form + longest)
            generated += parents * reply_tokens(sizes.characters.at(number))
        return PlannedTokens(scored, prompted, generated)

    def _read(self, found: Counts, asked: Collection[str]) -> int:
        """The proposals of a round that are read for their readability alone. What the writers, `asked`, make
        is read for its relevance, if that is judged; demonstrations stand behind texts that were read."""
        known = {DEMONSTRATE, *(asked if self.sizes.judging else ())}
        others = (number for name, number in found.proposals.items() if name not in known)
        return min(found.together, sum(others))

    @property
    def one_round(self) -> PlannedTokens:
        """The tokens of a round, whichever takes most."""
        rounds = self.settings.rounds
        if rounds == 0:
            return PlannedTokens()
        return self.of_round(rounds, self.parents(rounds))

    @property
    def whole(self) -> PlannedTokens:
        """The tokens of the starts and of all rounds."""
        total, rounds = PlannedTokens(scored=sum(self.sizes.seeds)), self.settings.rounds
        settled = min(rounds, max(self.sizes.reach.settled, self.sizes.characters.settled))
        for number in range(1, settled + 1):
            # The first round, whose parents are the starts, is always among these.
            total += self.of_round(number, self.parents(number))
        return total + self.one_round.times(rounds - settled)

    @property
    def pick(self) -> PlannedTokens:
        """The tokens of the final pick, among the last leaders."""
        part = self.sizes.validation
        if not part.rows:
            return PlannedTokens()
        leaders = min(LEADERS, self.settings.rounds + 1)
        return PlannedTokens(scored=leaders * self.grown(part, max(1, self.settings.rounds)))
