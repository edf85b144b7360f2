"""Several right answers to one input: never negatives of each other, and counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.python_data import checked
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.right_answers import with_right_answers
from pmpo_ray.tasks.user_data import task_of_records
from pmpo_ray.types import Example, Task


def _task(*rows: tuple[str, str], **settings: object) -> Task:
    records = [Record({"input": text, "target": target}, f"row {n}") for n, (text, target) in enumerate(rows)]
    return task_of_records(TaskConfig.model_validate({"name": "own", **settings}), records, (), 0)


def test_two_targets_of_one_input_are_both_right() -> None:
    others = [(f"question {n}", f"answer {n}") for n in range(6)]
    task = _task(("Name a French  city", "Paris"), ("name a French city", "Lyon"), *others)
    assert [example.also_right for example in task.examples[:3]] == [("Lyon",), ("Paris",), ()]
    assert task.notes == (
        "1 of 7 inputs stand with several right answers (such as 'Name a French city' with 'Lyon', 'Paris'): "
        "each of them counts as right",
    )


def test_labels_of_one_input_are_no_negatives_of_each_other() -> None:
    rows = [(f"message {n}", "abc"[n % 3]) for n in range(12)]
    task = _task(("message 0", "b"), *rows)
    first = task.examples[0]
    assert (first.target, first.negatives, first.also_right) == ("b", ("c",), ("a",))
    assert [example.negatives for example in task.examples[1:3]] == [("c",), ("a", "c")]


def test_examples_for_which_no_label_is_wrong_are_left_out_and_counted() -> None:
    rows = [(f"message {n}", ("ham", "spam")[n % 2]) for n in range(20)]
    task = _task(*rows, *[(text, "spam" if label == "ham" else "ham") for text, label in rows[:4]])
    assert len(task.examples) == 16
    assert all(example.negatives for example in task.examples)
    [note] = task.notes
    assert note.startswith("4 of 20 inputs stand with several labels (such as 'message 0' with 'ham', 'spam'")
    assert note.endswith("; 8 examples left out, for which no answer is wrong")


def test_the_order_of_the_rows_does_not_count() -> None:
    rows = [("q", "one"), ("q", "two"), ("q", "three"), *((f"r {n}", f"s {n}") for n in range(5))]
    ahead, back = _task(*rows), _task(*reversed(rows))
    assert Counter(ahead.examples) == Counter(back.examples)


def test_a_target_to_be_avoided_is_not_right() -> None:
    examples = (Example("1", "q", "good"), Example("2", "q", "bad", weight=-1.0), Example("3", "r", "x"))
    task = with_right_answers(Task("t", "text", "", "do", examples))
    assert [example.also_right for example in task.examples] == [(), (), ()]


def test_a_task_from_python_is_settled_too() -> None:
    labels = ("a", "b", "c")
    rows = (
        Example("1", "q", "a", ("b", "c")),
        Example("2", "q", "b", ("a", "c")),
        Example("3", "r", "c", ("a",)),
    )
    task = checked(Task("t", "labels", "", "do", rows, labels=labels))
    assert [example.negatives for example in task.examples] == [("c",), ("c",), ("a",)]
    assert with_right_answers(task) == task
    same = replace(task, examples=tuple(replace(e, target="a", negatives=("b",)) for e in rows))
    with pytest.raises(DataError, match="all 3 examples have the same target 'a'"):
        checked(same)


def test_labels_of_a_task_from_python_can_be_told_apart() -> None:
    rows = (Example("1", "q", "US", ("us",)), Example("2", "r", "us", ("US",)))
    with pytest.raises(ConfigError, match="'US' and 'us' count as one"):
        checked(Task("t", "labels", "", "do", rows, labels=("US", "us")))


def test_pairs_keep_their_negatives_and_reversals_are_counted() -> None:
    pairs = (
        Example("1", "q", "good", ("bad",)),
        Example("2", "q", "bad", ("good",)),
        Example("3", "q", "good", ("worse",)),
    )
    task = with_right_answers(Task("t", "pairs", "", "do", pairs))
    assert task.examples == pairs
    [note] = task.notes
    assert note.startswith("2 pairs contradict another pair")
