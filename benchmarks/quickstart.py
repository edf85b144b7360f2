"""The quick start for several seeds: the table that the README shows.

    python -m benchmarks.quickstart [--seeds 0 1 2 3 4] [--json FILE]

Every seed is a run of its own, `pmpo optimize configs/quickstart.yaml --set seed=N`, one after the other, and
`pmpo evaluate` on the same held-out examples, which is not timed. Below the table stands the mean gain with
its interval over examples (these searches, other examples) and over searches and examples (others of both).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.repeated import both_intervals, gain_cell, values_of_run
from pmpo_ray.display.numbers import p_value_text

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    arguments = parser.parse_args()
    rows = [measured(seed) for seed in arguments.seeds]
    gain = both_intervals([row.pop("values") for row in rows])
    print(table(rows))
    for kind, words in (("examples", "over examples"), ("searches", "over searches and examples")):
        if (found := gain[kind]) is not None:
            cell = gain_cell(found["gain"], found["low"], found["high"])
            print(f"mean gain, points [95% {words}]: {cell}, {p_value_text(found['p_value'])}")
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps([*rows, {"seed": "mean", **gain}], indent=1) + "\n", encoding="utf-8"
        )


def measured(seed: int) -> dict[str, Any]:
    """The result of one seed, with the wall time of the whole command in seconds."""
    began = time.perf_counter()
    document = json.loads(pmpo("optimize", str(CONFIG), "--set", f"seed={seed}", "--json"))
    wall_seconds = round(time.perf_counter() - began, 1)
    pmpo("evaluate", document["run_dir"])
    [task] = document["tasks"]
    values = values_of_run(document["run_dir"])
    pair = values[task["task"], "start"], values[task["task"], "best"]
    return {"seed": seed, "wall_seconds": wall_seconds, **task, "values": pair}


def pmpo(*arguments: str) -> str:
    """Run a `pmpo` command, and return its standard output."""
    process = subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return process.stdout


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, with their mean."""
    lines = [
        "| seed | training loss before | after | held-out accuracy before | after | seconds |",
        "|---|---|---|---|---|---|",
    ]
    keys = ("loss_before", "loss_after", "accuracy_before", "accuracy_after", "wall_seconds")
    lines += [line(str(row["seed"]), [row[key] for key in keys]) for row in rows]
    lines.append(line("mean", [statistics.mean(row[key] for row in rows) for key in keys]))
    return "\n".join(lines)


def line(name: str, values: list[float]) -> str:
    before, after, right_before, right_after, seconds = values
    return f"| {name} | {before:.3f} | {after:.3f} | {right_before:.1%} | {right_after:.1%} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
