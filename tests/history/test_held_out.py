"""Held-out results: they are about the instruction that is the best now, and no other."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pmpo_ray.display.run_json import task_json
from pmpo_ray.display.run_pages import show_overview, show_task
from pmpo_ray.evaluation.summary import summarise
from pmpo_ray.history.held_out import evaluated_tasks, free_names, held_out_results
from pmpo_ray.history.run_history import load_history
from pmpo_ray.report.page import render
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


def test_the_strongest_free_instruction_may_be_a_further_start(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    history = load_history(str(tmp_path / "run"))
    [strong] = [one for one in history.evaluation if one.condition.name == "best"]
    another = replace(strong, condition=replace(strong.condition, name="start_2", instruction="Sort it."))
    history = replace(history, evaluation=(*history.evaluation, another))
    evaluated = evaluated_tasks(history)["tickets"]
    assert evaluated.free is not None
    assert (evaluated.free.other, evaluated.free.difference.value) == ("start_2", 0.0)
    assert evaluated.start is not None
    # The verdict is about the first start.
    assert held_out_results(history)["tickets"].verdict == "better"
    assert free_names(["start", "start_2", "start_x", "best", "description"]) == {
        *("start", "start_2", "description"),
    }


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


def test_p_values_are_those_of_the_evaluation_with_several_models(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    history = load_history(str(tmp_path / "run"))
    every = tuple(
        replace(one, condition=replace(one.condition, model=model, shots=shots))
        for model in ("simulated", "another")
        for shots in (0, 3)
        for one in history.evaluation
    )
    history = replace(history, evaluation=every)
    expected = summarise(every, free_names(one.condition.name for one in every))
    held = held_out_results(history)["tickets"]
    assert (held.p_value, held.tests) == (expected.gains[0].p_adjusted, 4)
    evaluated = evaluated_tasks(history)["tickets"]
    assert evaluated.free is not None
    assert (evaluated.free.p_value, evaluated.free.tests) == (expected.gains[4].p_adjusted, 4)
    assert evaluated.free.difference == expected.gains[4].accuracy.difference
    assert held.after == next(row.accuracy for row in expected.rows if row.name == "best")


def spam(folder: Path) -> dict[str, str]:
    """A task with uneven labels: 54 ham, 6 spam."""
    path = folder / "spam.csv"
    rows = "".join(f"message {n},{'spam' if n % 10 == 0 else 'ham'}\n" for n in range(60))
    path.write_text("input,target\n" + rows)
    return {"name": "spam", "path": str(path)}


def test_uneven_labels_have_accuracies_of_their_own_everywhere(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", tasks=[spam(tmp_path), "tickets"]).location
    history = load_history(folder)
    held = held_out_results(history)
    assert held["tickets"].labels == ()
    found = held["spam"]
    assert [label for label, _, _ in found.labels] == ["ham", "spam"]
    assert found.labels_after is not None
    outcomes = next(one for one in history.evaluation if one.condition.name == "best")
    groups = [
        [
            outcome.right
            for outcome, label in zip(outcomes.outcomes, outcomes.labels, strict=True)
            if label == own
        ]
        for own in ("ham", "spam")
    ]
    assert found.labels_after.balanced.value == pytest.approx(sum(sum(g) / len(g) for g in groups) / 2)

    stream = io.StringIO()
    console = Console(file=stream, width=120)
    show_overview(history, console)
    assert "balanced: mean of the labels' accuracies" in stream.getvalue()
    show_task(history, history.task("spam"), console)
    assert "spam (" in stream.getvalue()
    assert "accuracy % by label" in stream.getvalue()
    document = json.loads(json.dumps(task_json(history, history.task("spam")), allow_nan=False))
    assert document["labels_after"]["balanced"]["value"] == found.labels_after.balanced.value
    assert document["evaluation"]["rows"][0]["by_label"]["labels"][1]["label"] == "spam"
    page = render(history)
    assert page.count("<summary>Accuracy by label</summary>") == 1
    assert "Shown because the labels are uneven" in page

    even = replace(history, evaluation=tuple(replace(one, labels=()) for one in history.evaluation))
    assert held_out_results(even)["spam"].labels == ()


def test_nothing_is_told_of_what_was_not_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluated=False)
    (tmp_path / "run" / "tasks" / "tickets" / "result.json").unlink()
    assert held_out_results(load_history(str(tmp_path / "run"))) == {}
