"""Facts about a task's history: what changed in its instruction, the steps to the best one, the examples that
are still hard, and the cost.

Invariants: functions are pure, so equal histories give equal facts; texts are cut and counted, never
interpreted.
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
from pmpo_ray.search.budget import SECONDS, TOKENS
from pmpo_ray.types import Example, Operator, ScoredCandidate, SegmentImportance

PieceKind = Literal["same", "deleted", "inserted"]
TaskState = Literal["done", "running", "unfinished", "waiting"]
"""A task that is not done is "running" while a driver works on its run, else "unfinished"; a task without a
finished round is "waiting"."""

# In scripts without spaces every character is a word; a run of equal marks, such as a rule of dashes, is one.
_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = re.escape('!"#$%&()*+,./:;<=>?@[\\]^`{|}~“”„«»…–—。、，？！：；（）「」')
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}{_MARKS}]+|([{_MARKS}])\1*"
_GRAINS = (re.compile(rf"(?:{_WORD})(?P<space>\s*)|\s+"), re.compile(r"[^\n]*\S(?P<space>\s*)|\s+"))
"""A word, or a line, with the white space after it; or the white space at the beginning of a text."""
_MAX_PAIRS = 2_000_000
"""Pairs of equal words, one of each text, up to which two texts are compared word by word: the matcher visits
them all. Two different texts of 20,000 characters, as people or models write them, have a tenth of that."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of both texts ("same"), of the first ("deleted"), or of the second ("inserted")."""

    kind: PieceKind
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step from the start to an instruction. `change` is its loss minus that of the previous step, in
    nats; None for the start."""

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
    """Counts of one operator's candidates: scored ones, those of them that survived a round and that left the
    race, refused ones, those that could not be scored, and those for which a budget did not suffice."""

    operator: Operator
    scored: int
    survived: int
    refused: int
    failed: int
    left: int = 0
    unpaid: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a task so far: tokens that the scorer read, that the rewriter read and that it wrote, and
    seconds."""

    tokens_scored: int
    tokens_prompted: int
    tokens_generated: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Word:
    """A word (or line) and the white space after it."""

    text: str
    space: str


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """The differences between two texts, word by word; neighbouring pieces are of different kinds.

    The pieces that are the same or deleted join to `before`, those that are the same or inserted to `after`,
    exactly. Words are compared without the white space between them. Texts with too many equal words are
    compared by lines, and if they have too many equal lines, as wholes.
    """
    for grain in _GRAINS:
        old, new = _words(grain, before), _words(grain, after)
        counts = Counter(word.text for word in new)
        if sum(counts[word.text] for word in old) <= _MAX_PAIRS:
            return _merged(_compared(old, new))
    return _merged([Piece("deleted", before), Piece("inserted", after)])


def _words(grain: re.Pattern[str], text: str) -> list[_Word]:
    """The words of `text`; white space at its beginning is a word without text."""
    words = []
    for match in grain.finditer(text):
        space = match[0] if match["space"] is None else match["space"]
        words.append(_Word(match[0][: len(match[0]) - len(space)], space))
    return words


def _compared(old: Sequence[_Word], new: Sequence[_Word]) -> list[Piece]:
    matcher = SequenceMatcher(None, [word.text for word in old], [word.text for word in new], autojunk=False)
    pieces: list[Piece] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            for one, other in zip(old[i:i_end], new[j:j_end], strict=True):
                pieces += [Piece("same", one.text), *_replaced(one.space, other.space)]
            continue
        deleted, inserted = old[i:i_end], new[j:j_end]
        # The space after a replaced word is the same in both texts.
        both = deleted and inserted and deleted[-1].space == inserted[-1].space
        kept = deleted[-1].space if both else ""
        pieces.append(Piece("deleted", _text(deleted).removesuffix(kept)))
        pieces.append(Piece("inserted", _text(inserted).removesuffix(kept)))
        pieces.append(Piece("same", kept))
    return pieces


