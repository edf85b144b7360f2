"""Splitting a task: disjoint by input, of the promised sizes, stratified, the same for the same seed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks import list_tasks, load_task, split_task
from pmpo_ray.types import Example, Kind, Task


def _task(rows: list[tuple[str, str]], kind: Kind = "labels", test: tuple[str, ...] = ()) -> Task:
    return Task(
        name="made",
        kind=kind,
        description="",
        instruction="",
        examples=tuple(Example(f"{n:04}", text, target) for n, (text, target) in enumerate(rows)),
        test_examples=tuple(Example(f"t{n:04}", text, "a") for n, text in enumerate(test)),
    )


def _inputs(examples: tuple[Example, ...]) -> set[str]:
    return {example.input for example in examples}


_ROWS = st.lists(
    st.tuples(st.integers(min_value=0, max_value=40).map(str), st.sampled_from("abc")),
    min_size=6,
    max_size=80,
)


@given(
    rows=_ROWS,
    test=st.lists(st.integers(min_value=0, max_value=3).map(str), max_size=2),
    kind=st.sampled_from(["labels", "options", "text"]),
    fraction=st.floats(min_value=0.01, max_value=0.99),
    most=st.integers(min_value=3, max_value=60),
    shots=st.integers(min_value=0, max_value=3),
    seed=st.integers(min_value=0, max_value=9),
)
def test_parts_are_disjoint_by_input_and_of_the_promised_size(
    rows: list[tuple[str, str]],
    test: list[str],
    kind: Kind,
    fraction: float,
    most: int,
    shots: int,
    seed: int,
) -> None:
    task = _task(rows, kind, tuple(test))
    config = SplitConfig(train_fraction=fraction, train_max=most, shots=shots)
    usable = [example for example in task.examples if example.input not in set(test)]
    wanted = min(most, max(3, math.floor(fraction * len(usable) + 1e-9)))
    try:
        split = split_task(task, config, seed)
    except DataError:
        assert len(_inputs(tuple(usable))) < 3 + shots
        return
    assert not _inputs(split.train) & _inputs(split.test)
    assert not _inputs(split.shots) & _inputs(split.test)
    assert not _inputs(split.shots) & _inputs(split.train)
    everything = (*split.train, *split.shots, *split.test)
    assert len(set(everything)) == len(everything)
    assert set(everything) <= {*usable, *task.test_examples}
    assert len(split.shots) == shots
    assert 3 <= len(split.train) <= wanted
    if test:
        assert set(split.test) == set(task.test_examples)


@given(
    counts=st.lists(st.integers(min_value=1, max_value=60), min_size=2, max_size=6),
    seed=st.integers(min_value=0, max_value=9),
)
def test_a_closed_set_is_drawn_in_proportion(counts: list[int], seed: int) -> None:
    rows = [(f"{target} {n}", str(target)) for target, count in enumerate(counts) for n in range(count)]
    if len(rows) < 15:
        rows += [(f"more {n}", "0") for n in range(15)]
    task = _task(rows)
    split = split_task(task, SplitConfig(), seed)
    assert len(split.train) == min(50, len(rows) // 5)
    assert len(split.test) == len(rows) - len(split.train) - len(split.validation)
    drawn = Counter(example.target for example in split.train)
    for target, count in Counter(target for _, target in rows).items():
        assert abs(drawn[target] - len(split.train) * count / len(rows)) < 1


@given(rows=_ROWS, seed=st.integers(min_value=0, max_value=9), data=st.data())
def test_the_split_does_not_depend_on_the_order_of_the_rows(
    rows: list[tuple[str, str]], seed: int, data: st.DataObject
) -> None:
    task = _task([(f"{text} {n}", target) for n, (text, target) in enumerate(rows)])
    mixed = Task(
        name=task.name,
        kind=task.kind,
        description="",
        instruction="",
        examples=tuple(data.draw(st.permutations(task.examples))),
    )
    assert split_task(task, SplitConfig(), seed) == split_task(mixed, SplitConfig(), seed)


def test_a_known_split_stays_what_it_is() -> None:
    """Pins the draw itself: a change here would silently change every user's training set."""
    split = split_task(_task([(str(n), "a") for n in range(20)], "text"), SplitConfig(shots=1), seed=7)
    assert [example.input for example in (*split.shots, *split.train)] == ["9", "6", "17", "3", "7"]


def test_seeds_differ() -> None:
    task = _task([(str(n), "ab"[n % 2]) for n in range(100)])
    assert split_task(task, SplitConfig(), 0) != split_task(task, SplitConfig(), 1)


