"""The budgets of a search (`search.max_tokens`, `search.max_seconds`): what fits into what is left of them.

Everything counts that a bill would: tokens that the scorer reads, that the rewriter reads and that it writes,
for masking, rewriting, operators, scoring and the final pick. Seconds are turned into tokens at the pace of
the finished rounds.

Invariants:
- A unit of work is sent only if it fits at its highest possible cost; with racing, also the first part of a
  candidate's scoring only if the rest of it would fit. Estimates are above what English
  texts cost, so a search stays within its budget up to the rounding of one unit.
- What is sent depends on the records and on whole steps of the round, never on the order of replies.
- Without a budget nothing is estimated, measured or left out.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeAlias

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.base import Calibrate
from pmpo_ray.errors import DataError
from pmpo_ray.search.calibration import extra_examples
from pmpo_ray.search.leave_one_out import apart
from pmpo_ray.types import (
    Candidate,
    Example,
    GenerateRequest,
    PromptLength,
    ScoredCandidate,
    ScoreRequest,
    Split,
    Task,
)

Measure: TypeAlias = Callable[[ScoreRequest], Awaitable[tuple[PromptLength, ...] | None]]
"""Returns the lengths of the prompts of a request, or None if the engine does not tell."""

_BYTES_PER_TOKEN = 3
"""Bytes of UTF-8 per token, fewer than tokenizers need for texts of most languages."""
TURN_TOKENS = 12
"""Tokens of a chat template around a turn."""
TOKENS = "token budget"
SECONDS = "time budget"


@dataclass(slots=True)
class Allowance:
    """Tokens that one part of a round may spend."""

    left: float = math.inf

    def spend(self, tokens: float) -> None:
        self.left -= tokens


def fitting(costs: Sequence[float], left: float) -> int:
    """The number of units, from the first on, that together cost at most `left`."""
    return sum(total <= left for total in accumulate(costs))


def highest_cost(request: GenerateRequest) -> int:
    """The tokens that a request costs at most, by the estimate for its prompt."""
    return prompt_estimate(request) + request.n * request.max_tokens


def prompt_estimate(request: GenerateRequest) -> int:
    """The tokens of a prompt, estimated from above."""
    texts = [
        request.system,
        request.prompt,
        *(text for shot in request.shots for text in (shot.input, shot.target)),
    ]
    turns = [text for text in texts if text]
    return sum(estimated(text) for text in turns) + TURN_TOKENS * (len(turns) + 1)


def shrunk(
    requests: Sequence[GenerateRequest], left: float, *, written: float | None, scoring: float
) -> list[GenerateRequest]:
    """The first of the requests, with fewer samples each if need be, that fit into `left` tokens.

    Samples are given up before requests (n before k in the notation of the paper). What is returned fits at
    its highest cost together with the scoring of one text; and at the expected cost of `written` tokens a
    text (None: unknown) it fits together with the scoring of all texts, at `scoring` tokens each.
    """
    if math.isinf(left):
        return list(requests)
    most = max((request.n for request in requests), default=0)
    sizes = [(len(requests), count) for count in range(most, 0, -1)]
    sizes += [(number, 1) for number in range(len(requests) - 1, 0, -1)]
    for number, count in sizes:
        part = [replace(request, n=min(request.n, count)) for request in requests[:number]]
        texts = sum(request.n for request in part)
        longest = max(request.max_tokens for request in part)
        expected = longest if written is None else min(written, longest)
        read = sum(map(prompt_estimate, part))
        fits_at_most = sum(map(highest_cost, part)) + scoring <= left
        if fits_at_most and read + texts * (expected + scoring) <= left:
            return part
    return []


@dataclass(frozen=True, slots=True)
class Prices:
    """The tokens that candidates take at most: on each training example those of a known candidate (`known`,
    in training order), and the tokens by which its prompts are longer (`more`, by id). `blanks` is the number
    of the calibration's own examples, whose tokens are in those of the first example."""

    known: tuple[int, ...]
    more: Mapping[str, int]
    blanks: int = 0

    def of(self, candidate: Candidate, rows: Sequence[int], *, first: bool) -> int:
        """The tokens on the examples `rows`; with `first`, also on the calibration's own examples."""
        tokens = sum(self.known[row] for row in rows) + len(rows) * self.more[candidate.id]
        if first and self.blanks:
            tokens += self.blanks * self.more[candidate.id] + (0 if 0 in rows else self.known[0])
        return tokens


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of scoring instructions on the examples of a split. `measure` tells the lengths of prompts
    (None: they are estimated); `calibrate` is the calibration, for which further examples are scored."""

    split: Split
    measure: Measure | None = None
    calibrate: Calibrate = False

    async def first(self, instructions: Sequence[str]) -> int:
        """The tokens of the instructions that are scored first, together, at most; 0 if the engine does not
        tell."""
        return sum(await gather_or_cancel(map(self._unscored, instructions)))

    async def _unscored(self, instruction: str) -> int:
        """The tokens of an instruction, at most, before any was scored; 0 if the engine does not tell."""
        lengths = await self._lengths(ScoreRequest(instruction, self.split.train, self.split.shots))
        if lengths is None:
            return 0
        tokens = [
            length.context + length.answer * (1 + len(example.negatives))
            for example, length in zip(self.split.train, lengths, strict=True)
        ]
        return sum(tokens) + extra_examples(self.calibrate) * max(tokens)

    async def prices(self, candidates: Sequence[Candidate], known: ScoredCandidate) -> Prices:
        """The tokens of other candidates, at most, by those of a scored one."""
        there, *others = await gather_or_cancel(
            self._heads(candidate) for candidate in (known.candidate, *candidates)
        )
        more = {
            one.id: self._more(here, there, one, known.candidate)
            for one, here in zip(candidates, others, strict=True)
        }
        return Prices(tuple(score.tokens for score in known.scores), more, extra_examples(self.calibrate))

    def of_validation(self, known: ScoredCandidate, leader: Candidate | None = None) -> int:
        """The tokens of a candidate (None: the scored one) on the validation part, estimated from the tokens
        of a scored candidate on the training part."""
        trained = sum(map(_characters, self.split.train))
        share = sum(map(_characters, self.split.validation)) / max(trained, 1)
        share = max(share, len(self.split.validation) / len(self.split.train))
        more = 0 if leader is None else self._more(None, None, leader, known.candidate)
        return math.ceil(share * (tokens_of(known) + self._rows * more))

    @property
    def _rows(self) -> int:
        return len(self.split.train) + extra_examples(self.calibrate)

    def _more(
        self,
        here: tuple[int, ...] | None,
        there: tuple[int, ...] | None,
        candidate: Candidate,
        known: Candidate,
    ) -> int:
        """The tokens, at most, by which a prompt of the candidate is longer than one of the known one;
        `here` and `there` are the measured lengths of their prompts, None if the engine does not tell."""
        if here is None or there is None:
            return max(0, self._estimated(candidate) - self._estimated(known))
        return max(here) - min(there)

    async def _heads(self, candidate: Candidate) -> tuple[int, ...] | None:
        """The lengths of the prompts of one short example: behind all demonstrations, and behind those that
        each of them is scored behind. None if the engine does not tell."""
        split = self.split
        shortest = min(split.train, key=lambda example: len(example.input))
        shots = split.demonstrations(candidate.shots)
        request = ScoreRequest(candidate.text, split.train, shots)
        heads = dict.fromkeys((shots, *(part.shots for part in apart(request, split.train))))
        lengths = await gather_or_cancel(
            self._lengths(replace(request, examples=(shortest,), shots=head)) for head in heads
        )
        known = [length[0].context for length in lengths if length is not None]
        return tuple(known) if known else None

    def _estimated(self, candidate: Candidate) -> int:
        """The tokens of an instruction with its demonstrations, estimated from above."""
        shots = self.split.trained(candidate.shots)
        turns = (text for shot in shots for text in (shot.input, shot.target))
        return estimated(candidate.text) + sum(estimated(text) + TURN_TOKENS for text in turns)

    async def _lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...] | None:
        return None if self.measure is None else await self.measure(request)


def tokens_of(scored: ScoredCandidate) -> int:
    """The tokens that a candidate's scores took."""
    return sum(score.tokens for score in scored.scores)


def check_first(task: Task, cost: int, max_tokens: int) -> None:
    """Raise DataError if the budget does not suffice to score the start instructions of a task."""
    if cost <= max_tokens:
        return
    number = len(task.instructions)
    if number == 1:
        scored, advice = "the start instruction, which takes", ""
    else:
        scored, advice = f"the {number} start instructions, which take", "give fewer of them, "
    raise DataError(
        f"task {task.name!r}: a budget of {max_tokens:,} tokens does not suffice to score {scored} up to "
        f"{cost:,}; {advice}raise search.max_tokens (or budget.max_tokens, which the searches share, or "
        "budget.level), or lower split.train_max"
    )


def estimated(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def _characters(example: Example) -> int:
    return len(example.input) + len(example.target) + sum(map(len, example.negatives))
