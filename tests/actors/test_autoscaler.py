"""A pool on a cluster with Ray's real autoscaler."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import ray
import yaml

from pmpo_ray.actors.clients import start_scorer_pool
from pmpo_ray.actors.resources import ReplicaPlan
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.config.run import RayConfig
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.types import Example, ScoreRequest
from tests.cluster.test_ray_jobs import free_port, started_head, until_listening

pytestmark = pytest.mark.slow

EXAMPLES = tuple(Example(f"e{n}", f"Is {n} a prime?", "yes", ("no", "maybe")) for n in range(40))
PROVIDER = {
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "head_node_id": "f" * 51 + "00000",
    "launch_multiple": True,
}
AUTOSCALER = {
    "cluster_name": "test",
    "max_workers": 3,
    "upscaling_speed": 100,
    "idle_timeout_minutes": 0.05,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1, "object_store_memory": 100_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    },
    "head_node_type": "ray.head.default",
    **{key: [] for key in ("setup_commands", "initialization_commands", "head_setup_commands")},
    **{key: [] for key in ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")},
    **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
}


def nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


async def until_nodes(count: int) -> None:
    async with asyncio.timeout(100):
        while nodes() != count:  # noqa: ASYNC110 - a state that is polled
            await asyncio.sleep(0.2)


def test_an_autoscaled_cluster_grows_with_the_work_and_shrinks_without_it(tmp_path: Path) -> None:
    file, port = tmp_path / "autoscaler.yaml", free_port()
    provider = {**PROVIDER, "gcs_address": f"{ray.util.get_node_ip_address()}:{port}"}
    file.write_text(yaml.safe_dump({**AUTOSCALER, "provider": provider}), encoding="utf-8")
    environ = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": "f" * 51 + "00000",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "f" * 51 + "00000",
    }
    head = ("--port", str(port), "--num-cpus", "0", "--include-dashboard", "false")
    head = (*head, "--autoscaling-config", str(file))
    with started_head(tmp_path, *head, **environ):
        until_listening(port, tmp_path)
        asyncio.run(grown_and_shrunk(f"127.0.0.1:{port}"))


async def grown_and_shrunk(address: str) -> None:
    model = "simulated:tokens_per_s=400"
    instructions = [f"Instruction {number}." for number in range(12)]
    engine = SimulatedScorer(model)
    wanted = [engine.answer(ScoreRequest(text, EXAMPLES)).scores for text in instructions]
    ray.init(address=address, log_to_driver=False)
    try:
        assert nodes() == 1
        plan = ReplicaPlan(3, 1, 1, None, threads=1, device="cuda", min_replicas=0)
        config = ScorerConfig(engine="simulated", min_replicas=0, replicas=3)
        settings = RayConfig(autoscaling=True, idle_timeout=2.0, outage_timeout=100.0)
        pool = await start_scorer_pool(config, model, plan, settings)
        for _ in range(2):
            work = asyncio.gather(*(pool.score(ScoreRequest(text, EXAMPLES)) for text in instructions))
            await until_nodes(4)
            assert await work == wanted
            # The pool lives on, without a replica and without a node.
            await until_nodes(1)
            assert pool.stats().replicas == ()
        await pool.close()
    finally:
        ray.shutdown()
