"""Held-out results: they are about the instruction that is the best now, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pmpo_ray.history.held_out import evaluated_tasks, held_out_results
from pmpo_ray.history.run_history import load_history
from tests.run_folders import write_run


def test_an_evaluation_counts_more_than_what_the_run_measured_at_its_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    history = load_history(str(tmp_path / "run"))
    held = held_out_results(history)["tickets"]
    assert held.after is not None
    assert held.after.n == len(history.evaluation[0].outcomes)
    assert held.verdict == "better"
    evaluated = evaluated_tasks(history)["tickets"]
    assert evaluated.start is not None
    assert evaluated.start.p_value == held.p_value
    assert evaluated.free is not None
    assert evaluated.free.other == "start"
    without = replace(history, evaluation=())
    own = held_out_results(without)["tickets"]
    assert own.after is not None
    assert (own.after.n, own.verdict, evaluated_tasks(without)) == (200, "better", {})


@pytest.mark.slow
def test_an_evaluation_of_an_earlier_best_gives_no_verdict(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    records = store.read_rounds("tickets")
    store.write_best("tickets", records, records[0].candidates[0].candidate.id)
    (tmp_path / "run" / "tasks" / "tickets" / "result.json").unlink()
    history = load_history(str(tmp_path / "run"))
    held = held_out_results(history)["tickets"]
    assert (held.verdict, held.after) == ("not evaluated", None)
    evaluated = evaluated_tasks(history)["tickets"]
    assert {row.name for row in evaluated.rows} == {"start", "best", "description"}
    assert (evaluated.start, evaluated.free) == (None, None)


def test_one_task_alone_has_the_figures_that_it_has_among_all(tmp_path: Path) -> None:
    data = tmp_path / "own.csv"
    data.write_text("input,target\n" + "".join(f"{n},{'yes' if n % 2 else 'no'}\n" for n in range(40)))
    folder = write_run(tmp_path / "run", tasks=["tickets", {"name": "second", "path": str(data)}]).location
    every = load_history(folder)
    for history in (every, replace(every, evaluation=())):
        alone = replace(load_history(folder, "tickets"), evaluation=history.evaluation)
        assert [task.task for task in alone.tasks] == ["tickets"]
        assert alone.task("tickets") == every.task("tickets")
        assert alone.results == every.results
        held = held_out_results(alone, "tickets")
        assert held == {"tickets": held_out_results(history)["tickets"]}


def test_nothing_is_told_of_what_was_not_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluated=False)
    (tmp_path / "run" / "tasks" / "tickets" / "result.json").unlink()
    assert held_out_results(load_history(str(tmp_path / "run"))) == {}
