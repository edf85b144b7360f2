"""Prepared tasks: objective, negatives where they are needed, calibration, and what is said of the parts."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.display.task_overview import overview_line, remarks
from pmpo_ray.errors import ConfigError
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks
from pmpo_ray.runs.announcements import announce_operators, announce_use
from pmpo_ray.store.documents import Manifest, decode_manifest, encode_manifest
from pmpo_ray.types import EngineInfo
from tests.run_folders import simulated_config


def _prepared(name: str, data_dir: Path | None = None, **settings: object) -> PreparedTask:
    folder = None if data_dir is None else str(data_dir)
    [prepared] = prepare_tasks(simulated_config(tasks=[name], data_dir=folder, **settings))
    return prepared


@pytest.mark.parametrize(
    ("task", "objective"),
    [
        ("tickets", "preference"),
        ("bbh/navigate", "preference"),
        ("alpaca_eval", "preference"),
        ("bbh/word_sorting", "cross_entropy per token"),
        ("gsm8k", "cross_entropy per token"),
    ],
)
def test_auto_is_cross_entropy_per_token_unless_wrong_answers_are_given_or_closed(
    task: str, objective: str, data_dir: Path
) -> None:
    prepared = _prepared(task, data_dir)
    assert prepared.overview.objective == objective
    assert all(bool(example.negatives) == (objective == "preference") for example in prepared.split.train)


@pytest.mark.parametrize(
    ("search", "objective"),
    [
        ({"per_token": False}, "cross_entropy"),
        ({"objective": "preference"}, "preference"),
        ({"objective": "preference", "per_token": True}, "preference per token"),
    ],
)
def test_a_set_objective_and_a_set_per_token_are_kept(
    search: dict[str, object], objective: str, data_dir: Path
) -> None:
    prepared = _prepared("bbh/object_counting", data_dir, search=search)
    assert prepared.overview.objective == objective
    assert prepared.chooses_per_token == search.get("per_token", False)


def test_free_text_gets_negatives_only_where_answers_are_compared(data_dir: Path) -> None:
    def counts(prepared: PreparedTask) -> list[set[int]]:
        split = prepared.split
        return [
            {len(example.negatives) for example in part}
            for part in (split.train, split.validation, split.test)
        ]

    name, split = "bbh/object_counting", {"validation": 5}
    assert counts(_prepared(name, data_dir, split=split)) == [{0}, {0}, {0}]
    preference = {"objective": "preference"}
    assert counts(_prepared(name, data_dir, split=split, search=preference)) == [{4}, {4}, {0}]
    chosen = {"method": "likelihood", "limit": 10}
    prepared = _prepared(name, data_dir, split=split, evaluation=chosen)
    assert counts(prepared) == [{0}, {0}, {0, 4}]
    assert [len(example.negatives) for example in prepared.split.test[:11]] == [4] * 10 + [0]


@pytest.mark.parametrize("task", ["tickets", "bbh/navigate", "bbh/movie_recommendation"])
def test_labels_and_closed_options_are_calibrated(task: str, data_dir: Path) -> None:
    assert _prepared(task, data_dir, search={"calibrate": True}).search.calibrate


@pytest.mark.parametrize("section", ["search", "evaluation"])
@pytest.mark.parametrize("task", ["bbh/word_sorting", "alpaca_eval"])
def test_what_has_no_closed_set_is_not_calibrated_in_silence(task: str, section: str, data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{section}\.calibrate=true: task '{task}' .* no closed set"):
        _prepared(task, data_dir, **{section: {"calibrate": True}})


def test_generated_answers_are_not_calibrated_in_silence() -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.calibrate=true: task 'tickets' is evaluated by gen"):
        _prepared("tickets", evaluation={"calibrate": True, "method": "generation"})


@pytest.mark.parametrize(
    ("task", "method", "calibrate"),
    [
        ("tickets", "auto", "inputs"),
        ("bbh/navigate", "likelihood", "inputs"),
        ("tickets", "generation", False),
        ("bbh/word_sorting", "auto", False),
    ],
)
def test_calibration_follows_the_task_if_it_may_and_says_so(
    task: str, method: str, calibrate: object, data_dir: Path
) -> None:
    prepared = _prepared(task, data_dir, search={"calibrate": "auto"}, evaluation={"method": method})
    assert prepared.search.calibrate == prepared.search.calibrates == calibrate
    assert prepared.calibrates(EvaluationConfig()) == calibrate
    assert ("calibrated (inputs)" in overview_line(prepared.overview)) == (calibrate == "inputs")


def test_the_overview_counts_each_label_in_each_part() -> None:
    overview = _prepared("tickets", split={"shots": 6}).overview
    assert overview.parts == {"train": 50, "shots": 6, "validation": 50, "test": 374}
    assert sum(counts["test"] for counts in overview.answers.values()) == 374
    assert overview_line(overview).startswith(
        "kind labels: 50 train, 6 shots, 50 validation, 374 test; objective preference; "
        "6 labels (train/shots/validation/test): "
    )
    assert "billing " in overview_line(overview)
    assert remarks(overview) == ()


def test_labels_with_few_training_examples_are_a_warning() -> None:
    overview = _prepared("tickets", split={"train_max": 7}).overview
    [warning] = remarks(overview)
    assert warning.startswith("6 of 6 labels have fewer than 3 training examples: ")


def test_a_manifest_keeps_the_overview() -> None:
    overview = _prepared("tickets").overview
    manifest = Manifest({}, None, None, {}, 0, None, "2026-01-01T00:00:00+00:00", tasks={"tickets": overview})
    assert decode_manifest(encode_manifest(manifest)) == manifest
    assert asdict(overview)["kind"] == "labels"


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


def test_an_operator_with_nothing_to_work_on_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "sums.csv"
    rows = (f"{n} + {n * 7},{n} plus {n * 7} makes {n * 8}\n" for n in range(200))
    data.write_text("input,target\n" + "".join(rows), encoding="utf-8")

    def made(**search: object) -> PreparedTask:
        tasks = [{"name": "sums", "path": str(data)}]
        search = {"operators": ["rewrite", "contrast"], **search}
        return prepare_tasks(simulated_config(tasks=tasks, search=search))[0]

    assert not any(row.negatives for row in made().split.train)
    [message] = caplog.messages
    assert message.startswith("task sums: the operator contrast proposes nothing")
    caplog.clear()
    assert all(row.negatives for row in made(objective="preference").split.train)
    assert not caplog.messages


SMALL, LARGE, UNKNOWN = (
    EngineInfo("transformers", "m", "", parameters, 8192, "system", "float32", "cpu")
    for parameters in (135_000_000, 7_000_000_000, 0)
)


@pytest.mark.parametrize(
    ("task", "rewriter", "operators"),
    [
        ("tickets", SMALL, ("compose",)),
        ("tickets", LARGE, ("rewrite", "compose")),
        ("tickets", UNKNOWN, ("rewrite", "compose")),
        ("bbh/word_sorting", SMALL, ("rewrite", "compose")),
    ],
)
def test_a_small_rewriter_is_not_asked_about_labels(
    task: str,
    rewriter: EngineInfo,
    operators: tuple[str, ...],
    data_dir: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    prepared = _prepared(task, data_dir, search={"operators": "auto"})
    assert prepared.for_rewriter(rewriter).search.operators == operators
    announce_operators([prepared], rewriter)
    told = "instructions are put together, not written, since a rewriter of 0.14 billion" in caplog.text
    assert told == (operators == ("compose",))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"use": "choose", "search": {"preset": "paper"}},
            'search.calibrate=false, not "auto", as set or by',
        ),
        (
            {"use": "choose", "evaluation": {"method": "generation"}},
            'evaluation.method="generation", not "lik',
        ),
        ({"use": "generate"}, None),
        ({"evaluation": {"method": "generation"}}, None),
    ],
)
def test_settings_that_do_not_follow_from_the_use_are_told(
    settings: dict[str, Any], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    announce_use(config_from_mapping(settings, "test"))
    assert caplog.text == "" if told is None else told in caplog.text


def test_named_operators_are_kept_whatever_the_rewriter() -> None:
    prepared = _prepared("tickets", search={"operators": ["rewrite"]})
    assert prepared.for_rewriter(SMALL).search.operators == ("rewrite",)


@pytest.mark.parametrize(
    ("split", "left", "told"),
    [
        ({"train_fraction": 0.5, "validation": 12}, 0, "no row is left to evaluate on"),
        ({"train_fraction": 1}, 0, "no row is left to evaluate on"),
        ({"train_fraction": 0.96}, 1, "1 row is left to evaluate on, too few to tell a gain from chance"),
        ({"train_fraction": 0.5, "validation": 4}, 8, "8 rows are left to evaluate on, too few"),
    ],
)
def test_few_rows_to_evaluate_on_are_told(
    split: dict[str, float], left: int, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(prepared(tmp_path, 24, split=split).split.test) == left
    assert told in caplog.text
    caplog.clear()
    prepared(tmp_path, 24, split=split, evaluation={"enabled": False})
    assert "to evaluate on" not in caplog.text


def test_a_round_of_too_many_rewrites_is_refused(tmp_path: Path) -> None:
    search = {"population": 100, "hard_examples": 1000, "variants": 100}
    with pytest.raises(ConfigError, match=r"400,000 rewrites: search\.population=100 x 40 hard examples"):
        prepared(tmp_path, 200, search=search)
    assert prepared(tmp_path, 200, search=search | {"variants": 25}).search.variants == 25
