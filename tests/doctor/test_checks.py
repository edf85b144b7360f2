"""The findings of `pmpo doctor` about this machine, real servers and real storage."""

from __future__ import annotations

import http.server
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs
from rich.console import Console

from pmpo_ray.actors.resources import ClusterResources, NodeResources
from pmpo_ray.config.engines import EndpointConfig
from pmpo_ray.config.loading import config_from_mapping, default_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.doctor import findings
from pmpo_ray.doctor.bounded_call import BoundedCall, NoResultError
from pmpo_ray.doctor.cluster import inspect_cluster, inspect_local_ray
from pmpo_ray.doctor.findings import Finding
from pmpo_ray.doctor.machine import Machine, this_machine
from pmpo_ray.doctor.models import HubReport, ModelReport
from pmpo_ray.doctor.storage import inspect_storage
from pmpo_ray.doctor.table import show_findings
from pmpo_ray.doctor.tasks import TaskReport, inspect_tasks
from pmpo_ray.engines.hf.gpus import Gpu, GpuReport, inspect_gpus
from pmpo_ray.errors import ConfigError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIMULATED = ("--set", "scorer.engine=simulated", "--set", "rewriter.engine=simulated")
H100 = Gpu("NVIDIA H100", 85 * 10**9)
CPUS = ClusterResources((NodeResources(8, 0, 16 * 10**9),))


def doctor(*arguments: str, **environ: str) -> tuple[int, dict[str, Finding]]:
    """The exit code and the findings by their names, of a process that is offline."""
    done = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "doctor", "--json", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    document = json.loads(done.stdout)
    found = {entry["name"]: Finding(**entry) for entry in document["findings"]}
    assert document["complete"] == (done.returncode == 0)
    return done.returncode, found


def config(**settings: object) -> RunConfig:
    return config_from_mapping(settings, "test")


def test_a_machine_that_has_all_that_a_run_needs(tmp_path: Path) -> None:
    code, found = doctor(*SIMULATED, "--run-dir", str(tmp_path / "new" / "run"))
    assert code == 0
    assert set(found) == {
        "packages",
        "openai",
        "machine",
        "GPUs",
        "Ray",
        "replicas",
        "vLLM",
        "tasks",
        "hub",
        "run folder",
        "disk",
    }
    for name in ("packages", "openai", "machine", "Ray", "replicas", "tasks", "hub", "run folder"):
        assert found[name].state == "ok"
        assert found[name].advice == ""
    assert "1 ready" in found["tasks"].found
    assert "is not needed" in found["hub"].found
    assert list(tmp_path.iterdir()) == []


