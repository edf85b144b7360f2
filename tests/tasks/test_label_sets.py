"""Closed sets of targets: what is one, odd rows, and spellings."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.label_sets import is_closed_set
from pmpo_ray.types import Task


def _targets(counts: Mapping[str, int]) -> list[str]:
    return [target for target, count in counts.items() for _ in range(count)]


def _load(folder: Path, targets: Sequence[str], **settings: object) -> Task:
    with (folder / "own.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["input", "target"])
        writer.writerows([f"message {n}", target] for n, target in enumerate(targets))
    config = {"name": "own", "path": str(folder / "own.csv"), **settings}
    return load_task(TaskConfig.model_validate(config), None, seed=0)


@pytest.mark.parametrize(
    "counts",
    [
        {"billing": 149, "shipping": 150, "biling": 1},
        {"ok": 198, "broken": 2},
        {f"label {n}": 5 for n in range(41)},
        {f"label {n}": 3 for n in range(150)},
        {"a": 3, "b": 3},
        {"0": 150, "1": 149, "O": 1},
        {"1": 50, "2": 50, "3": 50, "22": 1},
        {"a rather long label, as people write them in a form of theirs": 20, "another": 20},
        {"yes": 5, "Yes": 4, "no": 5, "No.": 1},
        {"same": 299, "smae": 1},
    ],
)
def test_targets_that_repeat_are_labels(counts: Mapping[str, int]) -> None:
    assert is_closed_set(_targets(counts))


@pytest.mark.parametrize(
    "counts",
    [
        {f"answer {n}": 1 for n in range(100)},
        {"a": 2, "b": 2},
        {**{f"answer {n}": 1 for n in range(30)}, "a": 35, "b": 35},
        {**{f"answer {n}": 1 for n in range(9)}, "unknown": 200},
        {f"label {n}": 3 for n in range(250)},
        {**{str(n): 20 - n for n in range(19)}, "23": 1},  # results of sums
        {"18 dollars": 4, "$18": 4, "1,234.50": 4, "１２": 4, "−5": 4, "3/4": 4},
        {"} ] )": 20, "] )": 30, ") >": 10},
        {"x" * 200: 20, "y": 20},
        {"two\nlines": 20, "y": 20},
    ],
)
def test_other_targets_are_free_text(counts: Mapping[str, int]) -> None:
    assert not is_closed_set(_targets(counts))


def test_an_odd_row_is_left_out_and_named(tmp_path: Path) -> None:
    task = _load(tmp_path, [*_targets({"billing": 30, "shipping": 30}), "biling"])
    assert (task.kind, task.labels) == ("labels", ("billing", "shipping"))
    assert len(task.examples) == 60
    [note] = task.notes
    assert note.startswith("1 of 61 rows left out, whose target occurs once beside labels that repeat: ")
    assert "own.csv line 62 'biling'; correct the target" in note


def test_of_equally_common_spellings_the_composed_and_visible_one_is_taken(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "réponse")
    task = _load(tmp_path, _targets({nfd: 5, "réponse": 5, "\u200bham": 5, "ham": 5}))
    assert task.labels == ("ham", "réponse")


def test_a_rare_label_is_kept(tmp_path: Path) -> None:
    task = _load(tmp_path, _targets({"ok": 198, "broken": 2}))
    assert task.labels == ("broken", "ok")
    assert len(task.examples) == 200
    assert not task.notes


def test_spellings_of_one_label_become_the_commonest(tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", "réponse")
    task = _load(tmp_path, _targets({"réponse": 9, nfd: 3, "ham": 8, "Ham.": 2, "ham\u200b": 1}))
    assert task.labels == ("ham", "réponse")
    assert Counter(example.target for example in task.examples) == {"réponse": 12, "ham": 11}
    assert {example.negatives for example in task.examples} == {("ham",), ("réponse",)}
    [note] = task.notes
    assert "'ham' also for 'Ham.' (2 rows), 'ham' (with U+200B) (1 rows)" in note
    assert "(with U+00E9) also for" in note
    assert "(with U+0065 U+0301) (3 rows)" in note


@pytest.mark.parametrize("labels", [None, ["b\u0456lling", "billing", "shipping"]])
def test_a_letter_of_another_alphabet_in_a_label_is_told(labels: list[str] | None, tmp_path: Path) -> None:
    targets = _targets({"billing": 9, "b\u0456lling": 5, "shipping": 9})
    task = _load(tmp_path, targets, **({} if labels is None else {"labels": labels}))
    assert len(task.labels) == 3
    [note] = task.notes
    assert note.startswith(
        "Cyrillic letters in a word of Latin ones: 'b\u0456lling' (U+0456); if that is a slip"
    )


def test_labels_of_one_alphabet_each_are_no_slip(tmp_path: Path) -> None:
    russian, mixed = "\u0434\u0430", "\u0434\u0430 or yes"
    assert not _load(tmp_path, _targets({"yes": 9, russian: 9, mixed: 9, "10 k\u03a9": 9})).notes


def test_labels_that_stand_for_a_missing_value_are_told(tmp_path: Path) -> None:
    targets = _targets({"NaN": 9, "n/a": 5, "None": 9, "shipping": 9})
    [note] = _load(tmp_path, targets).notes
    assert note.startswith("labels that programs write for a missing value: 'NaN', 'None', 'n/a'; remove")
    assert not _load(tmp_path, targets, labels=["NaN", "n/a", "None", "shipping"]).notes
    assert not _load(tmp_path, _targets({"none": 9, "shipping": 9})).notes


def test_labels_that_look_like_numbers_are_compared_as_texts(tmp_path: Path) -> None:
    task = _load(tmp_path, _targets({"1": 10, "01": 10, "001": 10}))
    assert task.labels == ("001", "01", "1")
    assert task.examples[0].negatives == ("001", "01")


@pytest.mark.parametrize("labels", [None, ["ok", "broken"]])
def test_one_class_is_an_error(labels: list[str] | None, tmp_path: Path) -> None:
    message = r"^task 'own': all 30 examples have the same target 'ok', .*columns\.target"
    with pytest.raises(DataError, match=message):
        _load(tmp_path, _targets({"ok": 30}), labels=labels)


def test_one_class_beside_slips_is_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing to tell apart \(1 of 31 rows left out.* 'okk'"):
        _load(tmp_path, [*_targets({"ok": 30}), "okk"])


def test_given_labels_are_spelled_as_given(tmp_path: Path) -> None:
    task = _load(tmp_path, ["yes", "No.", "YES", "no"], labels=["Yes", "No"])
    assert [example.target for example in task.examples] == ["Yes", "No", "Yes", "No"]
    assert task.notes == (
        "spellings of one label count as one: 'Yes' also for 'YES' (1 rows), 'yes' (1 rows); 'No' also for "
        "'No.' (1 rows), 'no' (1 rows)",
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["US", "us"], "'US' and 'us' count as one"),
        (["é", "e\u0301"], r"'é' \(with U\+00E9\) and 'e\u0301' \(with U\+0065 U\+0301\) count as one"),
        (["ham", "ham\u200b", "spam"], r"'ham' and 'ham' \(with U\+200B\) count as one"),
        (["one"], "two or more different, non-empty texts"),
    ],
)
def test_given_labels_that_are_one_are_an_error(labels: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^task 'own': labels must be .*{message}"):
        _load(tmp_path, ["a"] * 4, labels=labels)
