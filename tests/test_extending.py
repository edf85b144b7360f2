"""Tasks, objectives, operators and engines of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray import load_run, optimize
from pmpo_ray.config import RunConfig
from pmpo_ray.config_io import load_config
from pmpo_ray.errors import ConfigError, RunFolderError
from pmpo_ray.inputs import TaskWords, requested
from pmpo_ray.store import RunStore
from pmpo_ray.types import (
    AnswerScore,
    ExampleScore,
    Progress,
)
from tests.examples.custom_engine import WordScorer
from tests.examples.custom_objective import hinge
from tests.examples.custom_operator import Shorten, without_harm
from tests.examples.custom_task import parity
from tests.runs import ENGINE

ROOT = Path(__file__).parents[1]
EXAMPLES = "tests.examples"
OPERATORS = ["rewrite", f"{EXAMPLES}.custom_operator:Shorten", f"{EXAMPLES}.custom_operator:without_harm"]
SCORE = ExampleScore(AnswerScore(-2.0, 2), (AnswerScore(-3.0, 2), AnswerScore(-9.0, 3)), 10)
NOT_CALLABLE = 3


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


def asked(source: Any = None, /, *, search: dict[str, object] | None = None, **settings: object) -> RunConfig:
    """The configuration that a call of `optimize` with these arguments would run."""
    return requested(source, TaskWords(), search or {}, settings=settings, overrides=(), run_dir=None)[0]


# All together


def test_all_parts_of_ones_own_work_in_one_run_and_its_folder_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings: dict[str, Any] = {
        "scorer": {"engine": WordScorer, "model": "words", "replicas": 2},
        "rewriter": ENGINE,
        "ray": {"num_cpus": 3},
        "split": {"train_max": 9},
    }
    parts: dict[str, Any] = {"objective": hinge, "operators": ["rewrite", Shorten, without_harm]}
    result = optimize(parity, **parts, **settings, rounds=2, run_dir=folder, observer=quiet)
    assert result["parity"].rounds == 2
    assert {"rewrite", "Shorten"} <= set(result.to_pandas()["operator"])
    manifest = RunStore.open(str(folder)).read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert (manifest.scorer.engine, manifest.scorer.model) == ("words", "words")

    kept = load_config(None, (), str(folder))
    assert kept.tasks[0].function == f"{EXAMPLES}.custom_task:parity"
    assert kept.search.objective == f"{EXAMPLES}.custom_objective:hinge"
    assert list(kept.search.operators) == OPERATORS
    assert kept.scorer.engine == f"{EXAMPLES}.custom_engine:WordScorer"

    assert optimize(run_dir=folder, observer=quiet) == result
    parts["operators"] = ["rewrite", without_harm]
    with pytest.raises(RunFolderError, match=r"search\.operators differs"):
        optimize(parity, **parts, **settings, rounds=2, run_dir=folder, observer=quiet)


SCRIPT = '''
import sys
from pmpo_ray import optimize, task
from tests.examples.custom_engine import WordScorer

@task("tiny")
def tiny():
    return [{"input": f"number {n}", "target": "ab"[n % 2]} for n in range(40)]

class Scorer(WordScorer):
    """Of this script, which no other process can import."""

class Polite:
    async def propose(self, context):
        return [f"{context.parent.candidate.text} Please {context.round}."]

def loss(score):
    return -score.target.logprob

if __name__ == "__main__":
    optimize("tiny", objective=loss, operators=[Polite], rounds=1, run_dir=sys.argv[1],
             scorer={"engine": Scorer, "model": "words"}, evaluation={"enabled": False},
             rewriter={"engine": "simulated", "model": "simulated"}, ray={"num_cpus": 2})
'''


def test_parts_that_stand_in_a_script_are_sent_to_the_replicas(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = load_run(folder)
    assert set(result.to_pandas()["operator"]) <= {"seed", "mask_drop", "Polite"}
    config = load_config(None, (), str(folder))
    assert config.tasks[0].function == "__main__:tiny"
    assert config.search.operators == ("__main__:Polite",)
    with pytest.raises(ConfigError, match=r"__main__:tiny: tiny is of a script or notebook that is not this"):
        optimize(run_dir=folder, observer=quiet)
