"""Runs on clusters: through `ray job submit`, with the run folder in object storage, with killed drivers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.cluster_utils import Cluster

from pmpo_ray import optimize
from pmpo_ray.outcomes import Progress, TaskResult
from pmpo_ray.store import RunStore
from pmpo_ray.types import RoundRecord
from tests.run_folders import REWRITING

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACE = "simulated:tokens_per_s=40000"
RUN = {
    "tasks": ["tickets"],
    "model": PACE,
    "scorer": {"engine": "simulated", "replicas": 2, "chunk_examples": 10},
    "rewriter": {"engine": "simulated"},
    "search": {**REWRITING, "rounds": 4},
    "evaluation": {"limit": 20},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pmpo(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pmpo_ray", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    stdout, stderr = process.communicate(timeout=200)
    return process.returncode, stdout, stderr


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Wait until the process writes `text` to standard error."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    pytest.fail("".join(seen))


def rounds_of(location: str) -> list[RoundRecord]:
    """The rounds of a run, without their durations."""
    return [replace(record, seconds=0.0) for record in RunStore.open(location).read_rounds("tickets")]


def result_of(location: str) -> TaskResult:
    result = RunStore.open(location).read_task_result("tickets")
    assert result is not None
    return result


def timeless(results: Sequence[TaskResult]) -> list[TaskResult]:
    return [replace(result, seconds=0.0) for result in results]


def quiet(progress: Progress) -> None:
    """An observer that keeps nothing."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that runs only drivers, and a node for the replicas."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=4)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def config(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, "ray": {"address": cluster.address}}), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(config: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TaskResult], str]:
    folder = str(tmp_path_factory.mktemp("undisturbed") / "run")
    return timeless(optimize(config, run_dir=folder, observer=quiet).tasks), folder


@pytest.mark.parametrize("moment", ["round 0/4  scoring", "round 2/4  rewriting", "round 3/4  scoring"])
def test_a_run_in_object_storage_continues_after_its_driver_was_killed(
    moment: str, config: str, undisturbed: tuple[list[TaskResult], str], s3: str
) -> None:
    location = f"s3://runs/{moment[6]}?{s3}"
    driver = pmpo("optimize", config, "--run-dir", location)
    wait_for(driver, moment)
    driver.kill()
    ended(driver)
    code, stdout, stderr = ended(pmpo("optimize", config, "--run-dir", location, "--json"))
    assert code == 0, stderr
    assert json.loads(stdout)["run_dir"] == location
    assert rounds_of(location) == rounds_of(undisturbed[1])
    assert timeless([result_of(location)]) == undisturbed[0]


def test_a_second_driver_on_a_run_folder_is_refused(config: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    first = pmpo("optimize", config, "--run-dir", folder)
    wait_for(first, "round 1/4")
    code, stdout, stderr = ended(pmpo("optimize", config, "--run-dir", folder))
    assert (code, stdout) == (2, "")
    [line] = stderr.splitlines()
    assert f"process {first.pid} on" in line
    assert "choose another --run-dir" in line
    code, _, stderr = ended(first)
    assert code == 0, stderr


def test_a_local_run_folder_on_a_cluster_gets_a_warning(config: str, tmp_path: Path) -> None:
    code, _, stderr = ended(
        pmpo("optimize", config, "--run-dir", str(tmp_path / "run"), "--set", "search.rounds=0")
    )
    assert code == 0
    assert "is on this machine's disk and will be lost with it" in stderr


def test_changed_data_are_not_mixed_into_a_run(tmp_path: Path, config: str) -> None:
    data = tmp_path / "rows.csv"
    data.write_text(
        "input,target\n" + "".join(f"question {n},{'no' if n % 3 else 'yes'}\n" for n in range(40))
    )
    own = json.dumps([{"name": "own", "path": str(data)}])
    run = ("optimize", config, "--set", f"tasks={own}", "--set", "search.rounds=0")
    run = (*run, "--run-dir", str(tmp_path / "run"))
    assert ended(pmpo(*run))[0] == 0
    data.write_text(data.read_text().replace("question 7", "question 8"))
    code, _, stderr = ended(pmpo(*run))
    assert code == 2
    assert "task own: its data are not those that the run" in stderr


@contextmanager
def started_head(tmp_path: Path, *arguments: str, **environ: str) -> Iterator[None]:
    """A Ray head with all its processes, as `ray start` creates it."""
    log = (tmp_path / "head.log").open("w")
    # In a shared folder a job joins the cluster that was started last. Sockets need a short path.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    head = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *arguments),
            *("--temp-dir", folder),
            # Other clusters on this machine use the default ports.
            *("--dashboard-agent-listen-port", str(free_port())),
            *("--dashboard-agent-grpc-port", str(free_port())),
            *("--metrics-export-port", str(free_port())),
        ],
        env={**os.environ, **environ},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield
    finally:
        # Asked to end, it waits half a minute for its own processes.
        os.killpg(head.pid, signal.SIGKILL)
        head.wait(timeout=60)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def until_listening(port: int, tmp_path: Path) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail((tmp_path / "head.log").read_text())


def test_a_run_as_a_ray_job(tmp_path: Path) -> None:
    port, dashboard = free_port(), free_port()
    with started_head(tmp_path, "--port", str(port), "--dashboard-port", str(dashboard), "--num-cpus", "2"):
        until_listening(dashboard, tmp_path)
        binaries = Path(sys.executable).parent
        done = subprocess.run(
            [
                *(str(binaries / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}"),
                *("--working-dir", ".", "--runtime-env", "cluster/runtime-env.yaml", "--"),
                *(str(binaries / "pmpo"), "optimize", "configs/quickstart.yaml"),
                *("--run-dir", str(tmp_path / "run"), "--log-format", "json"),
                *("--set", "scorer.engine=simulated", "--set", "rewriter.engine=simulated"),
                *("--set", "search.rounds=1", "--set", "evaluation.limit=20"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert "run folder: " in done.stdout
    result = result_of(str(tmp_path / "run"))
    assert result.rounds == 1
    manifest = RunStore.open(str(tmp_path / "run")).read_manifest()
    assert manifest is not None
    assert manifest.cluster is not None
    assert manifest.cluster.address.endswith(f":{port}")


def test_the_cluster_of_a_run_takes_replicas_on_worker_nodes_alone(
    cluster: Cluster, undisturbed: tuple[list[TaskResult], str]
) -> None:
    manifest: Any = RunStore.open(undisturbed[1]).read_manifest()
    assert (manifest.cluster.nodes, manifest.cluster.cpus) == (2, 4)
    assert manifest.cluster.address == cluster.address
