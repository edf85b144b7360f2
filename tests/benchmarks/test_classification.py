"""The tables of the classification benchmark: both intervals, one family of tests, every winning text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.classification import identity, mean_table, means, table, verdict, winners, write
from benchmarks.repeated import both_intervals
from pmpo_ray.evaluation.statistics import holm


def row(model: str, task: str, seed: int, share: float) -> dict[str, Any]:
    """The results of a run whose best instruction is right on this share of 100 shared examples."""
    draw = random.Random(f"{model}{task}{seed}")
    values = {
        name: {str(n): float(draw.random() < chance) for n in range(100)}
        for name, chance in (("start", 0.3), ("best", share), ("description", 0.5))
    }
    return {
        "model": model,
        "task": task,
        "seed": seed,
        "n_train": 40,
        "n_test": 100,
        "accuracy_before": sum(values["start"].values()) / 100,
        "accuracy_after": sum(values["best"].values()) / 100,
        "low": 0.0,
        "high": 0.5,
        "p_value": 0.03,
        "strongest_free": "description",
        "accuracy_free": sum(values["description"].values()) / 100,
        "balanced_before": None if task == "even" else 0.25,
        "balanced_after": None if task == "even" else 0.5,
        "instruction": f"Text | of {seed}\nin two lines.",
        "values": values,
    }


def rows(*seeds: int) -> list[dict[str, Any]]:
    return [
        row(model, task, seed, 0.4 + 0.1 * seed)
        for model in ("m", "n")
        for task in ("even", "uneven")
        for seed in seeds
    ]


def test_a_mean_has_both_intervals_over_start_and_free() -> None:
    found = means(rows(0, 1, 2, 3, 4))
    assert [(one["model"], one["task"]) for one in found] == [
        ("m", "even"),
        ("m", "uneven"),
        ("n", "even"),
        ("n", "uneven"),
    ]
    for over in ("start", "free"):
        for kind in ("examples", "searches"):
            parts = [one[f"over_{over}"][kind] for one in found]
            assert [part["p_adjusted"] for part in parts] == list(holm([part["p_value"] for part in parts]))
            assert all(part["low"] <= part["gain"] <= part["high"] for part in parts)
    over = found[0]["over_start"]
    assert over["searches"]["gain"] == pytest.approx(over["examples"]["gain"])
    assert (
        over["searches"]["high"] - over["searches"]["low"]
        > over["examples"]["high"] - over["examples"]["low"]
    )


def test_one_seed_says_nothing_about_other_searches() -> None:
    [first, *_] = found = means(rows(2))
    assert first["over_start"]["searches"] is None
    assert "one search" in mean_table(found)
    assert "over examples" in verdict(found)


def test_the_tables_show_every_run_and_every_text() -> None:
    shown = table(rows(0, 1))
    assert len(shown.splitlines()) == 2 + 8
    assert "25.0% to 50.0%" in shown
    assert "| even |" in shown
    texts = winners(rows(0, 1)).splitlines()[2:]
    assert len(texts) == 8
    assert all("Text \\| of" in text and "in two lines." in text for text in texts)
    columns = {
        line.replace("\\|", "").count("|")
        for line in mean_table(means(rows(0, 1))).splitlines()
        if line.startswith("|")
    }
    assert len(columns) == 1


def test_an_example_of_several_searches_counts_once() -> None:
    before, after = {"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 0.0}
    other = {"b": 0.0, "c": 1.0}, {"b": 1.0, "c": 1.0}
    found = both_intervals([(before, after), other])
    assert found["examples"]["gain"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found["searches"]["gain"] == pytest.approx(0.5)


def test_the_file_keeps_other_rows_and_no_values(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    first = rows(0, 1)
    write(file, [*first, *means(first)])
    write(file, rows(1, 2))
    kept = json.loads(file.read_text())
    assert [identity(one)[2].strip() for one in kept[:4]] == ["0", "1", "2", "mean"]
    assert kept[3]["seeds"] == [0, 1]
    assert not any("values" in one for one in kept)