def _text(words: Sequence[_Word]) -> str:
    return "".join(word.text + word.space for word in words)


def _replaced(old: str, new: str) -> list[Piece]:
    return [Piece("same", old)] if old == new else [Piece("deleted", old), Piece("inserted", new)]


def _merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """The pieces without empty ones; between two that are the same, at most one deleted and one inserted."""
    merged: list[Piece] = []
    whole = (piece for piece in pieces if piece.text)
    for same, run in groupby(whole, key=lambda piece: piece.kind == "same"):
        parts = list(run)
        kinds: tuple[PieceKind, ...] = ("same",) if same else ("deleted", "inserted")
        texts = [(kind, "".join(part.text for part in parts if part.kind == kind)) for kind in kinds]
        merged += [Piece(kind, text) for kind, text in texts if text]
    return tuple(merged)


def state_of(history: RunHistory, task: TaskHistory) -> TaskState:
    """The state of a task with a finished round."""
    if task.result is not None:
        return "done"
    return "running" if history.at_work else "unfinished"


def cost_of(task: TaskHistory) -> Cost:
    """The cost of a task so far. Once it is done, this includes the choice of the final instruction."""
    spent = task.records if task.result is None else (task.result,)
    return Cost(
        tokens_scored=sum(part.tokens_scored for part in spent),
        tokens_prompted=sum(part.tokens_prompted for part in spent),
        tokens_generated=sum(part.tokens_generated for part in spent),
        seconds=sum(part.seconds for part in spent),
    )


def steps(task: TaskHistory, candidate: str) -> tuple[Step, ...]:
    """The steps from the seed to a candidate, which is the last of them."""
    chain = task.lineage(candidate)
    changes = (after.loss - before.loss for before, after in pairwise(chain))
    return tuple(Step(scored, change) for scored, change in zip(chain, (None, *changes), strict=True))


def hard_examples(task: TaskHistory, limit: int) -> tuple[HardExample, ...]:
    """The `limit` examples with the highest loss under the start and the `limit` with the highest under the
    best, so both what is still hard and what no longer is: `limit` to twice as many, the hardest under the
    best first, ties in training order. Empty if the run folder does not hold the examples of its losses.
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
    """The best instruction or, if it was not analysed, its nearest ancestor that was, with the importance of
    its parts; None if none was. A best instruction that is new in the last round was never analysed."""
    for scored in reversed(task.lineage(task.best_id)):
        if found := task.segments(scored.candidate.id):
            return scored, found
    return None


def operator_counts(task: TaskHistory) -> tuple[OperatorCount, ...]:
    """The counts of each operator, in the order in which operators first appear."""
    ids = task.survived
    scored = Counter(item.candidate.operator for item in task.candidates.values())
    survived = Counter(item.candidate.operator for name, item in task.candidates.items() if name in ids)
    left = Counter(item.candidate.operator for item in task.candidates.values() if item.left)
    refused = Counter(
        (refusal.operator, "unpaid" if refusal.reason in (TOKENS, SECONDS) else refusal.status)
        for _, refusal in task.refusals
    )
    operators = dict.fromkeys((*scored, *(operator for operator, _ in refused)))
    return tuple(
        OperatorCount(
            name,
            scored[name],
            survived[name],
            refused[name, "refused"],
            refused[name, "failed"],
            left[name],
            refused[name, "unpaid"],
        )
        for name in operators
    )


def race_note(scored: ScoredCandidate) -> str:
    """That a candidate left the race, in words; empty for one that did not."""
    return f"left the race after {scored.left} examples" if scored.left else ""


def refusal_counts(task: TaskHistory) -> tuple[tuple[str, int], ...]:
    """The reasons why texts did not become candidates, with their counts, the most frequent first."""
    return tuple(Counter(refusal.reason for _, refusal in task.refusals).most_common())
