"""Accuracies by label, for tasks with a closed set of labels.

Invariant: they exist exactly where they say more than the plain accuracy, which is where labels are uneven.
An instruction that always answers with the most frequent label then has a high accuracy, but a balanced
accuracy of one over the number of labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pmpo_ray.evaluation.statistics import label_interval, mean_interval
from pmpo_ray.outcomes import ByLabel, LabelAccuracy
from pmpo_ray.types import Example, Task

UNEVEN = "the most frequent label has over 1.5 times its even share of the examples, or the rarest under half"
"""The rule by which labels are uneven, in words."""
_LARGE, _SMALL = 1.5, 0.5


def labels_of(task: Task, examples: Sequence[Example]) -> tuple[str, ...]:
    """The right labels of examples, in their order; empty if the task has no closed set of labels."""
    return tuple(example.target for example in examples) if task.kind == "labels" else ()


def is_uneven(counts: Mapping[str, int]) -> bool:
    """True if the labels with these counts are uneven, and for one label alone: others were not tested."""
    even = sum(counts.values()) / max(1, len(counts))
    return len(counts) == 1 or any(not _SMALL * even <= count <= _LARGE * even for count in counts.values())


def by_label(labels: Sequence[str], values: Sequence[float]) -> ByLabel | None:
    """The accuracies by label of examples with these labels and values, and the balanced accuracy; None if
    the labels are even, or there are none."""
    counts = Counter(labels)
    if not is_uneven(counts):
        return None
    groups: dict[str, list[float]] = {label: [] for label, _ in sorted(counts.items(), key=_most_frequent)}
    for label, value in zip(labels, values, strict=True):
        groups[label].append(value)
    return ByLabel(
        tuple(LabelAccuracy(label, mean_interval(group)) for label, group in groups.items()),
        label_interval(list(groups.values())),
    )


def _most_frequent(counted: tuple[str, int]) -> tuple[int, str]:
    label, count = counted
    return -count, label
