"""The overview of a task as text: its kind, objective and parts, the counts of its answers, and the notes.

Invariant: texts from data are shown on one line, with hidden characters escaped.
"""

from __future__ import annotations

from pmpo_ray.store.task_overview import TaskOverview
from pmpo_ray.text import excerpt, in_line

_MOST = 12
"""The number of answers that one line names."""
_WIDTH = 40


def overview_line(overview: TaskOverview) -> str:
    """Kind, parts, objective and answers on one line."""
    parts = ", ".join(f"{count} {name}" for name, count in overview.parts.items())
    head = f"kind {overview.kind}: {parts}; objective {overview.objective}"
    return f"{head}; {answers_line(overview)}" if overview.answers else head


def answers_line(overview: TaskOverview) -> str:
    """The answers of a closed set with their counts in each part, the most frequent first."""
    ordered = sorted(overview.answers.items(), key=lambda item: -sum(item[1].values()))
    named = ", ".join(
        f"{excerpt(answer, _WIDTH)} {'/'.join(map(str, counts.values()))}"
        for answer, counts in ordered[:_MOST]
    )
    more = f" and {len(ordered) - _MOST} more" if len(ordered) > _MOST else ""
    what = "labels" if overview.kind == "labels" else "answers"
    return f"{len(ordered)} {what} ({'/'.join(overview.parts)}): {named}{more}"


def remarks(overview: TaskOverview) -> tuple[str, ...]:
    """The notes and warnings, each on one line."""
    return tuple(map(in_line, (*overview.notes, *overview.warnings)))
