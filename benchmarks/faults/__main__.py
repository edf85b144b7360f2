"""The cost of faults in a run, and a check that they change nothing: no lost work, none counted twice, the
same result.

    python -m benchmarks.faults [--quick] [--real] [--seed N] [--json FILE]

A run of the simulated engine on real Ray actors, over a cluster of several nodes on this machine, is made
twice with the same configuration: without faults, and with at least 100 faults (20 with --quick): kill -9 and
SIGSTOP of scorers and rewriters, nodes killed and removed, calls that raise, never return or end their
process, engines that fail to start, and kill -9 of the driver, which is then started again. Only faults that
took effect count. Without --quick, or with --real, the scorer of a real small model is killed as well.

Both run folders are then compared bit for bit (`benchmarks.faults.comparison`). The exit code is 1 if
anything was lost, counted twice or different, or if fewer faults than planned took effect.

JSON: {"faults", "units", "lost", "counted_twice", "identical", "seconds", "machine", "rows"}, with a row for
each engine (`benchmarks.faults.campaign.Row`); the other numbers are sums of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.faults.campaign import FULL, QUICK, FaultsError, Row, simulated
from benchmarks.faults.faults import plan
from benchmarks.faults.real_model import MOMENTS, real
from benchmarks.scoring.results import machine


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="20 faults, within 50 seconds on 2 cores")
    parser.add_argument("--real", action="store_true", help="the real model, even with --quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    rows, targets = [], [size.faults]
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            rows.append(simulated(size, arguments.seed, Path(folder), plan(arguments.seed)))
            print(table(rows[-1]), flush=True)
        if arguments.real or not arguments.quick:
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                rows.append(real(arguments.seed, Path(folder)))
                targets.append(len(MOMENTS))
                print(table(rows[-1]), flush=True)
    except FaultsError as error:
        print(f"benchmarks.faults: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json is not None:
        content = {**summary(rows), "machine": machine("cpu", os.cpu_count() or 1)}
        content["rows"] = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(map(passed, rows, targets)) else 1)


def passed(row: Row, faults: int) -> bool:
    """True if at least `faults` faults took effect and changed nothing."""
    return row.faults >= faults and row.lost == 0 and row.counted_twice == 0 and row.identical


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The sum of all rows."""
    return {
        "faults": sum(row.faults for row in rows),
        "units": sum(row.units for row in rows),
        "lost": sum(row.lost for row in rows),
        "counted_twice": sum(row.counted_twice for row in rows),
        "identical": all(row.identical for row in rows),
        "seconds": round(sum(row.seconds for row in rows), 1),
    }


def table(row: Row) -> str:
    """A row in Markdown: the faults by kind, and the outcome."""
    lines = [f"| {row.engine}: faults that took effect | {row.faults} |", "|---|---|"]
    lines += [f"| {kind} | {count} |" for kind, count in row.by_kind.items()]
    lines += [f"| without effect, not counted: {kind} | {n} |" for kind, n in row.without_effect.items()]
    lines += [
        f"| **units of work** (undisturbed: {row.undisturbed_units:,d}) | {row.units:,d} |",
        f"| calls made again | {row.retries} |",
        f"| replicas lost | {row.replicas_lost} |",
        f"| lives of the driver | {row.driver_lives} |",
        f"| seconds undisturbed / disturbed | {row.undisturbed_seconds:.1f} / {row.disturbed_seconds:.1f} |",
        f"| seconds in all | {row.seconds:.1f} |",
        f"| **lost** | {row.lost} |",
        f"| **counted twice** | {row.counted_twice} |",
        f"| **identical** | {'yes' if row.identical else 'no'} |",
        *(f"| found | {finding} |" for finding in row.findings),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
