"""What a task's history shows at a closer look: what changed, what is hard, which parts help.

Invariants: pure; nothing of a text is lost or added, so that a difference gives both texts back exactly.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from pmpo_ray.history import TaskHistory
from pmpo_ray.types import Example, ScoredCandidate, SegmentImportance

_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a word diff."""

    kind: Literal["same", "deleted", "inserted"]
    text: str


@dataclass(frozen=True, slots=True)
class HardExample:
    """A training example with its loss under the first and under the best instruction, in nats."""

    example: Example
    loss_before: float
    loss_after: float


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """What has to be deleted from `before` and inserted to come to `after`, in whole words: the pieces "same"
    and "deleted" are `before`, "same" and "inserted" are `after`."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    pieces: list[Piece] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append(Piece("same", "".join(old[i:j])))
            continue
        if j > i:
            pieces.append(Piece("deleted", "".join(old[i:j])))
        if m > k:
            pieces.append(Piece("inserted", "".join(new[k:m])))
    return _joined(pieces)


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """The same with what changes on both sides of mere white space as one change: a phrase in place of
    another reads better than their words in turn."""
    groups: list[tuple[str, str, str]] = []  # same, deleted, inserted; either the first or the others
    for index, piece in enumerate(pieces):
        within = 0 < index < len(pieces) - 1
        if piece.kind == "same" and not (within and piece.text.isspace()):
            groups.append((piece.text, "", ""))
            continue
        deleted = piece.text if piece.kind != "inserted" else ""
        inserted = piece.text if piece.kind != "deleted" else ""
        if groups and not groups[-1][0]:
            _, *before = groups.pop()
            deleted, inserted = before[0] + deleted, before[1] + inserted
        groups.append(("", deleted, inserted))
    found = (
        piece
        for same, deleted, inserted in groups
        for piece in (Piece("same", same), Piece("deleted", deleted), Piece("inserted", inserted))
    )
    return tuple(piece for piece in found if piece.text)


def hard_examples(task: TaskHistory, limit: int) -> tuple[HardExample, ...]:
    """The training examples that are hardest under the best instruction, and those that were hardest under
    the first, in turn, at most `limit`; shown by their loss now. None where the folder holds no examples."""
    if not task.examples:
        return ()
    found = [
        HardExample(example, before, after)
        for example, before, after in zip(task.examples, task.start.losses, task.best.losses, strict=True)
    ]
    now = sorted(range(len(found)), key=lambda index: -_rank(found[index].loss_after))
    then = sorted(range(len(found)), key=lambda index: -_rank(found[index].loss_before))
    turns = dict.fromkeys(index for pair in zip(now, then, strict=True) for index in pair)
    chosen = sorted(list(turns)[:limit], key=now.index)
    return tuple(found[index] for index in chosen)


def _rank(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss


def analysed(task: TaskHistory) -> tuple[ScoredCandidate, tuple[SegmentImportance, ...]] | None:
    """The best instruction with the importance of its parts, or its nearest ancestor that was analysed; None
    where masking was off."""
    for scored in reversed(task.lineage(task.best_id)):
        if segments := task.segments(scored.candidate.id):
            return scored, segments
    return None
