"""Does pmpo_ray find better instructions than other optimizers, for the same tokens?

    python -m benchmarks.peers --data-dir DIR --python PATH [--server URL] [--budget 100000 30000]
        [--seeds 0 1 2] [--task NAME ...] [--contestant NAME ...] [--external NAME=COMMAND ...]
        [--held-out 400] [--runs FOLDER] [--json FILE]

Every contestant gets the same 40 training rows, start instruction, description, model, sampling, answer
rule and token budget (benchmarks/README.md has the rules). Contestants run one after the other, each in a
process of its own, behind one proxy that counts tokens and refuses more than the budget. One evaluator
measures the winners on the same held-out rows, outside of the budget. Without --server it starts vLLM on this
machine's processors, and ends it.

The peers' libraries are read from the environment of the Python at --python. --external adds a program of
yours: it is called as `COMMAND JOB.json OUTCOME.json` (`benchmarks.peers.job`). Runs that are finished in
FOLDER are not repeated. A contestant that fails is named with its error and has no figures.

Prints a table for every budget and task with the winners' texts, the means over seeds, and the differences
between pmpo_ray and the best of the others. The file of --json gets a row per run, and keeps its other rows.
The exit code is 1 if a contestant failed, 2 for arguments, data or a server that can't be used.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import FrameType

from benchmarks.packaged_models import QWEN, available_model
from benchmarks.peers.answering import Evaluator, Measured
from benchmarks.peers.contestants.__main__ import MODULES
from benchmarks.peers.job import ANSWERING, REWRITING, Job
from benchmarks.peers.proxy import Proxy
from benchmarks.peers.running import (
    Contestant,
    ContestantError,
    FinishedRun,
    commands,
    finished,
    run,
    run_name,
)
from benchmarks.peers.server import served_model, vllm_server
from benchmarks.peers.tables import OURS, Row, against_best_peer, means, row_of, summary, tables, write
from benchmarks.peers.tasks import HELD_OUT_ROWS, TASKS, PeerTask, peer_task
from pmpo_ray.errors import PmpoError


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)
    contestants = commands(arguments.contestant, dict(arguments.external), sys.executable, arguments.python)
    try:
        tasks = [peer_task(name, arguments.data_dir, arguments.held_out) for name in arguments.task]
        with _server(arguments) as (url, weights), Proxy(url) as proxy:
            comparison = Comparison(url, weights, proxy, arguments.runs)
            rows, errors = comparison.results(tasks, contestants, arguments.budget, arguments.seeds)
    except PmpoError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n\n".join([tables(rows), means(rows), summary(against_best_peer(rows))]))
    for line in errors:
        print(f"failed: {line}", file=sys.stderr)
    if arguments.json is not None:
        write(arguments.json, [{**row, "model": arguments.model} for row in rows])
    sys.exit(1 if errors else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", help="folder of the benchmark files (default: the hub)")
    parser.add_argument("--model", default=QWEN.name, help="the model that answers and rewrites")
    parser.add_argument("--server", help="address of a server with the model, such as http://HOST:8000/v1")
    parser.add_argument("--python", help="the Python of the environment with the peers' libraries")
    parser.add_argument("--budget", type=_positive, nargs="+", default=[100_000, 30_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--contestant", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--external", nargs="+", type=_external, default=[], metavar="NAME=COMMAND")
    parser.add_argument("--held-out", type=_positive, default=HELD_OUT_ROWS, help="held-out rows")
    parser.add_argument("--runs", type=Path, default=Path("runs/peers"))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if arguments.python is None and set(arguments.contestant) - set(OURS):
        parser.error("name the Python that has the peers' libraries (--python), or --contestant pmpo alone")
    if arguments.python is not None and shutil.which(arguments.python) is None:
        parser.error(f"--python: {arguments.python} is no program; name the Python of the environment")
    return arguments


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} should be at least 1")
    return number


def _external(text: str) -> tuple[str, list[str]]:
    name, _, command = text.partition("=")
    if not re.fullmatch(r"[a-z0-9_]+", name) or name in MODULES or not command.strip():
        raise argparse.ArgumentTypeError(f"{text!r} should be NAME=COMMAND with a new name such as my_own")
    return name, shlex.split(command)


def _end(number: int, _: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C, so that the server and the contestant end, too."""
    sys.exit(128 + number)


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The address of the server and the model's folder, or its name on the hub."""
    weights = available_model(arguments.model)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    if arguments.server is not None:
        yield arguments.server.rstrip("/"), weights
        return
    with vllm_server(weights, arguments.runs / "vllm.log") as url:
        yield url, weights


class Comparison:
    """The runs of all contestants with one server, kept in a folder."""

    def __init__(self, url: str, weights: str, proxy: Proxy, folder: Path) -> None:
        self._url = url
        self._weights = weights
        self._proxy = proxy
        self._folder = folder
        self._model = served_model(url)
        self._evaluator = Evaluator(url, self._model, weights, folder / "answers")

    def results(
        self,
        tasks: Sequence[PeerTask],
        contestants: Sequence[Contestant],
        budgets: Sequence[int],
        seeds: Sequence[int],
    ) -> tuple[list[Row], list[str]]:
        """A row for every run, and the errors of those that failed. Raises ServerError if the server ends."""
        baselines = {task.name: self._baselines(task) for task in tasks}
        rows, errors = [], []
        # Seed by seed: a comparison that is stopped has all contestants with equal numbers of searches.
        for seed, budget, task, contestant in product(seeds, budgets, tasks, contestants):
            name = run_name(contestant.name, task.name, seed, budget)
            try:
                done = self._run(contestant, self._job(name, task, seed, budget), name)
            except ContestantError as error:
                errors.append(f"{name}: {error}")
                continue
            found = self._evaluator.measure(task, done.outcome["instruction"], done.shots)
            rows.append(row_of(done, task.name, seed, budget, found, baselines[task.name]))
            print(_progress(name, rows[-1]), file=sys.stderr, flush=True)
        order = [
            (budget, task.name, contestant.name)
            for budget, task, contestant in product(budgets, tasks, contestants)
        ]
        rows.sort(key=lambda row: order.index((row["budget"], row["task"], row["contestant"])))
        return rows, errors

    def _baselines(self, task: PeerTask) -> Mapping[str, Measured]:
        return {
            "start": self._evaluator.measure(task, task.start),
            "description": self._evaluator.measure(task, task.description),
        }

    def _job(self, name: str, task: PeerTask, seed: int, budget: int) -> Job:
        return Job(
            task=task.name,
            description=task.description,
            labels=task.labels,
            start=task.start,
            train=task.training_rows(seed),
            seed=seed,
            budget=budget,
            model=self._model,
            weights=self._weights,
            task_url=self._proxy.url(name, "task"),
            rewriter_url=self._proxy.url(name, "rewriter"),
            account_url=self._proxy.account_url(name),
            folder=str((self._folder / name).resolve()),
            answering=ANSWERING,
            rewriting=REWRITING,
        )

    def _run(self, contestant: Contestant, job: Job, name: str) -> FinishedRun:
        """The kept run, or a new one."""
        kept = finished(self._folder, contestant, job)
        if kept is not None:
            return kept
        # A server that has ended would fail all contestants that are left.
        served_model(self._url)
        return run(self._folder, contestant, job, self._proxy.open(name, job.budget))


def _progress(name: str, row: Row) -> str:
    return (
        f"{name}: {row['accuracy']:.1%} (start {row['accuracy_start']:.1%}), {row['tokens']:,} tokens, "
        f"{row['seconds']:,.0f} s, stopped by {row['stopped']}"
    )


if __name__ == "__main__":
    main()
