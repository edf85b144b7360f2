"""What a task's history means: what changed, how it came about, and where it is still hard.

Invariants: pure; equal histories give equal answers; texts are cut and counted, never interpreted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from typing import Literal

from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.types import Example, Operator, ScoredCandidate, SegmentImportance

PieceKind = Literal["same", "deleted", "inserted"]
TaskState = Literal["done", "running", "unfinished", "waiting"]
"""A task that is not done is running where a driver works on its run, and unfinished where none does;
"waiting" is one without a finished round."""

# Scripts that are written without blanks count by the character; marks such as a rule of dashes as one word.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = re.escape('!"#$%&()*+,./:;<=>?@[\\]^`{|}~“”„«»…–—。、，？！：；（）「」')
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}{_MARKS}]+|([{_MARKS}])\1*"
_GRAINS = (re.compile(rf"(?:{_WORD})(?P<space>\s*)|\s+"), re.compile(r"[^\n]*\S(?P<space>\s*)|\s+"))
"""A word, or a line, with the white space behind it; white space alone at the beginning of a text."""
_MOST_WORK = 50_000_000
"""What comparing two texts may cost, in pairs of words: some seconds at the worst, where every other word of
20,000 characters changed, and a tenth of that for texts that people or models write."""
_EQUAL_PAIR = 20
"""How much more a pair of equal words costs than one of unequal words."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of two texts: of both ("same"), of the first alone ("deleted"), or of the second alone."""

    kind: PieceKind
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way from the start to an instruction. `change` is its loss less that of the step
    before, in nats; None for the start."""

    scored: ScoredCandidate
    change: float | None


@dataclass(frozen=True, slots=True)
class HardExample:
    """A training example with its losses, in nats, under the start and under the best instruction."""

    example: Example
    loss_before: float
    loss_after: float


@dataclass(frozen=True, slots=True)
class OperatorCount:
    """What came of one operator's texts: how many were scored, how many of these survived a round, how many
    were refused, and how many could not be scored."""

    operator: Operator
    scored: int
    survived: int
    refused: int
    failed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a task took so far."""

    tokens_scored: int
    tokens_generated: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Word:
    """A word (or line) and the white space behind it."""

    text: str
    space: str


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """The way from one text to another, word by word, neighbouring pieces of different kinds.

    Of the pieces, those that are the same or deleted join to `before`, and those that are the same or
    inserted to `after`, exactly. Words are compared without the white space between them. Texts that are
    too long, or repeat themselves too much, to be compared by words are compared by lines, or else as wholes.
    """
    for grain in _GRAINS:
        old, new = _words(grain, before), _words(grain, after)
        if _work(old, new) <= _MOST_WORK:
            return _merged(_compared(old, new))
    return _merged([Piece("deleted", before), Piece("inserted", after)])


def _words(grain: re.Pattern[str], text: str) -> list[_Word]:
    """`text` in words; of white space at its beginning, one without text."""
    found = []
    for match in grain.finditer(text):
        space = match[0] if match["space"] is None else match["space"]
        found.append(_Word(match[0][: len(match[0]) - len(space)], space))
    return found


def _work(old: Sequence[_Word], new: Sequence[_Word]) -> int:
    there = Counter(word.text for word in new)
    return len(old) * len(new) + _EQUAL_PAIR * sum(there[word.text] for word in old)


def _compared(old: Sequence[_Word], new: Sequence[_Word]) -> list[Piece]:
    matcher = SequenceMatcher(None, [word.text for word in old], [word.text for word in new], autojunk=False)
    pieces: list[Piece] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            for one, other in zip(old[i:i_end], new[j:j_end], strict=True):
                pieces += [Piece("same", one.text), *_replaced(one.space, other.space)]
            continue
        gone, come = old[i:i_end], new[j:j_end]
        # The blank behind a replaced word stays where it was.
        kept = gone[-1].space if gone and come and gone[-1].space == come[-1].space else ""
        pieces.append(Piece("deleted", _text(gone).removesuffix(kept)))
        pieces.append(Piece("inserted", _text(come).removesuffix(kept)))
        pieces.append(Piece("same", kept))
    return pieces


