"""The processor time that `pmpo show` takes on a run with many evaluated tasks.

    python -m benchmarks.show [--tasks 27] [--rounds 20] [--instructions 7] [--examples 200] [--calls 5]

The run is that of `benchmarks.report`, with an evaluation of `--instructions` instructions on `--examples`
held-out examples per task, losses included. A figure is the median over new processes of their user and
system time, from a warm disk.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import write_run
from benchmarks.scheduling.work import SHAPES
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome
from pmpo_ray.store import RunStore
from pmpo_ray.store.kept_config import kept_config

INSTRUCTIONS = ("start", "best", "answer_only", "step_by_step", "rephrase", "step_back", "description")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=len(SHAPES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--instructions", type=int, default=len(INSTRUCTIONS), help="2 to 7 of a task")
    parser.add_argument("--examples", type=int, default=200, help="held-out examples of a task")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the run there")
    parser.add_argument("--json", type=Path, help="also write the row to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(arguments.folder or Path(temporary) / "run")
        write_run(Path(folder), arguments.tasks, arguments.rounds)
        write_evaluation(folder, INSTRUCTIONS[: arguments.instructions], arguments.examples)
        task = list(kept_config(folder).named_searches())[-1]
        row = {
            "overview_s": seconds(["show", folder], arguments.calls),
            "task_s": seconds(["show", folder, task], arguments.calls),
            "overview_json_s": seconds(["show", folder, "--json"], arguments.calls),
            "task_json_s": seconds(["show", folder, task, "--json"], arguments.calls),
            "version_s": seconds(["--version"], arguments.calls),
        }
    print("  ".join(row))
    print("  ".join(f"{value:>{len(name)}.2f}" for name, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row], indent=1) + "\n")


def write_evaluation(folder: str, names: Sequence[str], examples: int) -> None:
    """Put an evaluation of each task's start, best and other instructions into a run folder."""
    store = RunStore.open(folder)
    results = []
    for task in kept_config(folder).named_searches():
        draw = random.Random(task)
        run = store.read_task_result(task)
        if run is None:
            raise ValueError(f"task {task} is not finished")
        texts = {"start": run.start, "best": run.best}
        for name in names:
            chance = 0.4 + (0.3 * draw.random() if name == "best" else 0.0)
            outcomes = tuple(
                Outcome(str(n), draw.random() < chance, "x", loss=2 * draw.random()) for n in range(examples)
            )
            condition = Condition(task, "simulated", name, texts.get(name, name), 0, 0, "likelihood")
            results.append(ConditionResult(condition, outcomes))
    store.write_evaluation(results)


def seconds(arguments: Sequence[str], calls: int) -> float:
    """The median processor time, in seconds, of `pmpo` with these arguments."""
    return round(median(_processor_time(arguments) for _ in range(calls)), 3)


def _processor_time(arguments: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pmpo_ray", *arguments]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
