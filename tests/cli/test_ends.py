"""How a run ends that is not left to finish: by signals, with a lost Ray, with an output that cannot be
written. Real processes, real Ray, simulated models."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_ray_jobs import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "scorer.engine": "simulated",
    "rewriter.engine": "simulated",
    "ray.num_cpus": "2",
    "evaluation.limit": "20",
}


def words(run_dir: Path, pace: int, rounds: int = 2) -> list[str]:
    options = {**OPTIONS, "model": f"simulated:tokens_per_s={pace}", "search.rounds": str(rounds)}
    settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
    return [
        *(sys.executable, "-m", "pmpo_ray", "optimize", "configs/quickstart.yaml"),
        *settings,
        *("--run-dir", str(run_dir)),
    ]


def environment(**changes: str) -> dict[str, str]:
    """As a user's: with Ray's default authentication."""
    return {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | changes


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A run in a session of its own, as in a terminal; it is killed if the test leaves it behind."""
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        running.kill()


def members(session: int) -> list[tuple[int, str]]:
    """The live processes of a session: the command, Ray and its workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            name, _, fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")
            state, _, _, sid = fields.split()[:4]
            if int(sid) == session and state != "Z":
                found.append((int(folder.name), name.partition("(")[2]))
    return found


def left_behind(session: int) -> list[tuple[int, str]]:
    """The processes of a session that outlive its command by more than some seconds."""
    for _ in range(200):
        if not members(session):
            break
        time.sleep(0.1)
    return members(session)


def last_line(stderr: str) -> str:
    assert "Traceback" not in stderr
    return stderr.splitlines()[-1]


def test_sigterm_thrice_while_ray_starts(tmp_path: Path) -> None:
    with started(words(tmp_path / "run", 10**9)) as running:
        wait_for(running, "waiting")
        while "gcs_server" not in [name for _, name in members(running.pid)]:
            time.sleep(0.05)
            assert running.poll() is None
        for pause in (0.3, 0.3, 0.0):
            running.send_signal(signal.SIGTERM)
            time.sleep(pause)
        stdout, stderr = running.communicate(timeout=120)
        assert (running.returncode, stdout) == (143, "")
        advice = f"continue with: pmpo optimize --run-dir {tmp_path}/run"
        assert last_line(stderr) == f"interrupted by SIGTERM; {advice}"
        assert left_behind(running.pid) == []


def test_a_terminal_that_closes_ends_the_run_without_a_trace(tmp_path: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run where it is ignored
        os.execve(sys.executable, words(tmp_path / "run", 20_000), environment())  # noqa: S606
    shown = b""
    while b"scoring" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert left_behind(process) == []
    assert not (tmp_path / "run" / "lease.json").exists()


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_dies_ends_the_run_with_one_line(name: str, tmp_path: Path) -> None:
    with started(words(tmp_path / "run", 20_000)) as running:
        wait_for(running, "scoring")
        time.sleep(0.5)
        [victim] = [process for process, its_name in members(running.pid) if its_name == name]
        os.kill(victim, signal.SIGKILL)
        stdout, stderr = running.communicate(timeout=120)
        assert (running.returncode, stdout) == (2, ""), stderr
        assert last_line(stderr) == (
            f"error: the process {name} of Ray on this machine has died, perhaps for want of memory or disk; "
            "finished rounds are kept: continue with the same command, with fewer replicas if it happens "
            "again"
        )
        assert left_behind(running.pid) == []


def test_a_result_that_cannot_be_shown_is_kept_and_no_home_is_needed(tmp_path: Path) -> None:
    command = shlex.join(words(tmp_path / "run", 10**9, rounds=1))
    done = subprocess.run(
        ["bash", "-c", f"{command} > /dev/full"],
        cwd=ROOT,
        env=environment(HOME="/proc/none"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert last_line(done.stderr) == (
        "error: standard output cannot be written: No space left on device; the run is finished; show its "
        f"result with: pmpo show {tmp_path}/run"
    )
    shown = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "show", str(tmp_path / "run")],
        cwd=ROOT,
        env=environment(HOME="/proc/none"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "code", "expected"),
    [
        ("> /dev/full", 2, "error: standard output cannot be written: No space left on device"),
        (">&-", 2, "error: standard output cannot be written: it is closed"),
        (">&- <&-", 2, "error: standard output cannot be written: it is closed"),
        (">&- 2>&-", 2, ""),
        ("2>&-", 0, ""),
        ("2> /dev/full", 0, ""),
        ("| true", 1, ""),
    ],
)
def test_output_that_cannot_be_written_is_one_line_or_none(
    redirection: str, code: int, expected: str
) -> None:
    script = f"set -o pipefail; {sys.executable} -m pmpo_ray tasks {redirection}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert done.stderr == (f"{expected}; write it elsewhere\n" if expected else "")


def test_a_ray_that_starts_too_slowly_ends_the_run_with_one_line(tmp_path: Path) -> None:
    """Ray waits for its own node for half a minute, and then raises nothing more special than Exception."""
    late = "raise Exception('The current node timed out during startup.')"
    program = f"import sys, ray\ndef init(**_):\n    {late}\nray.init = init\n"
    program += "from pmpo_ray.cli.main import main\nmain()\n"
    words_of_run = words(tmp_path / "run", 10**9)[3:]
    done = subprocess.run(
        [sys.executable, "-c", program, *words_of_run],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    told = "error: Ray cannot be started on this machine (The current node timed out during startup); start"
    assert last_line(done.stderr).startswith(told)
