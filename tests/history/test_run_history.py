"""What a run folder tells its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.history.run_history import load_history
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example
from tests.run_folders import write_run


def test_a_history_tells_every_candidate_and_the_way_to_the_best(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    history = load_history(str(tmp_path / "run"))
    task = history.task()
    records = store.read_rounds("tickets")
    assert task.losses == tuple(record.scored_survivors[0].loss for record in records)
    assert set(task.candidates) == {s.candidate.id for record in records for s in record.candidates}
    assert task.best.candidate.id == records[-1].survivors[0]
    assert task.best.loss == min(scored.loss for scored in task.candidates.values())
    lineage = task.lineage(task.best_id)
    assert lineage[0] == task.start
    assert [step.candidate.parent for step in lineage[1:]] == [step.candidate.id for step in lineage[:-1]]
    assert len(task.best.losses) == len(task.start.losses) == len(task.examples) > 0
    assert task.segments(task.start.candidate.id)
    assert task.segments("no such candidate") == ()
    asked = {request.operator for request in task.requests.values()}
    assert asked == {"rewrite"}
    for name, request in task.requests.items():
        assert request.id == name
        assert task.candidates[request.parent].candidate.text in request.prompt
    assert history.replicas[0][0].ready == 0
    assert len(history.evaluation) == 3


def test_a_picked_instruction_is_the_best_one(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    records = store.read_rounds("tickets")
    picked = records[1].survivors[0]
    store.write_best("tickets", records, picked)
    assert load_history(str(tmp_path / "run")).task().best_id == picked


def test_reading_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_history(str(tmp_path))
    write_run(tmp_path / "run", tasks=["tickets", {"name": "second", "path": str(_csv(tmp_path))}])
    history = load_history(str(tmp_path / "run"))
    with pytest.raises(RunFolderError, match="holds 2 tasks; name one of tickets, second"):
        history.task()
    with pytest.raises(RunFolderError, match="holds no task third"):
        history.task("third")
    assert history.task("second").task == "second"


def test_a_run_without_rounds_has_no_history(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    empty = RunStore.create(str(tmp_path / "empty"), store.config_yaml())
    with pytest.raises(RunFolderError, match="no task has a finished round yet"):
        load_history(empty.location)


def test_training_examples_are_kept_as_they_are(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    odd = (Example("1", "a\ud800\x1a", "", ("\x1a001A", ""), 0.1), Example("2", "", "x"))
    store.write_training("odd", odd)
    assert store.read_training("odd") == odd
    assert store.read_training("never") is None


def _csv(folder: Path) -> Path:
    path = folder / "own.csv"
    rows = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    path.write_text("input,target\n" + rows)
    return path
