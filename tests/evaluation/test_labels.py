"""When labels are uneven, and what their accuracies are."""

from __future__ import annotations

import pytest

from pmpo_ray.evaluation.labels import by_label, is_uneven, labels_of
from pmpo_ray.evaluation.statistics import stratified_interval, wilson_interval
from pmpo_ray.types import Example, Task


@pytest.mark.parametrize(
    ("counts", "uneven"),
    [
        ((50, 50), False),
        ((70, 30), False),
        ((150, 50), False),
        ((151, 49), True),
        ((198, 2), True),
        ((45, 45, 10), True),
        ((40, 35, 25), False),
        ((138, 113, 94, 81, 65, 9), True),
        ((200,), True),
        ((), False),
    ],
)
def test_labels_are_uneven_by_one_rule(counts: tuple[int, ...], uneven: bool) -> None:
    assert is_uneven({str(number): count for number, count in enumerate(counts)}) == uneven


def test_the_most_frequent_label_comes_first() -> None:
    labels = ["b"] * 2 + ["a"] * 2 + ["c"] * 20
    found = by_label(labels, [1.0, 0.0, 1.0, 1.0, *[1.0] * 15, *[0.0] * 5])
    assert found is not None
    assert [one.label for one in found.labels] == ["c", "a", "b"]
    assert [one.accuracy for one in found.labels] == [
        wilson_interval(15, 20),
        wilson_interval(2, 2),
        wilson_interval(1, 2),
    ]
    assert found.balanced.value == pytest.approx((0.75 + 1.0 + 0.5) / 3)


def test_means_over_repetitions_are_bootstrapped_by_label_too() -> None:
    groups = [[1.0] * 19 + [0.5], [0.5, 0.0]]
    found = by_label(["ham"] * 20 + ["spam"] * 2, [*groups[0], *groups[1]])
    assert found is not None
    assert found.balanced == stratified_interval(groups)
    assert [one.accuracy.method for one in found.labels] == ["bootstrap", "bootstrap"]


def test_only_a_closed_set_of_labels_counts() -> None:
    examples = (Example("1", "a", "yes", ("no",)), Example("2", "b", "no", ("yes",)))
    task = Task("t", "labels", "d", "i", examples, ("yes", "no"))
    assert labels_of(task, examples) == ("yes", "no")
    assert labels_of(Task("t", "text", "d", "i", examples), examples) == ()
    assert by_label((), [1.0, 0.0]) is None
