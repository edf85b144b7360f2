"""The utilisation of replicas by the driver.

    python -m benchmarks.scheduling --quick          the rows in virtual time, under a minute
    python -m benchmarks.scheduling --json FILE      those, 1,000 tasks on 256 replicas, and real Ray actors

27 tasks of the shapes of BIG-Bench Hard, 20 rounds each with 13 candidates on 50 examples, from the product's
search and pools over the simulated engine. The lower bound is the maximum of: the scoring work over the
scorers, the rewriting work over the rewriters' slots, and the longest chain of rounds that wait for each
other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from benchmarks.scheduling.ledger import Row
from benchmarks.scheduling.modes import Load, on_ray, virtual

REPLICAS = (1, 8, 64, 256)
ROUNDS = 20
RAY_SECONDS = 150.0
"""The target duration of the work on real actors: their speed follows from their number."""
_ROW_SECONDS = 1800
_COLUMNS = {
    "mode": 10,
    "tasks": 5,
    "replicas": 8,
    "makespan_s": 10,
    "lower_bound_s": 13,
    "ratio": 7,
    "idle_share": 10,
    "driver_ms_per_unit": 18,
    "driver_rss_mb": 13,
    "rounds": 6,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what runs in virtual time, 27 tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of each task")
    parser.add_argument("--row", metavar="MODE:TASKS:REPLICAS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(asdict(_row(options.row, options.rounds))))
        return
    _print_titles()
    names = [f"virtual:27:{count}" for count in REPLICAS] + ["sequential:27:8"]
    rows = _measured(names, options.rounds, at_once=2)
    if not options.quick:
        rows += _measured(["sequential:27:64"], options.rounds, at_once=1)
        rows += _measured(["virtual:1000:256"], max(1, options.rounds // 4), at_once=1)
        rows += _measured(["ray:27:8", "ray:27:24"], options.rounds, at_once=1)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _measured(names: Sequence[str], rounds: int, *, at_once: int) -> list[dict[str, object]]:
    """The rows of these names, each from a separate process, so that memory is measured separately."""

    def child(name: str) -> dict[str, object]:
        command = [sys.executable, "-m", "benchmarks.scheduling", "--row", name, "--rounds", str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ROW_SECONDS, check=False)
        if done.returncode != 0:
            sys.exit(f"the row {name} failed:\n{done.stderr}")
        row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return row

    rows = []
    with ThreadPoolExecutor(at_once) as children:
        for row in children.map(child, names):
            print("  ".join(f"{row[name]!s:>{width}}" for name, width in _COLUMNS.items()), flush=True)
            rows.append(row)
    return rows


def _print_titles() -> None:
    print("  ".join(f"{name:>{width}}" for name, width in _COLUMNS.items()), flush=True)


def _row(name: str, rounds: int) -> Row:
    mode, tasks, replicas = name.split(":")
    load = Load(int(tasks), rounds, int(replicas))
    if mode == "ray":
        ideal = virtual(Load(load.tasks, 1, 1)).lower_bound_s / 2 * (rounds + 1) / load.replicas
        return on_ray(load, ideal / RAY_SECONDS)
    return virtual(load, sequential=mode == "sequential")


if __name__ == "__main__":
    main()