def test_equal_inputs_that_fit_stay_whole_and_nothing_is_lost() -> None:
    task = _task([(str(n // 2), "a") for n in range(100)], "text")
    split = split_task(task, SplitConfig(), seed=0)
    assert len(split.train) == 20
    assert len(split.test) == 80
    assert set(Counter(example.input for example in split.train).values()) == {2}


def test_rows_that_the_test_part_holds_too_are_not_trained_on() -> None:
    task = _task([(str(n), "a") for n in range(20)], "text", test=("3", "5", "new"))
    split = split_task(task, SplitConfig(train_fraction=0.99), seed=0)
    assert _inputs(split.train).isdisjoint({"3", "5"})
    assert len(split.train) == 17
    assert _inputs(split.test) == {"3", "5", "new"}


def test_with_a_test_part_of_its_own_all_examples_are_for_training() -> None:
    task = _task([(str(n), "a") for n in range(20)], "text", test=("new", "newer"))
    assert len(split_task(task, SplitConfig(), seed=0).train) == 20
    assert len(split_task(task, SplitConfig(train_fraction=1), seed=0).train) == 20
    assert len(split_task(task, SplitConfig(train_fraction=0.5), seed=0).train) == 10
    split = split_task(task, SplitConfig(shots=2, validation=5), seed=0)
    assert (len(split.shots), len(split.train), len(split.validation)) == (2, 13, 5)
    assert len(split_task(task, SplitConfig(train_max=6), seed=0).train) == 6


@pytest.mark.parametrize(
    ("rows", "test", "train", "validation", "held_out"),
    [
        (500, 0, 50, 50, 400),
        (300, 0, 50, 50, 200),
        (299, 0, 50, 0, 249),
        (100, 0, 20, 0, 80),
        (100, 7, 50, 50, 7),
        (99, 7, 50, 0, 7),
    ],
)
def test_a_validation_part_is_drawn_where_rows_suffice(
    rows: int, test: int, train: int, validation: int, held_out: int
) -> None:
    task = _task([(str(n), "ab"[n % 2]) for n in range(rows)], test=tuple(f"t{n}" for n in range(test)))
    split = split_task(task, SplitConfig(), seed=0)
    assert (len(split.train), len(split.validation), len(split.test)) == (train, validation, held_out)
    without = split_task(task, SplitConfig(validation=0), seed=0)
    assert (without.train, without.validation) == (split.train, ())
    assert set(split.test) <= set(without.test)


def test_all_examples_may_be_for_training() -> None:
    task = _task([(str(n), "a") for n in range(20)], "text")
    assert split_task(task, SplitConfig(train_fraction=1), seed=0).test == ()
    assert len(split_task(task, SplitConfig(train_fraction=1, train_max=6), seed=0).test) == 14


def test_many_labels_are_drawn_in_proportion_too() -> None:
    task = _task([(str(n), f"label {n % 25}") for n in range(250)])
    train = split_task(task, SplitConfig(), seed=0).train
    assert set(Counter(example.target for example in train).values()) == {2}


def test_a_small_task_still_trains_on_three() -> None:
    split = split_task(_task([(str(n), "a") for n in range(5)]), SplitConfig(), seed=0)
    assert (len(split.train), len(split.test)) == (3, 2)


def test_too_few_rows_are_an_error_that_says_how_many() -> None:
    with pytest.raises(DataError, match=r"^task 'made': 2 of 2 examples are left for training.*add rows"):
        split_task(_task([("x", "a"), ("y", "b")]), SplitConfig(), seed=0)
    noted = replace(
        _task([("x", "a"), ("y", "b")]), notes=("38 examples left out, for which no answer is wrong",)
    )
    with pytest.raises(DataError, match=r"at least 3 are needed \(38 examples left out, for which"):
        split_task(noted, SplitConfig(), seed=0)
    tested = _task([("x", "a"), ("y", "b"), ("z", "b")], test=("x", "y"))
    told = (
        r"1 of 1 .*\(2 of 3 are also in the test file, and left out\); take those rows out of the test file"
    )
    with pytest.raises(DataError, match=told):
        split_task(tested, SplitConfig(), seed=0)
    with pytest.raises(DataError, match=r"split\.train_max allows 2 .*raise split\.train_max"):
        split_task(_task([(str(n), "a") for n in range(9)]), SplitConfig(train_max=2), seed=0)


@pytest.mark.slow
def test_every_real_task_splits_by_the_papers_rule(data_dir: Path) -> None:
    for listing in list_tasks(str(data_dir)):
        task = load_task(TaskConfig(name=listing.task), str(data_dir), seed=0)
        split = split_task(task, SplitConfig(shots=1), seed=0)
        assert len(split.train) == min(50, listing.rows // 5), listing
        assert len(split.shots) == 1
        assert not _inputs(split.train) & _inputs(split.test), listing
        if not task.test_examples:
            held_out = listing.rows - len(split.train) - len(split.validation) - 1
            assert len(split.test) == held_out, listing
