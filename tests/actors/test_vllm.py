"""vLLM in Ray actors, with the real vLLM on the CPU: a whole run with one replica in both roles, whose engine
dies on the way. The weights are random: who writes and scores is what is tested."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray import RunResult, optimize
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.hf.scorer import TransformersScorer
from pmpo_ray.outcomes import Progress
from pmpo_ray.store import RunStore
from pmpo_ray.types import ScoreRequest
from tests.engines.comparing import TOLERANCE, difference
from tests.run_folders import REWRITING

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")
import psutil

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "scorer": {"engine": "vllm", "role": "both", "dtype": "float32", "chunk_examples": 2},
    "rewriter": {"max_tokens": 48},
    "search": {
        **REWRITING,
        "rounds": 1,
        "hard_examples": 1,
        "variants": 3,
        "masking": "rules",
        "reasks": 0,
    },
    "split": {"train_max": 4},
    "evaluation": {"limit": 4},
}


def engine_processes() -> list[psutil.Process]:
    """The engine processes of all vLLM replicas of this process and its Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_a_run_with_one_vllm_replica_in_both_roles_survives_the_death_of_its_engine(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    engines: list[int] = []

    def kill() -> None:
        for process in engine_processes():
            process.kill()

    def observe(progress: Progress) -> None:
        if progress.round == 1 and progress.state == "rewriting" and not engines:
            engines.extend(process.pid for process in engine_processes())
            # Soon, when the engine has work.
            threading.Timer(0.3, kill).start()

    run: RunResult = optimize(
        "tickets", model=tiny_model, run_dir=tmp_path / "run", observer=observe, **SETTINGS
    )
    assert len(engines) == 1, "the model is held more than once"
    assert not engine_processes(), "an engine outlives its actor"

    store = RunStore.open(run.run_dir)
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert manifest.scorer.engine == "vllm"
    assert list(manifest.pools) == ["both"]
    assert manifest.pools["both"].lost == 1
    [result] = run.tasks
    assert result.rounds == 1
    record = store.read_rounds("tickets")[1]
    assert not [refusal for refusal in record.refusals if refusal.status == "failed"]
    assert record.tokens_generated > 0

    # The engine that came instead scores as the first one did.
    examples = store.read_training("tickets")
    assert examples is not None
    reference = TransformersScorer.load(tiny_model, ScorerConfig(dtype="float32"))
    for scored in (store.read_rounds("tickets")[0].candidates[0], record.candidates[-1]):
        expected = reference.score(ScoreRequest(scored.candidate.text, examples)).scores
        assert difference(scored.scores, expected) < TOLERANCE
