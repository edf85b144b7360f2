"""`pmpo evaluate` on runs and on configurations without a run, with the simulated engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pmpo_ray import evaluate, optimize
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.display.summary_json import summary_json
from pmpo_ray.errors import ConfigError, RunFolderError
from pmpo_ray.outcomes import Progress
from pmpo_ray.runs.score_memory import RememberingScorer, ScoreMemory
from pmpo_ray.store import RunStore
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.types import ScoreRequest
from tests.run_folders import REWRITING

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]
ROOT = Path(__file__).parents[2]
SIMULATED = {"engine": "simulated", "model": "simulated", "role": "both"}


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


def simulated(*, search: Mapping[str, object] | None = None, **settings: object) -> RunConfig:
    base = {
        "tasks": ["tickets"],
        "scorer": SIMULATED,
        "search": {**REWRITING, **({"rounds": 2} if search is None else search)},
        "evaluation": {"enabled": False, "limit": 40},
    }
    return RunConfig.model_validate({**base, **settings})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "run"
    optimize(simulated(), run_dir=folder, observer=quiet)
    return folder


def pmpo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "evaluate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def evaluated(folder: Path, **settings: object) -> dict[str, Any]:
    """The output of `--format json` for these keys of `evaluation`."""
    result = evaluate(folder, observer=quiet, **settings)
    return summary_json(result.summary, result.run_dir)


def test_kept_measurements_are_not_repeated(run: Path) -> None:
    found = evaluated(run)
    parts = {path: path.stat().st_mtime_ns for path in (run / "evaluation").iterdir()}
    assert len(parts) == 3
    again = evaluated(run, baselines=["description", "answer_only"])
    assert {path: path.stat().st_mtime_ns for path in parts} == parts
    assert len(list((run / "evaluation").iterdir())) == 4
    assert again["rows"][:3] == found["rows"]


def test_all_candidates_show_whether_training_loss_predicts_accuracy(run: Path) -> None:
    found = evaluated(run, candidates="all")
    scored = {
        candidate.candidate.text
        for record in RunStore.open(str(run)).read_rounds("tickets")
        for candidate in record.candidates
    }
    [prediction] = found["predictions"]
    assert prediction["candidates"] == len(scored)


def test_shots_repetitions_and_models_are_crossed(run: Path) -> None:
    found = evaluated(
        run, shots=[0, 2], limit=10, seeds=2, models=["simulated", "simulated:tokens_per_s=90000"]
    )
    places = [(row["model"], row["shots"]) for row in found["rows"] if row["name"] == "best"]
    assert places == [
        (model, shots) for model in ("simulated", "simulated:tokens_per_s=90000") for shots in (0, 2)
    ]
    frame = pd.read_parquet(run / "evaluation.parquet")
    assert frame.groupby("shots")["repetition"].nunique().to_dict() == {0: 1, 2: 2}


def test_a_model_can_grade_instead_of_rules(run: Path) -> None:
    judge = {"model": "simulated", "engine": "simulated"}
    evaluated(run, method="generation", evaluator=judge, limit=5, max_tokens=8)
    frame = pd.read_parquet(run / "evaluation.parquet")
    assert len(frame) == 5 * frame["name"].nunique()
    # Its verdicts are neither yes nor no.
    assert frame["answer"].isna().all()
    assert not frame["right"].any()


def test_a_table_is_printed(run: Path) -> None:
    done = pmpo(str(run), "--baseline", "description", "--limit", "40")
    assert done.returncode == 0, done.stderr
    assert "strongest free instruction" in done.stdout
    assert str(run) in done.stdout


STARTS = (
    "Which desk?",
    "Name the desk.",
    "Check each message carefully, compare the options step by step, and give exactly one of them.",
)


def test_further_starts_are_measured_as_free_instructions(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings: dict[str, Any] = {"scorer": SIMULATED, "evaluation": {"limit": 40}}
    result = optimize(
        "tickets",
        instruction=list(STARTS),
        rounds=0,
        search=REWRITING,
        run_dir=folder,
        observer=quiet,
        **settings,
    )
    [task] = result.tasks
    # The run itself compares with the first start.
    assert (task.start, task.best) == (STARTS[0], STARTS[2])
    assert task.accuracy_before != task.accuracy_after
    found = evaluated(folder)
    assert [(row["name"], row["instruction"]) for row in found["rows"]] == [
        ("start", STARTS[0]),
        ("best", STARTS[2]),
        ("start_2", STARTS[1]),
        ("start_3", STARTS[2]),
        ("description", found["rows"][-1]["instruction"]),
    ]
    assert {gain["against"]: gain["other"] for gain in found["gains"]} == {
        "start": "start",
        "free": "start_3",
    }
    # A longer search goes on from the starts.
    longer = optimize(run_dir=folder, rounds=1, observer=quiet)
    assert longer.tasks[0].loss_before == task.loss_before
    assert longer.tasks[0].loss_after <= task.loss_after


def test_every_start_of_a_configuration_is_evaluated(tmp_path: Path) -> None:
    tasks = [{"name": "tickets", "instruction": list(STARTS)}]
    settings = {"tasks": tasks, "scorer": SIMULATED, "evaluation": {"limit": 8, "baselines": []}}
    (tmp_path / "tasks.yaml").write_text(json.dumps(settings), encoding="utf-8")
    result = evaluate(str(tmp_path / "tasks.yaml"), run_dir=str(tmp_path / "run"), observer=quiet)
    rows = summary_json(result.summary, result.run_dir)["rows"]
    assert [(row["name"], row["instruction"]) for row in rows] == list(
        zip(("start", "start_2", "start_3"), STARTS, strict=True)
    )


def test_a_configuration_is_evaluated_without_a_run(tmp_path: Path, data_dir: Path) -> None:
    config = tmp_path / "tasks.yaml"
    config.write_text(
        json.dumps(
            {
                "tasks": ["bbh/navigate", "gsm8k"],
                "data_dir": str(data_dir),
                "scorer": SIMULATED,
                "evaluation": {"limit": 8, "baselines": ["step_by_step", "answer_only"]},
            }
        ),
        encoding="utf-8",
    )
    result = evaluate(str(config), run_dir=str(tmp_path / "run"), observer=quiet)
    found = summary_json(result.summary, result.run_dir)
    assert [(row["task"], row["method"], row["name"]) for row in found["rows"]] == [
        (task, method, name)
        for task, method in (("bbh/navigate", "likelihood"), ("gsm8k", "generation"))
        for name in ("start", "step_by_step", "answer_only")
    ]
    assert not found["gains"]


# --- guards -------------------------------------------------------------------------------------------------


def test_the_test_part_is_not_scored_during_the_search(run: Path) -> None:
    store = RunStore.open(str(run))
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    memory = ScoreMemory(store.join_scores())
    scorer = RememberingScorer(None, manifest.scorer, memory)  # type: ignore[arg-type]
    split = split_task(load_task(TaskConfig(name="tickets"), None, 0), SplitConfig(), 0)
    texts = {c.candidate.text for record in store.read_rounds("tickets") for c in record.candidates}
    kept = {
        part: sum(
            memory.get(key) is not None
            for text in texts
            for key in scorer._keys(ScoreRequest(text, examples))
        )
        for part, examples in (("train", split.train), ("test", split.test))
    }
    assert kept == {"train": len(texts) * len(split.train), "test": 0}


def test_tasks_and_split_are_the_runs(run: Path) -> None:
    for setting in ("split.train_max=5", "seed=3", "tasks=[sst2]"):
        with pytest.raises(ConfigError, match="an evaluation takes it from the run"):
            evaluate(run, overrides=[setting], observer=quiet)


def test_the_folder_of_another_run_is_not_taken(run: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    settings = {"scorer": SIMULATED, "search": {**REWRITING, "rounds": 2}, "split": {"train_max": 7}}
    config.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"with another split\.train_max; give another --run-dir"):
        evaluate(str(config), run_dir=str(run), observer=quiet)


def test_data_that_changed_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "own.csv"
    rows = [f"text number {n},{'yes' if n % 2 else 'no'}" for n in range(40)]
    data.write_text("\n".join(["input,target", *rows]), encoding="utf-8")
    config = simulated(tasks=[{"name": "own", "path": str(data)}], search={"rounds": 1})
    optimize(config, run_dir=tmp_path / "run", observer=quiet)
    data.write_text("\n".join(["input,target", *rows[::-1], "one more,yes"]), encoding="utf-8")
    with pytest.raises(RunFolderError, match="may contain training examples"):
        evaluate(str(tmp_path / "run"), observer=quiet)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "nowhere: neither a run folder nor a configuration file"),
        (["RUN", "--baseline", "magic"], "evaluation.baselines.0: should be 'answer_only'"),
        (
            ["RUN", "--instruction", "nowhere.txt"],
            "evaluation.instructions.nowhere: nowhere.txt cannot be read",
        ),
        (["RUN", "--limit", "0"], "evaluation.limit"),
        (["RUN", "--shots", "4000"], "evaluation.shots: 4000 requested"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], complaint: str, run: Path) -> None:
    done = pmpo(*(str(run) if part == "RUN" else part for part in arguments))
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert complaint in line
    assert not done.stdout


def test_the_final_pick_is_made_on_the_validation_part(tmp_path: Path) -> None:
    config = simulated(split={"validation": 20}, search={"rounds": 3})
    result = optimize(config, run_dir=tmp_path / "run", observer=quiet)
    [task] = result.tasks
    best = json.loads((tmp_path / "run" / "tasks" / "tickets" / "best.json").read_text(encoding="utf-8"))
    assert best["instruction"] == task.best
    assert best["loss"] == task.loss_after
    without = simulated(split={"validation": 0}, search={"rounds": 3})
    plain = optimize(without, run_dir=tmp_path / "plain", observer=quiet)
    records = RunStore.open(str(tmp_path / "run")).read_rounds("tickets")
    leaders = {
        c.candidate.text
        for record in records
        for c in record.candidates
        if c.candidate.id == record.survivors[0]
    }
    assert task.best in leaders
    assert task.tokens_scored > plain.tasks[0].tokens_scored
    # The same again, from the folder alone.
    assert optimize(run_dir=tmp_path / "run", observer=quiet).tasks == result.tasks


def test_a_run_leaves_its_judge_to_the_evaluation(tmp_path: Path, data_dir: Path) -> None:
    config = simulated(
        tasks=["alpaca_eval"],
        data_dir=str(data_dir),
        search={"rounds": 1},
        evaluation={"limit": 3, "judge": {"model": "judge"}},
    )
    [task] = optimize(config, run_dir=tmp_path / "run", observer=quiet).tasks
    assert task.accuracy_after is None
    assert task.p_value is None
