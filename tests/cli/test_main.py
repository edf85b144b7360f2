"""The `pmpo` command in its own process, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "transformers", "datasets", "pandas", "pyarrow", "numpy")
SIMULATED = (
    "--set",
    "scorer.engine=simulated",
    "--set",
    "scorer.role=both",
    "--set",
    "ray.num_cpus=2",
    "--set",
    "search.operators=[rewrite, compose]",
)
RESULT_KEYS = {
    "p_value",
    "task",
    "rounds",
    "loss_before",
    "loss_after",
    "accuracy_before",
    "accuracy_after",
    "accuracy_before_interval",
    "accuracy_after_interval",
    "labels_before",
    "labels_after",
    "n_test",
    "held_out",
    "too_long",
    "tokens_scored",
    "tokens_prompted",
    "tokens_generated",
    "seconds",
    "best",
    "shots",
    "prompt_before",
    "prompt_after",
    "biases",
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pmpo_ray", *arguments]


def pmpo(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does: with Ray's default authentication."""
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def pace(tokens_per_s: int) -> tuple[str, str]:
    return "--set", f"model=simulated:tokens_per_s={tokens_per_s}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([name, "--help"] for name in ("optimize", "plan", "tasks", "show", "compare", "doctor")),
    ],
)
def test_help_and_version_load_no_heavy_library(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from pmpo_ray.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    print('loaded:', *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "loaded:\n")
    assert "pmpo" in done.stdout


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pmpo("--version").stdout == f"pmpo {project['version']}\n"


def test_help_names_every_option() -> None:
    shown = pmpo("optimize", "--help").stdout
    for option in ("CONFIG", "--set KEY=VALUE", "--run-dir DIR", "--json", "--log-format <text|json>"):
        assert option in shown
    assert "--data-dir DIR" in pmpo("tasks", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing command; see pmpo --help"),
        (["optimise"], "No such command 'optimise'. Did you mean 'optimize'?; see pmpo --help"),
        (["optimize", "--bogus"], "No such option: --bogus; see pmpo --help"),
        (
            ["optimize"],
            "no configuration: name a YAML file, or an existing run folder with --run-dir",
        ),
        (
            ["optimize", "absent/a.yaml"],
            "absent/a.yaml: no such file; there is no folder absent; check the path",
        ),
        (
            ["optimize", "ab\nsent/two\nlines\x1b[31m.yaml"],
            r"ab sent/two lines\x1b[31m.yaml: no such file; there is no folder ab sent; check the path",
        ),
        (
            ["optimize", "configs/quickstart.yaml", "--set", "search.roundz=3"],
            "--set search.roundz=3: search.roundz: unknown key; did you mean search.rounds?",
        ),
        (
            ["optimize", "configs/quickstart.yaml", "--set", "seed=x", "--json"],
            "--set seed=x: seed: should be a whole number, not the text 'x'",
        ),
        (["plan"], "Missing argument 'CONFIG'; see pmpo --help"),
        (
            ["plan", "configs/quickstart.yaml", "--price", "nan"],
            "--price nan: give the price of a million tokens, 0 or more",
        ),
        (
            ["plan", "configs/quickstart.yaml", "--price-generated", "1"],
            "--price-generated needs --price, the price of the tokens that are read; add it",
        ),
        (
            ["plan", "configs/quickstart.yaml", "--set", "budget=vast", "--json"],
            "--set budget=vast: budget.level: should be 'light', 'medium' or 'heavy', not the text 'vast'",
        ),
        (
            ["tasks", "--data-dir", "/nonexistent"],
            "/nonexistent: no such folder; set data_dir to the folder with the benchmark files",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], expected: str) -> None:
    done = pmpo(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {expected}\n"


def test_errors_show_no_secrets() -> None:
    done = pmpo("optimize", "s3://user:pass@bucket/hunter2hunter2.yaml", SOME_KEY="hunter2hunter2")
    assert (
        done.stderr == "error: s3://***@bucket/***.yaml: no such file; name a file on this machine's disk\n"
    )
    assert done.returncode == 2


def test_in_json_an_error_is_one_object() -> None:
    done = pmpo(
        "optimize", "absent/two\nlines hunter2hunter2.yaml", "--log-format", "json", SOME_KEY="hunter2hunter2"
    )
    assert (done.returncode, done.stdout) == (2, "")
    entry = json.loads(done.stderr)
    assert set(entry) == {"time", "level", "logger", "event"}
    assert entry["level"] == "error"
    assert entry["event"].startswith("absent/two\nlines ***.yaml: no such file; there is no folder absent")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_that_nobody_reads_is_still_an_error(log_format: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("optimize", "absent.yaml", "--log-format", log_format),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=writing,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_closed_standard_error_changes_nothing(log_format: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m pmpo_ray optimize absent.yaml --log-format {log_format} 2>&-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_errors_of_a_run_are_one_line_too(tmp_path: Path) -> None:
    for overrides in (["tasks=[nonsense]"], ["tasks.0.path=absent.csv"], ["search.objective=nonsense"]):
        arguments = [part for override in overrides for part in ("--set", override)]
        done = pmpo("optimize", "configs/quickstart.yaml", *arguments, "--run-dir", str(tmp_path / "run"))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_folder_without_a_run_cannot_be_continued(tmp_path: Path) -> None:
    done = pmpo("optimize", "--run-dir", str(tmp_path))
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_tasks_lists_names_rows_and_kinds(data_dir: Path) -> None:
    done = pmpo("tasks", "--data-dir", str(data_dir), "--json")
    listed = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(set(item) == {"task", "rows", "kind"} for item in listed)
    assert {"task": "bbh/navigate", "rows": 250, "kind": "options"} in listed
    assert sum(item["task"].startswith("bbh/") for item in listed) == 27
    table = pmpo("tasks", "--data-dir", str(data_dir)).stdout.splitlines()
    assert [line.split() for line in table] == [
        ["task", "rows", "kind"],
        *([item["task"], str(item["rows"]), item["kind"]] for item in listed),
    ]


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m pmpo_ray tasks | true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_json_is_all_of_standard_output(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = pmpo(
        "optimize",
        "configs/quickstart.yaml",
        *SIMULATED,
        *pace(10**9),
        "--set",
        "search.rounds=1",
        "--set",
        "evaluation.limit=100",
        "--run-dir",
        str(run_dir),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    printed = json.loads(done.stdout)
    assert set(printed) == {"run_dir", "tasks", "failed"}
    assert Path(printed["run_dir"]) == run_dir
    (task,) = printed["tasks"]
    assert set(task) == RESULT_KEYS
    assert (task["task"], task["rounds"]) == ("tickets", 1)
    assert task["loss_after"] <= task["loss_before"]
    assert task["n_test"] == 100
    assert "tickets  round 1/1" in done.stderr


def test_a_plan_in_json_is_all_of_standard_output_and_nothing_is_written(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    replicas = ("--set", "scorer.replicas=2", "--set", "scorer.min_replicas=1")
    arguments = [
        "configs/quickstart.yaml",
        *SIMULATED,
        *pace(10**6),
        *replicas,
        "--set",
        f"run_dir={run_dir}",
    ]
    done = pmpo("plan", *arguments, "--json", "--price", "2", "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    printed = json.loads(done.stdout)
    assert [search["task"] for search in printed["searches"]] == ["tickets"]
    assert printed["at_most"]["total"] >= printed["typical"]["total"] > printed["searches"][0]["text"]
    assert printed["at_most"]["price"] == pytest.approx(printed["at_most"]["total"] * 2e-6)
    assert printed["at_most"]["seconds"] > 0
    [remark] = printed["notes"]
    assert remark.startswith("1 scorer replica was measured; a run has up to 2")
    assert not run_dir.exists()
    assert all(json.loads(line)["event"] for line in done.stderr.splitlines())


def test_with_the_log_in_json_standard_error_is_objects_alone(tmp_path: Path, ray_cluster: str) -> None:
    there = {"RAY_ADDRESS": ray_cluster, "RAY_AUTH_MODE": "disabled"}
    done = pmpo(
        "optimize",
        "configs/quickstart.yaml",
        *SIMULATED,
        *pace(10**9),
        "--set",
        "search.rounds=1",
        "--set",
        "evaluation.enabled=false",
        "--run-dir",
        str(tmp_path / "run"),
        "--log-format",
        "json",
        **there,
    )
    assert done.returncode == 0, done.stderr
    assert "instruction after" in done.stdout
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "event"} <= set(entry) for entry in entries)
    progress = [entry for entry in entries if entry["logger"] == "pmpo_ray.progress"]
    assert [(entry["state"], entry["round"]) for entry in progress] == [
        ("waiting", 0),
        ("scoring", 0),
        ("masking", 1),
        ("rewriting", 1),
        ("scoring", 1),
        ("done", 1),
    ]
    assert {(entry["task"], entry["rounds"]) for entry in progress} == {("tickets", 1)}
    assert progress[0]["loss"] is None
    assert progress[-1]["loss"] <= progress[2]["loss"]
    assert progress[-1]["tokens_scored"] > progress[2]["tokens_scored"] > 0
    assert progress[-1]["tokens_generated"] > 0


@pytest.mark.parametrize(("how", "by", "times"), [(signal.SIGINT, "", 3), (signal.SIGTERM, " by SIGTERM", 1)])
def test_ctrl_c_or_a_scheduler_leaves_a_run_that_continues(
    how: signal.Signals, by: str, times: int, ray_cluster: str, tmp_path: Path
) -> None:
    run_dir = tmp_path / "a run"
    arguments = ("optimize", "configs/quickstart.yaml", *SIMULATED, "--set", "search.rounds=2")
    words = command(*arguments, *pace(100_000), "--run-dir", str(run_dir))
    if how is signal.SIGTERM:
        # Shells have jobs in the background ignore Ctrl-C.
        words = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *words]
    running = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    lines = []
    for line in running.stderr:
        lines.append(line)
        if "round 1/2" in line:
            break
    assert running.poll() is None, lines
    for _ in range(times):
        if how is signal.SIGINT:
            os.killpg(running.pid, how)  # as a terminal does: to every process of the command
        else:
            running.send_signal(how)
        time.sleep(0.1)
    stdout, stderr = running.communicate(timeout=120)
    assert (running.returncode, stdout) == (128 + how, "")
    assert stderr.splitlines()[-1] == f"interrupted{by}; continue with: pmpo optimize --run-dir '{run_dir}'"
    assert "Traceback" not in stderr

    there = {"RAY_ADDRESS": ray_cluster, "RAY_AUTH_MODE": "disabled"}
    continued = pmpo("optimize", "--run-dir", str(run_dir), **there)
    assert continued.returncode == 0, continued.stderr
    shown = " ".join(continued.stdout.split())
    assert "2 rounds (stopped by: rounds)" in shown
    assert str(run_dir) in continued.stdout
