"""The tables of the search benchmark, from a real run of a grid over the simulated engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search import (
    identity,
    mean_table,
    proposals,
    search_row,
    searches,
    table,
    tokens_to,
    winners,
    write,
)
from pmpo_ray.history.run_history import RunHistory, load_history
from tests.run_folders import write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> RunHistory:
    grid = searches([0, 2], rounds=2)
    folder = tmp_path_factory.mktemp("search") / "run"
    write_run(folder, grid={name: one | {"masking": "rules"} for name, one in grid.items()})
    return load_history(str(folder))


@pytest.fixture(scope="module")
def rows(history: RunHistory) -> list[dict[str, Any]]:
    paper = {"tickets": history.task("tickets.paper-0")}
    held_out = {outcome.example for one in history.evaluation for outcome in one.outcomes}
    drawn = {("tickets", 2): dict.fromkeys(held_out, 0.25)}
    return [
        search_row("model", seed, history, task, paper, drawn) for task in history.tasks for seed in (0, 1)
    ]


def test_the_grid_has_each_number_and_the_paper() -> None:
    assert searches([0, 4], None) == {
        "best-0": {"preset": "best", "demonstrations": 0},
        "best-4": {"preset": "best", "demonstrations": 4},
        "paper-0": {"preset": "paper"},
    }
    assert {one["rounds"] for one in searches([0], 3).values()} == {3}


def test_a_row_has_what_a_search_found_and_cost(history: RunHistory, rows: list[dict[str, Any]]) -> None:
    found = {(row["preset"], row["demonstrations"]): row for row in rows}
    assert set(found) == {("best", 0), ("best", 2), ("paper", 0)}
    for (preset, number), row in found.items():
        task = history.task(f"tickets.{preset}-{number}")
        assert row["task"] == "tickets"
        assert row["instruction"] == task.best.candidate.text
        assert len(row["shots"]) == len(task.best.candidate.shots) <= number
        assert sum(row["tokens"].values()) == sum(record.tokens for record in task.records)
        # The helper's outcomes: 3, 5 and 2 of 8 are right.
        assert [row["accuracy_before"], row["accuracy_after"]] == pytest.approx([0.375, 0.625], abs=0.01)
        assert row["strongest_free"] == "start"
        assert row["p_over_free"] < 0.001
        assert row["accuracy_random"] == (0.25 if number == 2 else None)
    assert found["paper", 0]["tokens_to_paper_loss"] <= sum(found["paper", 0]["tokens"].values())


def test_tokens_are_counted_up_to_the_round_that_reaches_a_loss(history: RunHistory) -> None:
    task = history.task("tickets.best-0")
    assert tokens_to(task, task.start.loss) == task.records[0].tokens
    assert tokens_to(task, task.best.loss - 1e-9) is None
    reached = tokens_to(task, task.best.loss)
    assert reached is not None
    assert task.records[0].tokens < reached <= sum(record.tokens for record in task.records)


def test_every_search_is_in_the_tables_with_its_text(rows: list[dict[str, Any]]) -> None:
    assert len(table(rows).splitlines()) == 2 + len(rows)
    means = mean_table(rows)
    assert means.count("strongest free") == 3
    assert means.count("random demonstrations") == 1
    assert "as a share of its own: median" in means
    shown = winners(rows)
    assert all(" ".join(row["instruction"].split()) in shown for row in rows)
    shares = proposals(rows)
    assert {"| rewrite |", "| mask_drop |", "| demonstrate |"} <= {
        f"| {line.split(' | ')[0].strip('| ')} |" for line in shares.splitlines() if line.startswith("|")
    }


def test_the_file_keeps_other_searches_and_replaces_its_own(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    file = tmp_path / "search.json"
    write(file, rows[:2])
    write(file, [{**rows[1], "seconds": -1.0}, *rows[2:]])
    kept = json.loads(file.read_text())
    assert [identity(row) for row in kept] == sorted(map(identity, rows))
    assert sum(row["seconds"] == -1.0 for row in kept) == 1
    assert all("values" not in row for row in kept)
