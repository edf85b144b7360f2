"""Accuracies in words: the method of their intervals, the correction of their p-values, and by label.

Invariants: every legend is made from the figures that it describes; labels are data and never interpreted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pmpo_ray.display.numbers import accuracy_text
from pmpo_ray.outcomes import ByLabel, Interval, IntervalMethod
from pmpo_ray.text import excerpt, in_line

_METHODS: Mapping[IntervalMethod, str] = {
    "Wilson": "Wilson",
    "Wilson by label": "the labels' Wilson intervals combined",
    "bootstrap": "bootstrap over examples",
    "Tango": "Tango; p of the same test (McNemar)",
    "permutation": "permutation test, p of the same",
    "searches": "over searches and examples, p of the same test",
}
_LABELS = 12
"""Labels that a terminal shows of one task."""
_LABEL = 40
"""Characters to which a longer label is shortened."""
BALANCED = "balanced: mean of the labels' accuracies, shown where labels are uneven"

Pair = tuple[ByLabel | None, ByLabel | None]
"""The accuracies by label before and after."""


def interval_words(intervals: Iterable[Interval | None]) -> str:
    """The methods of intervals, in words."""
    methods = dict.fromkeys(interval.method for interval in intervals if interval is not None)
    return " or ".join(_METHODS[method] for method in methods)


def corrected_words(tests: int) -> str:
    """The correction of p-values, in words."""
    return "one test, nothing to correct" if tests == 1 else f"corrected for {tests} tests (Holm)"


def label_rows(before: ByLabel | None, after: ByLabel | None) -> Iterator[tuple[str, str, str]]:
    """The balanced accuracy and the accuracies of the most frequent labels, before and after, as lines of a
    table; none if the labels are even."""
    if before is None or after is None:
        return
    yield "balanced accuracy", accuracy_text(before.balanced), accuracy_text(after.balanced)
    for one, other in list(zip(before.labels, after.labels, strict=True))[:_LABELS]:
        title = f"  {excerpt(one.label, _LABEL)} ({one.accuracy.n})"
        yield title, accuracy_text(one.accuracy), accuracy_text(other.accuracy)
    if len(before.labels) > _LABELS:
        yield f"  {len(before.labels) - _LABELS} rarer labels", "see --json", ""


def balanced_lines(tasks: Mapping[str, Pair]) -> Iterator[str]:
    """The balanced accuracies of the tasks with uneven labels, as lines; none without such a task."""
    uneven = [(task, before, after) for task, (before, after) in tasks.items() if before and after]
    if uneven:
        yield BALANCED
    for task, before, after in uneven:
        change = f"{accuracy_text(before.balanced)} → {accuracy_text(after.balanced)}"
        yield f"  {in_line(task)}: {change}"
