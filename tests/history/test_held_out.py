"""Held-out results as reports and tables tell them: of the instruction that is the best now, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pmpo_ray.history.held_out import held_out_results
from pmpo_ray.history.run_history import load_history
from tests.run_folders import write_run


def test_an_evaluation_counts_more_than_what_the_run_measured_at_its_end(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    history = load_history(str(tmp_path / "run"))
    held = held_out_results(history)["tickets"]
    assert held.after is not None
    assert held.after.n == len(history.evaluation[0].outcomes)
    assert held.verdict == "better"
    assert held.free is not None
    assert held.free.other == "start"
    own = held_out_results(replace(history, evaluation=()))["tickets"]
    assert own.after is not None
    assert (own.after.n, own.verdict, own.rows) == (200, "better", ())


def test_an_evaluation_of_an_earlier_best_gives_no_verdict(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    records = store.read_rounds("tickets")
    store.write_best("tickets", records, records[0].candidates[0].candidate.id)
    (tmp_path / "run" / "tasks" / "tickets" / "result.json").unlink()
    held = held_out_results(load_history(str(tmp_path / "run")))["tickets"]
    assert (held.verdict, held.after) == ("not evaluated", None)
    assert {row.name for row in held.rows} == {"start", "best", "description"}


def test_nothing_is_told_of_what_was_not_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluated=False)
    (tmp_path / "run" / "tasks" / "tickets" / "result.json").unlink()
    assert held_out_results(load_history(str(tmp_path / "run"))) == {}
