"""The likelihood engine next to lm-evaluation-harness and vLLM: same model, token ids, threads and machine.

    python -m benchmarks.scoring [--workload NAME ...] [--contestant NAME ...] [--device cpu|cuda]
                                 [--data-dir FOLDER] [--json FILE] [--quick]

One table a workload. Seconds are medians of cold runs. Useful MFU is the least work that the workload
needs, over what the machine could have multiplied in that time at the model's own matrix shapes. The largest
difference is to an fp32 run of the engine. A contestant whose package is missing is left out.

The workload `precision` compares bf16 with fp32 and reports if that changes the ranking of 50 candidates. It
scores 5,000 triples one at a time, for about 10 minutes on 2 cores, so it runs only if it is named.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scoring.contestants import CONTESTANTS
from benchmarks.scoring.results import Report, machine
from benchmarks.scoring.session import Session
from benchmarks.scoring.workloads import default_data_dir
from pmpo_ray.errors import PmpoError

WORKLOADS = ("small", "options", "options2", "round", "solutions", "labels", "window", "actor")
NAMED_WORKLOADS = ("precision",)
QUICK_WORKLOADS = ("small", "labels")
QUICK_CONTESTANTS = ("pmpo", "lm_eval")


def main() -> None:
    arguments = _parsed()
    contestants = arguments.contestant or (QUICK_CONTESTANTS if arguments.quick else tuple(CONTESTANTS))
    workloads = arguments.workload or (QUICK_WORKLOADS if arguments.quick else WORKLOADS)
    session = Session(
        device=arguments.device,
        data_dir=arguments.data_dir,
        contestants=_present(contestants),
        report=Report(arguments.json, machine(arguments.device, os.cpu_count() or 1)),
        quick=arguments.quick,
    )
    try:
        session.run(_expanded(workloads))
    except PmpoError as error:
        print(f"benchmarks.scoring: {error}", file=sys.stderr)
        sys.exit(2)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scoring",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=(*WORKLOADS, *NAMED_WORKLOADS),
        metavar="NAME",
        help=f"default: all of {', '.join(WORKLOADS)}; only if named: {', '.join(NAMED_WORKLOADS)}",
    )
    parser.add_argument(
        "--contestant",
        nargs="+",
        choices=tuple(CONTESTANTS),
        metavar="NAME",
        help=f"default: all of {', '.join(CONTESTANTS)}",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--data-dir", type=Path, default=default_data_dir(), help="the benchmark files, with bbh/"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="cut every workload to a few items; by default small and labels, without vLLM",
    )
    return parser.parse_args()


def _expanded(names: Sequence[str]) -> list[str]:
    """`window` is two workloads."""
    workloads: list[str] = []
    for name in names:
        workloads += ["window_small", "window_long"] if name == "window" else [name]
    return workloads


def _present(names: Sequence[str]) -> list[str]:
    """The contestants that are installed, in the order of a repetition; the project's own always runs."""
    for name in names:
        if not CONTESTANTS[name].installed:
            print(f"{name} is left out: {CONTESTANTS[name].advice}")
    return [
        name for name, entry in CONTESTANTS.items() if name == "pmpo" or (name in names and entry.installed)
    ]


if __name__ == "__main__":
    main()
