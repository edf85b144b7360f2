"""vLLM in Ray actors, with the real vLLM on the CPU: one replica in both roles, an engine that dies under its
actor, and a whole run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pmpo_ray.actors.clients import RewriterPool, ScorerPool, start_shared_pool
from pmpo_ray.actors.resources import ReplicaPlan
from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig, ScorerConfig
from pmpo_ray.config.run import RayConfig
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")
import psutil

pytestmark = pytest.mark.slow

EXAMPLES = tuple(Example(str(n), f"Order {n} never came.", "shipping", ("billing",)) for n in range(6))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


async def both(replicas: int = 1) -> tuple[ScorerPool, RewriterPool]:
    scorer = ScorerConfig(engine="vllm", role="both", chunk_examples=2)
    plan = ReplicaPlan(replicas, num_cpus=1, num_gpus=0, memory_bytes=None, threads=2, device="cpu")
    return await start_shared_pool(scorer, RewriterConfig(), DEFAULT_MODEL, plan, RayConfig())


def engine_processes() -> list[psutil.Process]:
    """The engine processes of all vLLM replicas of this process and its Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline()):
                found.append(process)
    return found


async def test_one_replica_scores_and_rewrites_and_is_replaced_when_its_engine_dies(cluster: None) -> None:
    before = {process.pid for process in engine_processes()}
    scorer, rewriter = await both()
    try:
        mine = [process for process in engine_processes() if process.pid not in before]
        assert len(mine) == 1, "the model is held more than once"
        assert scorer.info.engine == rewriter.info.engine == "vllm"
        scores, written = await asyncio.gather(
            scorer.score(ScoreRequest("Name the kind of ticket.", EXAMPLES)),
            rewriter.generate(GenerateRequest("Say hello.", n=2, max_tokens=8)),
        )
        assert len(scores) == len(EXAMPLES)
        assert len(written.samples) == 2

        # Work is under way when the engine dies: its actor ends, another one comes, and nothing is lost.
        waiting = asyncio.gather(
            scorer.score(ScoreRequest("Which desk is this ticket for?", EXAMPLES)),
            rewriter.generate(GenerateRequest("Tell a long story.", max_tokens=80, seed=3)),
        )
        await asyncio.sleep(0.3)
        mine[0].kill()
        again, story = await waiting
        assert len(again) == len(EXAMPLES)
        assert story.tokens > 0
        assert scorer.stats().lost == 1
        repeated = await scorer.score(ScoreRequest("Name the kind of ticket.", EXAMPLES))
        # In bf16 what is computed together changes the sums.
        assert [score.target.logprob for score in repeated] == pytest.approx(
            [score.target.logprob for score in scores], abs=0.5
        )
    finally:
        await scorer.close()
    for _ in range(100):
        left = [process for process in engine_processes() if process.pid not in before]
        if not left:
            break
        await asyncio.sleep(0.2)
    assert not left, "an engine outlives its actor"


def test_the_main_job_runs_with_one_vllm_replica_in_both_roles(tmp_path: Path) -> None:
    settings = {
        "scorer.engine": "vllm",
        "scorer.role": "both",
        "search.rounds": 1,
        "search.hard_examples": 1,
        "search.variants": 3,
        "search.masking": "rules",
        "search.reasks": 0,
        "split.train_max": 4,
        "evaluation.limit": 4,
        "rewriter.max_tokens": 48,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pmpo_ray", "optimize", "configs/quickstart.yaml", "--json"),
            *("--run-dir", str(tmp_path / "run")),
            *sets,
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["tasks"][0]
    assert result["rounds"] == 1
    store = RunStore.open(str(tmp_path / "run"))
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    assert manifest.scorer.engine == "vllm"
    assert list(manifest.pools) == ["both"]
    record = store.read_rounds("tickets")[1]
    assert not [refusal for refusal in record.refusals if refusal.status == "failed"]
    assert record.tokens_generated > 0
