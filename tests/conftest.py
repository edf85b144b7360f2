"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from pyarrow import fs

if importlib.util.find_spec("vllm") is not None:
    # vLLM imports setuptools, which refuses to come after the standard library's distutils; others bring it.
    import setuptools  # noqa: F401

# Several workers on few cores: threads that wait for each other must not spin. Replicas do the same.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each worker: more would only take turns. Replicas have the number of their plan.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Nobody looks at a Ray's statistics of its processes, which it would gather every 2.5 seconds.
os.environ.setdefault("REPORTER_UPDATE_INTERVAL_MS", "60000")

# Workers that run tests side by side ignore it, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A local Ray turns token authentication on for its whole process, in which clusters without it start nothing
# from then on, and a token left in the home folder locks those that `ray start` makes. Tests use both kinds.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

# Tests say what is right, never how fast: a busy machine must not fail them.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


FIRST = (
    # The longest files: workers that run files side by side end together if these do not begin last.
    "engines/openai/test_vllm_server.py",
    "benchmarks/test_paper.py",
    "runs/test_optimize.py",
    "runs/test_real_model.py",
    "actors/test_vllm.py",
    "runs/test_evaluate.py",
    "cluster/test_ray_jobs.py",
    "actors/test_pool.py",
    "engines/vllm/test_both_roles.py",
    "engines/weights/test_packaged.py",
    "actors/test_autoscaler.py",
    "test_docs.py",
)


SERVERS = {"ray_cluster", "running_ray", "s3_port"}
"""The fixtures that start Ray or a server: tests that use them are slow."""


class SharedRay:
    """The Ray of this process's tests. An idle one takes a fifteenth of a core, so it ends before the first
    file that does not use it, and another one starts when a file needs it."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self._cluster: Any = None

    def address(self) -> str:
        from ray.cluster_utils import Cluster

        if self._cluster is None:
            # It offers the CPUs that there are: real models would take as many threads as it says.
            head = {
                "num_cpus": os.cpu_count() or 1,
                "include_dashboard": False,
                "_system_config": {"prestart_worker_first_driver": False},
            }
            self._cluster = Cluster(initialize_head=True, head_node_args=head)
        return str(self._cluster.address)

    def end(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
            self._cluster = None


SHARED_RAY = SharedRay()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if not SERVERS.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.slow)
        if "ray_cluster" in item.fixturenames:
            SHARED_RAY.files.add(item.path)
    rank = {tests / name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: (rank.get(item.path, len(rank)), item.path not in SHARED_RAY.files))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path not in SHARED_RAY.files:
        SHARED_RAY.end()


def pytest_sessionfinish() -> None:
    SHARED_RAY.end()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real benchmark files; its absence is a failure, never a skip."""
    named = os.environ.get("PMPO_DATA_DIR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "bbh").is_dir():
        pytest.fail(f"no benchmark data in {folder}: set PMPO_DATA_DIR to the folder that holds bbh/")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a two-layer Llama with random weights and the default model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from pmpo_ray.config.engines import DEFAULT_MODEL
    from pmpo_ray.engines.weights.loading import load_tokenizer
    from pmpo_ray.engines.weights.resolve import resolve_model

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = load_tokenizer(resolve_model(DEFAULT_MODEL, progress=False), trust_remote_code=False)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        # Small weights would predict all tokens alike, and hide rows that are read at the wrong place.
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def ray_cluster() -> str:
    """The address of a Ray that the tests of this process share."""
    return SHARED_RAY.address()


@pytest.fixture(scope="module")
def running_ray(ray_cluster: str) -> Iterator[None]:
    """Runs that name no address use a Ray that is there: a start of their own would take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_cluster)
        yield


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real S3 server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            assert server.poll() is None, "the S3 server ended: is moto[server,s3] installed?"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The parameters of a URI for the server, which has a bucket "runs"."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-value")
    system = fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{s3_port}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    system.create_dir("runs")
    return f"endpoint_override=127.0.0.1:{s3_port}&scheme=http&region=us-east-1"
