"""The tables of the search benchmark, from a real run of a grid over the simulated engine."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.repeated import both_intervals, values_of_run
from benchmarks.search import SEARCHES, find_paper_losses, identity, search_row, write
from benchmarks.search_tables import Row, mean_table, means, proposals, reached, table, verdict, winners
from pmpo_ray.evaluation.statistics import holm
from pmpo_ray.history.run_history import RunHistory, load_history
from tests.run_folders import write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    grid = {
        name: {**SEARCHES[name], "rounds": 2, "masking": "rules"} for name in ("best-0", "best-2", "paper-0")
    }
    folder = tmp_path_factory.mktemp("search") / "run"
    write_run(folder, grid=grid)
    return folder


@pytest.fixture(scope="module")
def history(folder: Path) -> RunHistory:
    return load_history(str(folder))


@pytest.fixture(scope="module")
def rows(folder: Path, history: RunHistory) -> list[Row]:
    held_out = {outcome.example for one in history.evaluation for outcome in one.outcomes}
    drawn = {("tickets", 2): dict.fromkeys(held_out, 0.25)}
    found = values_of_run(str(folder))
    values = {
        task.task: {one: own for (of, one), own in found.items() if of == task.task} for task in history.tasks
    }
    found_rows = [
        search_row("model", seed, task, values[task.task], drawn) for task in history.tasks for seed in (0, 1)
    ]
    find_paper_losses(found_rows)
    return found_rows


def test_a_row_has_what_a_search_found_and_cost(history: RunHistory, rows: list[Row]) -> None:
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
        assert row["rounds"][-1] == (sum(row["tokens"].values()), task.records[-1].scored_survivors[0].loss)


def test_tokens_are_counted_up_to_the_round_that_reaches_the_papers_loss() -> None:
    def one(preset: str, seed: int, rounds: list[tuple[int, float]]) -> Row:
        same = {"model": "m", "task": "sst2", "demonstrations": 0, "tokens_to_paper_loss": None}
        return {**same, "preset": preset, "seed": seed, "rounds": rounds}

    rows = [
        one("best", 0, [(10, 2.0), (30, 1.5), (50, 1.0)]),
        one("best", 1, [(10, 2.0), (30, 1.8)]),
        one("best", 2, [(10, 0.5)]),
        one("paper", 0, [(10, 2.0), (100, 1.6), (200, 1.5)]),
        one("paper", 1, [(10, 2.0), (100, 1.7)]),
    ]
    find_paper_losses(rows)
    assert [row["tokens_to_paper_loss"] for row in rows] == [30, None, None, 200, 100]


def test_every_search_is_in_the_tables_with_its_text(rows: list[Row]) -> None:
    assert len(table(rows).splitlines()) == 2 + len(rows)
    averages = means(rows)
    shown = mean_table(averages)
    assert shown.count("the strongest free instruction") == 3
    assert shown.count("random demonstrations") == 1
    assert {line.count("|") for line in shown.splitlines() if line.startswith("|")} == {15}
    assert "best, 2 demonstrations, over random demonstrations: 1 of 1 gains" in verdict(averages)
    assert "best, 0 demonstrations: 2 of 2 searches reached the paper's final loss, with" in reached(rows)
    texts = winners(rows)
    assert all(" ".join(row["instruction"].split()) in texts for row in rows)
    shares = proposals(rows)
    assert {"| rewrite |", "| mask_drop |", "| demonstrate |"} <= {
        f"| {line.split(' | ')[0].strip('| ')} |" for line in shares.splitlines() if line.startswith("|")
    }


def test_the_file_keeps_other_searches_and_replaces_its_own(tmp_path: Path, rows: list[Row]) -> None:
    file = tmp_path / "search.json"
    write(file, rows[:2])
    write(file, [{**rows[1], "seconds": -1.0}, *rows[2:], *means(rows)])
    kept = json.loads(file.read_text())
    assert [identity(row) for row in kept if row["seed"] != "mean"] == sorted(map(identity, rows))
    assert [row["seed"] for row in kept] == [0, 1, "mean"] * 3
    assert sum(row.get("seconds") == -1.0 for row in kept) == 1
    assert all("values" not in row for row in kept)


def drawn_rows(*seeds: int) -> list[Row]:
    """Searches of two tasks and models whose best instruction is right on more of 100 examples the higher the
    seed is."""
    found = []
    for model, task, seed in itertools.product(("m", "n"), ("sst2", "trec"), seeds):
        draw = random.Random(f"{model}{task}{seed}")
        values: dict[str, Any] = {
            name: {str(n): float(draw.random() < chance) for n in range(100)}
            for name, chance in (("start", 0.3), ("best", 0.4 + 0.1 * seed), ("free", 0.5))
        }
        shares = {name: sum(own.values()) / 100 for name, own in values.items()}
        found.append(
            {
                "model": model,
                "task": task,
                "preset": "best",
                "demonstrations": 4,
                "seed": seed,
                "accuracy_before": shares["start"],
                "accuracy_after": shares["best"],
                "accuracy_free": shares["free"],
                "accuracy_random": None,
                "values": {**values, "random": None},
            }
        )
    return found


def test_a_cell_has_both_intervals_over_start_and_free() -> None:
    cells = means(drawn_rows(0, 1, 2, 3, 4))
    assert [(one["model"], one["task"]) for one in cells] == [
        ("m", "sst2"),
        ("m", "trec"),
        ("n", "sst2"),
        ("n", "trec"),
    ]
    for over in ("over_start", "over_free"):
        for kind in ("examples", "searches"):
            parts = [one[over][kind] for one in cells]
            assert [part["p_adjusted"] for part in parts] == list(holm([part["p_value"] for part in parts]))
            assert all(part["low"] <= part["gain"] <= part["high"] for part in parts)
    over = cells[0]["over_start"]
    assert over["searches"]["gain"] == pytest.approx(over["examples"]["gain"])
    examples, searches = (over[kind]["high"] - over[kind]["low"] for kind in ("examples", "searches"))
    assert searches > examples
    assert all(one["over_random"] is None for one in cells)


def test_one_seed_says_nothing_about_other_searches() -> None:
    [first, *_] = cells = means(drawn_rows(2))
    assert first["over_start"]["searches"] is None
    assert "one search" in mean_table(cells)
    assert "over examples" in verdict(cells)


def test_an_example_of_several_searches_counts_once() -> None:
    before, after = {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0}
    other = {"b": 0.0, "c": 1.0}, {"b": 1.0, "c": 1.0}
    found = both_intervals([(before, after), other])
    assert found["examples"]["gain"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found["searches"]["gain"] == pytest.approx(0.5)
