"""A whole run with the real small model on a real Ray, and its evaluation by both methods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pmpo_ray import RunResult, evaluate, optimize
from pmpo_ray.display.summary_json import summary_json
from pmpo_ray.outcomes import Progress
from pmpo_ray.store import RunStore

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]


@dataclass(frozen=True)
class RealRun:
    """A finished run, and what its observer saw."""

    result: RunResult
    seen: list[Progress]

    @property
    def folder(self) -> Path:
        return Path(self.result.run_dir)


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    seen: list[Progress] = []
    result = optimize(
        # Short, since the model repeats it for the mask analysis.
        tasks=[{"name": "tickets", "instruction": "Read the message. Name the kind of ticket that it is."}],
        scorer={"role": "both"},
        search={"rounds": 1, "hard_examples": 1, "variants": 1, "reasks": 0, "max_segments": 2},
        rewriter={"max_tokens": 32},
        split={"train_max": 6},
        evaluation={"limit": 6},
        run_dir=tmp_path_factory.mktemp("real") / "run",
        observer=seen.append,
    )
    return RealRun(result, seen)


def test_the_real_model_optimises_a_real_task_and_leaves_a_whole_run_folder(real_run: RealRun) -> None:
    [task] = real_run.result.tasks
    assert task.loss_after <= task.loss_before
    assert task.accuracy_before is not None
    assert task.accuracy_before.n == 6
    assert task.tokens_scored > 1000
    assert task.tokens_generated > 0
    assert [p.state for p in real_run.seen if p.task == "tickets"][-1] == "done"

    store = RunStore.open(str(real_run.folder))
    records = store.read_rounds("tickets")
    assert [record.round for record in records] == [0, 1]
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert manifest.scorer.parameters > 130_000_000
    assert manifest.ended is not None
    replica = manifest.pools["both"]
    assert (replica.retries, replica.lost) == (0, 0)
    assert replica.answered > 0
    assert 0 < replica.busy_seconds <= replica.ready_seconds
    best = json.loads((real_run.folder / "tasks" / "tickets" / "best.json").read_text(encoding="utf-8"))
    assert best["instruction"] == task.best
    frame = pd.read_parquet(real_run.folder / "tasks" / "tickets" / "round-0001.parquet")
    assert set(frame["status"]) <= {"survivor", "dropped", "refused", "failed"}
    assert frame.loc[frame["status"] == "refused", "reason"].str.len().gt(0).all()


def evaluated(folder: Path, **settings: object) -> dict[str, Any]:
    """The output of `--format json` for these keys of `evaluation`."""
    result = evaluate(folder, **settings)
    return summary_json(result.summary, result.run_dir)


def test_a_real_run_is_evaluated_by_likelihood_and_by_generation(real_run: RealRun, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("Name the kind of ticket.", encoding="utf-8")
    found = evaluated(real_run.folder, limit=6, baselines=["step_by_step"], instructions={"mine": f"@{mine}"})
    assert [row["name"] for row in found["rows"]] == ["start", "best", "step_by_step", "mine"]
    assert {row["method"] for row in found["rows"]} == {"likelihood"}
    result = RunStore.open(str(real_run.folder)).read_task_result("tickets")
    assert result is not None
    assert result.accuracy_before is not None
    assert found["rows"][0]["accuracy"]["value"] == pytest.approx(result.accuracy_before.value, abs=0.1)

    written = evaluated(
        real_run.folder,
        limit=2,
        baselines=["answer_only"],
        method="generation",
        max_tokens=12,
        follow_up=False,
    )
    assert {row["method"] for row in written["rows"]} == {"generation"}
    frame = pd.read_parquet(real_run.folder / "evaluation.parquet")
    assert set(frame["name"]) == {"start", "best", "answer_only"}
    assert frame["reply"].str.len().gt(0).all()
    labels = {"billing", "bug report", "account access", "shipping", "feature request", "praise"}
    assert set(frame["answer"].dropna()) <= labels
    assert (frame["right"] <= frame["answer"].notna()).all()
