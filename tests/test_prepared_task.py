"""Prepared tasks: what is said about their parts before a model is loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pmpo_ray.errors import ConfigError
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from tests.run_folders import simulated_config


def prepared(folder: Path, rows: int, **settings: object) -> PreparedTask:
    """A task whose first half of rows is good and whose second half is bad."""
    lines = [f"row {number},{'good' if number < rows / 2 else 'bad'}" for number in range(rows)]
    (folder / "rows.csv").write_text("\n".join(["input,target", *lines]))
    task = {"name": "own", "path": str(folder / "rows.csv")}
    [one] = prepare_tasks(simulated_config(tasks=[task], **settings))
    return one


def test_a_bounded_evaluation_is_said_and_draws_at_random(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        task = prepared(tmp_path, 3000)
    assert "task own: evaluates 1,000 of 2,950 held-out rows (evaluation.limit)" in caplog.messages
    good = sum(example.target == "good" for example in task.split.test[:1000])
    assert 400 < good < 600
    other = prepared(tmp_path, 3000, seed=1)
    assert {e.id for e in task.split.test[:1000]} != {e.id for e in other.split.test[:1000]}


def test_a_small_training_part_is_a_warning_that_names_the_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(tmp_path, 24)
    [message] = caplog.messages
    assert message.startswith("task own: 4 of 24 rows to train on")
    assert "raise split.train_fraction (now 0.2)" in message
    caplog.clear()
    prepared(tmp_path, 24, split={"train_fraction": 0.5})
    prepared(tmp_path, 200, split={"train_max": 5})
    assert not caplog.messages


def test_a_round_of_too_many_rewrites_is_refused(tmp_path: Path) -> None:
    search = {"population": 100, "hard_examples": 1000, "variants": 100}
    with pytest.raises(ConfigError, match=r"400,000 rewrites: search\.population=100 x 40 hard examples"):
        prepared(tmp_path, 200, search=search)
    assert prepared(tmp_path, 200, search=search | {"variants": 25}).search.variants == 25
