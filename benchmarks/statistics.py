"""Seconds that tests and intervals take on held-out results of many examples.

    python -m benchmarks.statistics [--examples N ...] [--json FILE]

Prints one row per number of examples. Every answer changes from right to wrong or back: times of the p-value
alone (McNemar) and of the comparison with its interval (Tango). Losses are values that all differ: times of
the permutation test, which gives the interval of the difference too, and of the bootstrap interval of a mean.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from pmpo_ray.evaluation.paired_tests import compare, paired_p_value
from pmpo_ray.evaluation.statistics import bootstrap_interval

EXAMPLES = (5_000, 10_000, 20_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, nargs="+", default=EXAMPLES)
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    arguments = parser.parse_args()
    rows = [measured(n) for n in arguments.examples]
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value:>{len(name)}}" for name, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measured(n: int) -> dict[str, float]:
    """The times for `n` examples, in seconds."""
    rng = random.Random(n)
    before = [float(rng.random() < 0.5) for _ in range(n)]
    after = [1 - value for value in before]
    losses = [rng.gauss(2.0, 0.5) for _ in range(n)]
    changed = [loss + rng.gauss(0.0, 0.1) for loss in losses]
    return {
        "examples": n,
        "mcnemar_s": seconds(lambda: paired_p_value(before, after)),
        "compare_s": seconds(lambda: compare(before, after)),
        "loss_compare_s": seconds(lambda: compare(losses, changed)),
        "loss_interval_s": seconds(lambda: bootstrap_interval(losses)),
    }


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 3)


if __name__ == "__main__":
    main()
