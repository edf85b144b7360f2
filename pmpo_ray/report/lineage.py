"""The tree of a task's survivors: from the start to the instructions that survive at its end.

Invariant: a node's parent is above it; the tree contains the survivors of the last round, the best
instruction, their ancestors, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from pmpo_ray.history.run_history import TaskHistory
from pmpo_ray.history.task_facts import Piece, word_diff
from pmpo_ray.types import ScoredCandidate


@dataclass(frozen=True, slots=True)
class Node:
    """A candidate in the tree. `change` is its loss minus its parent's, None for a start; `tried` counts the
    other scored texts that were made from it and are not in the tree."""

    scored: ScoredCandidate
    change: float | None
    diff: tuple[Piece, ...]
    tried: int
    is_best: bool
    survives: bool
    children: tuple[Node, ...]


def lineage_tree(task: TaskHistory) -> tuple[Node, ...]:
    """The roots of the tree, oldest first."""
    ends = dict.fromkeys((task.best_id, *task.records[-1].survivors))
    shown = {scored.candidate.id for end in ends for scored in task.lineage(end)}
    children: dict[str | None, list[ScoredCandidate]] = {}
    for scored in task.candidates.values():
        children.setdefault(scored.candidate.parent, []).append(scored)

    def node(scored: ScoredCandidate, parent: ScoredCandidate | None) -> Node:
        made = children.get(scored.candidate.id, [])
        kept = [child for child in made if child.candidate.id in shown]
        return Node(
            scored=scored,
            change=None if parent is None else scored.loss - parent.loss,
            diff=() if parent is None else word_diff(parent.candidate.text, scored.candidate.text),
            tried=len(made) - len(kept),
            is_best=scored.candidate.id == task.best_id,
            survives=scored.candidate.id in ends,
            children=tuple(node(child, scored) for child in kept),
        )

    return tuple(node(root, None) for root in children[None] if root.candidate.id in shown)