def test_a_users_module_is_named_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "their_task.py").write_text(
        "import sys\nprint('it runs', file=sys.stderr)\ndef rows():\n    return []\n", encoding="utf-8"
    )
    (tmp_path / "run.yaml").write_text(
        "tasks: [{name: mine, function: 'their_task:rows'}]\n"
        "scorer: {engine: simulated}\nrewriter: {engine: simulated}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "doctor", "run.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    named = f"task 'mine': function: this process imports the module their_task from {tmp_path}/their_task.py"
    assert done.stderr.splitlines() == [named, "it runs"]


def test_what_a_configuration_needs_and_lacks_gives_exit_code_1(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: org/none\n"
        "tasks: [{name: mine, path: absent.csv}]\n"
        "scorer: {gpus: 100}\n"
        "rewriter: {engine: openai, endpoint: {url: 'http://127.0.0.1:9/v1'}}\n"
        "run_dir: /dev/null/run\n"
    )
    code, found = doctor(str(path), HF_HOME=str(tmp_path / "hub"))
    assert code == 1
    missing = {name for name, finding in found.items() if finding.state == "missing"}
    assert missing == {"model", "tasks", "replicas", "rewriter.endpoint", "run folder"}
    assert all(found[name].advice for name in missing)
    assert "org/none" in found["model"].found
    assert "absent.csv" in found["tasks"].found


def test_a_model_that_is_still_to_be_fetched_is_no_more_than_a_warning(tmp_path: Path) -> None:
    code, found = doctor(
        "--set", "rewriter.engine=simulated", HF_HOME=str(tmp_path), PMPO_CACHE_DIR=str(tmp_path)
    )
    assert code == 0
    assert found["model"].state == "warning"
    assert "in a package" in found["model"].found
    assert found["model"].advice == "nothing needs to be done"
    assert found["hub"].state == "warning"


def test_a_cluster_that_does_not_answer_is_missing() -> None:
    code, found = doctor(*SIMULATED, RAY_ADDRESS="127.0.0.1:9")
    assert code == 1
    assert found["Ray"].state == "missing"
    assert found["Ray"].found.startswith("the cluster at 127.0.0.1:9: no Ray cluster answers")
    assert "replicas" not in found


def test_a_cluster_that_answers_tells_what_it_offers(ray_cluster: str) -> None:
    address, cpus = ray_cluster, os.cpu_count() or 1
    code, found = doctor(*SIMULATED, "--set", f"ray.address={address}")
    crowded, _ = doctor(*SIMULATED, "--set", f"ray.address={address}", "--set", f"scorer.cpus={cpus + 1}")
    assert (code, crowded) == (0, 1)
    assert found["Ray"].found == f"the cluster at {address}: {cpus} CPUs and 0 GPUs on 1 nodes"
    assert found["replicas"].state == "ok"
    assert found["run folder"].state == "warning"


def test_object_storage_is_tried(s3: str) -> None:
    location = f"s3://runs/doctor/run?{s3}"
    assert inspect_storage(location) == ""
    system, path = fs.FileSystem.from_uri(location)
    there = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    assert [info.path for info in there if info.type == fs.FileType.File] == []
    code, found = doctor(*SIMULATED, "--run-dir", location)
    assert (code, found["run folder"].state) == (0, "ok")
    code, found = doctor(*SIMULATED, "--run-dir", f"s3://absent/run?{s3}")
    assert (code, found["run folder"].state) == (1, "missing")
    assert "check that the bucket exists" in found["run folder"].advice


def test_storage_that_does_not_answer_is_named() -> None:
    found = findings.of_storage("s3://runs/x", "no answer within 12 s", lasting=True)
    assert (found.state, found.found) == ("missing", "s3://runs/x: no answer within 12 s")
    assert found.advice


def test_storage_on_a_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    assert inspect_storage(str(tmp_path / "a" / "b")) == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    assert "is a file; choose another" in inspect_storage(str(tmp_path / "file"))


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A server that answers, if with a refusal, as OpenAI-compatible ones do to HEAD."""
    serving = http.server.HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/v1"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_server_that_answers_is_there(server: str) -> None:
    settings = ("--set", "scorer.engine=openai", "--set", f"scorer.endpoint.url={server}")
    code, found = doctor(*settings, "--set", "rewriter.engine=simulated", OPENAI_API_KEY="hunter2hunter2")
    assert code == 0
    assert found["scorer.endpoint"] == Finding("scorer.endpoint", "ok", f"{server} answers")


def test_secrets_in_the_environment_are_not_shown() -> None:
    _, found = doctor(
        "--set", "scorer.engine=openai", OPENAI_BASE_URL="http://me:hunter2hunter2@127.0.0.1:9/v1"
    )
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["absent.yaml"], "absent.yaml: no such file"),
        (["--set", "search.roundz=3"], "--set search.roundz=3: search.roundz: unknown key"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(arguments: list[str], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "doctor", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {expected}")
    assert done.stderr.count("\n") == 1


def test_defaults_take_overrides() -> None:
    assert default_config(parse_overrides(["search.rounds=3"])).search.rounds == 3
    assert default_config([]) == RunConfig()
    with pytest.raises(ConfigError, match="--set seed=x"):
        default_config(parse_overrides(["seed=x"]))


def test_a_call_that_does_not_return_is_given_up() -> None:
    assert BoundedCall(pow, 2, 5, seconds=60).result() == 32
    with pytest.raises(NoResultError, match=r"no answer within 0.2 s"):
        BoundedCall(time.sleep, 60, seconds=0.2).result()
    with pytest.raises(NoResultError, match="exit code 3"):
        BoundedCall(os._exit, 3, seconds=60).result()
    assert BoundedCall(pow, 2, 5, seconds=60, imports=["no_such_module"]).result() == 32


def test_this_machine_has_cores_and_memory() -> None:
    found = this_machine()
    assert 0 < found.cores <= found.hardware_cores
    assert found.memory_bytes > 10**8


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (
            "0::/pod/box\n",
            {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "50000 100000\n", "memory.max": "1000\n"},
        ),
        ("0::/hidden\n", {"cpu.max": "50000 100000\n", "memory.max": "1000\n"}),
        (
            "4:memory:/box\n3:cpu,cpuacct:/box\n",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
                "memory/box/memory.limit_in_bytes": "1000\n",
            },
        ),
    ],
)
def test_the_limits_of_a_container_count(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    (tmp_path / "self").write_text(membership)
    found = this_machine(tmp_path / "self", cgroup(tmp_path / "cgroup", files))
    assert (found.cores, found.memory_bytes) == (0.5, 1000)


def test_a_container_without_limits_has_the_machine(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/\n4:memory:/\n3:cpu:/\n")
    files = {
        "cpu.max": "max 100000\n",
        "memory.max": "max\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    free = this_machine(tmp_path / "absent", tmp_path)
    assert this_machine(tmp_path / "self", cgroup(tmp_path / "cgroup", files)) == free


def test_torch_tells_of_gpus(tmp_path: Path) -> None:
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
    )
    report = inspect_gpus(driver)
    assert (report.driver, report.problem) == ("550.54.15", "")
    assert inspect_gpus(tmp_path / "absent").driver == ""


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        (GpuReport((), "", ""), "ok", "none; models run on the CPU"),
        (
            GpuReport((H100, H100), "550.54", "12.8"),
            "ok",
            "2: NVIDIA H100 (85 GB), NVIDIA H100 (85 GB); driver 550.54",
        ),
        (GpuReport((), "550.54", ""), "warning", "torch is built without CUDA"),
        (GpuReport((), "550.54", "12.8"), "warning", "no GPU is visible"),
        (GpuReport((), "", "", "libcudart.so is missing"), "missing", "libcudart.so is missing"),
        ("no answer within 12 s", "missing", "no answer within 12 s"),
    ],
)
def test_what_gpus_mean(report: GpuReport | str, state: str, words: str) -> None:
    found = findings.of_gpus(report, needed=True)
    assert found.state == state
    assert words in found.found
    assert bool(found.advice) == (state != "ok")


def test_torch_is_missing_only_where_a_model_is_loaded() -> None:
    assert findings.of_gpus("broken", needed=False).state == "warning"
    assert findings.models(config(scorer={"engine": "openai"}, rewriter={"engine": "simulated"})) == []
    one = config(
        model="a/b", rewriter={"model": "c/d", "revision": "main"}, evaluation={"models": ["a/b", "e/f"]}
    )
    assert findings.models(one) == [("a/b", None, False), ("c/d", "main", False), ("e/f", None, False)]


@pytest.mark.parametrize(
    ("settings", "gpus", "local", "state"),
    [
        ({}, 0, True, "ok"),
        ({}, 1, True, "warning"),
        ({"scorer": {"engine": "transformers"}, "rewriter": {"engine": "transformers"}}, 1, True, "ok"),
        ({"rewriter": {"engine": "vllm"}}, 0, True, "missing"),
        ({"scorer": {"tensor_parallel": 2}}, 2, True, "missing"),
        ({"rewriter": {"engine": "vllm"}}, 0, False, "warning"),
    ],
)
def test_vllm_is_needed_where_it_is_named(
    settings: dict[str, object], gpus: float, local: bool, state: str
) -> None:
    assert findings.of_vllm(config(**settings), None, gpus=gpus, local=local).state == state
    assert findings.of_vllm(config(**settings), "0.32", gpus=gpus, local=local).state == "ok"


def test_the_openai_package_is_needed_where_a_server_is_asked() -> None:
    assert findings.of_openai(config(), None).state == "ok"
    for settings in (
        {"rewriter": {"engine": "openai"}},
        {"evaluation": {"judge": {"model": "gpt"}}},
        {"evaluation": {"evaluator": {"model": "gpt"}}},
    ):
        found = findings.of_openai(config(**settings), None)
        assert (found.state, found.advice) == ("missing", "pip install 'pmpo-ray[openai]'")


def test_a_key_is_missing_only_where_the_server_wants_one() -> None:
    name, settings = "scorer.endpoint", EndpointConfig()

    def found(url: str, *, has_key: bool, local: bool = True) -> Finding:
        return findings.of_endpoint(name, url, settings, 404, has_key=has_key, local=local)

    assert found("https://api.openai.com/v1", has_key=True).state == "ok"
    assert found("https://api.openai.com/v1", has_key=False).state == "missing"
    assert found("https://api.openai.com/v1", has_key=False, local=False).state == "warning"
    assert found("http://127.0.0.1:8000/v1", has_key=False).state == "ok"


def test_replicas_need_room() -> None:
    assert findings.of_replicas(config(), CPUS).state == "ok"
    crowded = findings.of_replicas(config(scorer={"replicas": 9}), CPUS)
    assert (crowded.state, crowded.advice.split(",")[0]) == ("missing", "lower replicas or cpus")
    growing = config(scorer={"replicas": 9, "gpus": 0}, rewriter={"gpus": 0}, ray={"autoscaling": True})
    assert findings.of_replicas(growing, CPUS).state == "ok"
    assert findings.of_replicas(config(scorer={"device": "cuda"}), CPUS).state == "missing"


def test_ray_works_here_and_no_cluster_is_where_none_is() -> None:
    assert inspect_local_ray() == ""
    assert "no Ray cluster answers at 127.0.0.1:9" in str(inspect_cluster("127.0.0.1:9"))


def test_tasks_of_the_hub_are_asked_for_only_where_the_hub_is() -> None:
    settings = config(tasks=["tickets", "gsm8k"])
    report = TaskReport(1, not_cached="hub data set x: not cached; set data_dir")
    assert findings.of_tasks(settings, report, hub=True).state == "warning"
    lost = findings.of_tasks(settings, report, hub=False)
    assert (lost.state, lost.found, lost.advice) == ("missing", "hub data set x: not cached", "set data_dir")
    assert findings.of_tasks(settings, TaskReport(2), hub=False).state == "ok"
    assert findings.of_tasks(settings, "no answer", hub=True).state == "warning"


def test_tasks_are_made_ready(data_dir: Path) -> None:
    ask = config(tasks=["tickets", "bbh/causal_judgement"], data_dir=str(data_dir))
    assert BoundedCall(inspect_tasks, ask, seconds=120).result() == TaskReport(2)
    unknown = BoundedCall(inspect_tasks, config(tasks=["bbh/casual_judgement"]), seconds=120).result()
    assert "did you mean bbh/causal_judgement" in unknown.problem


def test_a_hub_that_refuses_cannot_be_used() -> None:
    refusing = HubReport("https://hub", 403, ())
    assert findings.of_hub(refusing, needed=True).state == "warning"
    assert findings.of_hub(refusing, needed=False).state == "ok"
    assert "answers" in findings.of_hub(HubReport("https://hub", 200, ()), needed=True).found


def test_models_elsewhere_are_a_clusters_own_business() -> None:
    lost = ModelReport(None, "model 'a/b': nowhere; give a local folder")
    assert findings.of_model(("a/b", None, False), lost, local=True).state == "missing"
    assert findings.of_model(("a/b", None, False), lost, local=False).state == "warning"
    assert findings.of_model(("a/b", None, False), ModelReport("here"), local=True).state == "ok"


def test_a_model_on_the_hub_can_be_downloaded_before_the_run() -> None:
    found = findings.of_model(("a/b", None, False), ModelReport("on the hub"), local=True)
    assert (found.state, found.advice.partition(": ")[2]) == ("warning", "hf download a/b")
    found = findings.of_model(("a/b", "v 2", False), ModelReport("on the hub"), local=True)
    assert found.advice.endswith(": hf download a/b --revision 'v 2'")


def test_little_space_is_a_warning() -> None:
    assert findings.of_disk({"runs": 10**9, "models": 10**12}).state == "warning"
    assert findings.of_disk({"runs": 10**12}).state == "ok"


def test_packages_that_are_needed_are_named() -> None:
    found = findings.of_packages({"python": "3.11.0", "torch": "2.6"})
    assert found.state == "missing"
    assert "not installed: transformers, ray, datasets, pyarrow" in found.found


def test_findings_are_shown_and_never_interpreted() -> None:
    stream = io.StringIO()
    hostile = "[red]x[/red] \x1b[2J\u202e :smile:"
    show_findings(
        [Finding("model", "missing", hostile, hostile), Finding("machine", "ok", "2 of 2 cores")],
        Console(file=stream, width=80),
    )
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"[red]x[/red] \x1b[2J\u202e :smile:" in shown
    assert shown.splitlines()[-1] == "1 ok, 1 missing"


def test_a_machine_is_told_as_it_is() -> None:
    found = findings.of_machine(Machine(1.5, 8, 4 * 10**9, "avx512_bf16")).found
    assert (
        found
        == "1.5 of 8 cores, 4.0 GB of usable memory; dtype auto on the processor: bfloat16 (avx512_bf16)"
    )
    assert "dtype auto on the processor: float32" in findings.of_machine(Machine(1.5, 8, 4 * 10**9)).found


def test_a_gpu_that_only_emulates_bfloat16_is_told() -> None:
    old = Gpu("NVIDIA T4", 16 * 10**9, bfloat16=False)
    assert "dtype auto: float32" in findings.of_gpus(GpuReport((H100, old), "1", "2"), needed=True).found
    assert "dtype auto: bfloat16" in findings.of_gpus(GpuReport((H100,), "1", "2"), needed=True).found
