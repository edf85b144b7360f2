"""One run of one contestant: a process with a job file, whose result is kept in the folder of the runs.

Invariants: a contestant is a command that is called with the paths of a job and of its outcome, whoever wrote
it; a kept run is used again only if its job was the same; a contestant that fails keeps nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job
from benchmarks.peers.proxy import Account
from benchmarks.peers.server import end_group
from pmpo_ray.errors import PmpoError

_ROOT = Path(__file__).parents[2]
_LIMIT_SECONDS = 6 * 3600.0
"""A contestant that takes longer hangs: the budgets suffice for less than an hour on two cores."""


class ContestantError(PmpoError):
    """A contestant failed."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A contestant and the command that runs it, without the two files at its end."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A contestant's result. `tokens` are all that count: those of the proxy, and those that the contestant
    adds because it computed them itself. `seconds` are of the whole process."""

    contestant: str
    job: Mapping[str, Any]
    outcome: Mapping[str, Any]
    account: Mapping[str, Any]
    tokens: int
    seconds: float

    @property
    def stopped(self) -> str:
        """Why it stopped."""
        reason = "budget" if self.account["spent"] else "finished"
        return str(self.outcome.get("stopped", reason))

    @property
    def shots(self) -> list[dict[str, str]]:
        """The demonstrations of the winner."""
        return list(self.outcome.get("shots", ()))


def run_name(contestant: str, task: str, seed: int, budget: int) -> str:
    return f"{task}-{contestant}-{budget}-{seed}"


def finished(folder: Path, contestant: Contestant, job: Job) -> FinishedRun | None:
    """The kept run of this job; None if there is none."""
    file = _file(folder, contestant.name, job)
    if not file.exists():
        return None
    kept = FinishedRun(**json.loads(file.read_text(encoding="utf-8")))
    return kept if kept.job == _described(job) else None


def run(folder: Path, contestant: Contestant, job: Job, account: Account) -> FinishedRun:
    """Run a contestant, whose requests are counted in `account`, and keep its result. Raises ContestantError
    if it fails."""
    work = Path(job.folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    job.write(work / "job.json")
    began = time.monotonic()
    _call(contestant, work)
    seconds = time.monotonic() - began
    outcome = _outcome(work)
    done = FinishedRun(
        contestant=contestant.name,
        job=_described(job),
        outcome=outcome,
        account=account.document(),
        tokens=account.tokens.total() + int(outcome.get("own_tokens", 0)),
        seconds=round(seconds, 1),
    )
    values = {name: getattr(done, name) for name in FinishedRun.__slots__}
    _file(folder, contestant.name, job).write_text(
        json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return done


def _file(folder: Path, contestant: str, job: Job) -> Path:
    return folder / f"{run_name(contestant, job.task, job.seed, job.budget)}.json"


def _described(job: Job) -> dict[str, Any]:
    """What a result depends on: the job without addresses, which differ from time to time."""
    return {
        "description": job.description,
        "start": job.start,
        "labels": list(job.labels),
        "train": [[row.input, row.target] for row in job.train],
        "weights": job.weights,
        "answering": dict(job.answering),
        "rewriting": dict(job.rewriting),
    }


def _call(contestant: Contestant, work: Path) -> None:
    """Run the contestant's process to its end. Raises ContestantError."""
    log = work / "log.txt"
    files = [str(work / "job.json"), str(work / "outcome.json")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*contestant.command, *files],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ContestantError(f"no end within {_LIMIT_SECONDS:,.0f} seconds; see {log}") from error
        finally:
            end_group(process)
    if code != 0:
        raise ContestantError(f"exit code {code}: {_last_line(log)}; see {log}")


def _environment() -> dict[str, str]:
    """The environment of contestants: requests to this machine pass no proxy of a network, and a Ray cluster
    that runs already is left alone."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    path = os.pathsep.join(filter(None, (str(_ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def _outcome(work: Path) -> dict[str, Any]:
    """The outcome that the contestant wrote. Raises ContestantError if it has none."""
    try:
        outcome = json.loads((work / "outcome.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContestantError(f"wrote no outcome ({error}); see {work / 'log.txt'}") from error
    if not isinstance(outcome, dict) or not isinstance(outcome.get("instruction"), str):
        raise ContestantError(f"its outcome has no instruction; see {work / 'outcome.json'}")
    return outcome


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing was printed"


def commands(
    names: Sequence[str], external: Mapping[str, Sequence[str]], own: str, peers: str | None
) -> list[Contestant]:
    """The contestants by name: those of this package, with the Python `own` or, if their library is not the
    project's, `peers`, and the external programs."""
    found = []
    for name in names:
        python = own if name.startswith("pmpo") else peers
        assert python is not None
        found.append(Contestant(name, (python, "-m", "benchmarks.peers.contestants", name)))
    found += [Contestant(name, tuple(command)) for name, command in external.items()]
    return found