def _text(words: Sequence[_Word]) -> str:
    return "".join(word.text + word.space for word in words)


def _replaced(old: str, new: str) -> list[Piece]:
    return [Piece("same", old)] if old == new else [Piece("deleted", old), Piece("inserted", new)]


def _merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Without empty pieces; between two that are the same, one deleted piece before one inserted."""
    found: list[Piece] = []
    whole = (piece for piece in pieces if piece.text)
    for same, run in groupby(whole, key=lambda piece: piece.kind == "same"):
        parts = list(run)
        kinds: tuple[PieceKind, ...] = ("same",) if same else ("deleted", "inserted")
        texts = [(kind, "".join(part.text for part in parts if part.kind == kind)) for kind in kinds]
        found += [Piece(kind, text) for kind, text in texts if text]
    return tuple(found)


def state_of(history: RunHistory, task: TaskHistory) -> TaskState:
    """How far a task with a finished round is."""
    if task.result is not None:
        return "done"
    return "running" if history.at_work else "unfinished"


def cost_of(task: TaskHistory) -> Cost:
    """What a task took so far. Once it is done, this includes what picking the final instruction took."""
    spent = task.records if task.result is None else (task.result,)
    return Cost(
        tokens_scored=sum(part.tokens_scored for part in spent),
        tokens_generated=sum(part.tokens_generated for part in spent),
        seconds=sum(part.seconds for part in spent),
    )


def steps(task: TaskHistory, candidate: str) -> tuple[Step, ...]:
    """The way from the seed to a candidate, itself last."""
    chain = task.lineage(candidate)
    changes = (after.loss - before.loss for before, after in pairwise(chain))
    return tuple(Step(scored, change) for scored, change in zip(chain, (None, *changes), strict=True))


def hard_examples(task: TaskHistory, limit: int) -> tuple[HardExample, ...]:
    """The `limit` examples of highest loss under the start instruction and the `limit` of highest loss under
    the best: `limit` to twice as many, those that are hardest under the best first, ties in training order.

    So it tells both what is still hard and what no longer is. None where the run folder does not hold the
    examples of its losses.
    """
    if len(task.examples) != len(task.best.losses):
        return ()
    every = [
        HardExample(example, before, after)
        for example, before, after in zip(task.examples, task.start.losses, task.best.losses, strict=True)
    ]
    now = sorted(every, key=lambda hard: -hard.loss_after)
    then = sorted(every, key=lambda hard: -hard.loss_before)
    chosen = {hard.example.id for hard in (*now[:limit], *then[:limit])}
    return tuple(hard for hard in now if hard.example.id in chosen)


def analysed(task: TaskHistory) -> tuple[ScoredCandidate, tuple[SegmentImportance, ...]] | None:
    """The best instruction, or its nearest ancestor, whose parts were tried one by one, with their
    importance; None where no part of any of them was. The best is often new in the last round, and was never
    analysed itself."""
    for scored in reversed(task.lineage(task.best_id)):
        if found := task.segments(scored.candidate.id):
            return scored, found
    return None


def operator_counts(task: TaskHistory) -> tuple[OperatorCount, ...]:
    """What came of each operator's texts, in the order in which the operators first appear."""
    survived = task.survived
    scored: Counter[Operator] = Counter()
    lived: Counter[Operator] = Counter()
    for name, item in task.candidates.items():
        scored[item.candidate.operator] += 1
        lived[item.candidate.operator] += name in survived
    turned: Counter[tuple[Operator, str]] = Counter(
        (refusal.operator, refusal.status) for _, refusal in task.refusals
    )
    operators = dict.fromkeys((*scored, *(operator for operator, _ in turned)))
    return tuple(
        OperatorCount(name, scored[name], lived[name], turned[name, "refused"], turned[name, "failed"])
        for name in operators
    )


def refusal_counts(task: TaskHistory) -> tuple[tuple[str, int], ...]:
    """Why texts did not become candidates, and how many for each reason, the most frequent first."""
    return tuple(Counter(refusal.reason for _, refusal in task.refusals).most_common())
