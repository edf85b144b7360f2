"""What faults cost a run, and that they change nothing: no work lost, none counted twice, the same result.

    python -m benchmarks.faults [--quick] [--real] [--seed N] [--json FILE]

A run of the simulated engine on real Ray actors, over a cluster of several nodes on this machine, is made
twice with the same configuration: left alone, and with at least 100 faults (20 with --quick): kill -9 and
SIGSTOP of scorers and rewriters, nodes killed and removed, calls that raise, never return or take their
process along, engines that fail to start, and kill -9 of the driver, which is then started again. Only faults
that took effect count. Without --quick, or with --real, the real small model's scorer is killed, too.

Both run folders are then compared bit for bit (`benchmarks.faults.comparison`). Exits with 1 where anything
was lost, counted twice or came out differently, or where fewer faults than promised took effect.

JSON: {"faults", "units", "lost", "counted_twice", "identical", "seconds", "machine", "rows"}; there is a row
for each engine (`benchmarks.faults.campaign.Row`), and what stands before them is their sum.
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
    parser.add_argument("--json", type=Path, help="write the result there, too")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    rows, wanted = [], [size.faults]
    try:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            rows.append(simulated(size, arguments.seed, Path(folder), plan(arguments.seed)))
            print(table(rows[-1]), flush=True)
        if arguments.real or not arguments.quick:
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                rows.append(real(arguments.seed, Path(folder)))
                wanted.append(len(MOMENTS))
                print(table(rows[-1]), flush=True)
    except FaultsError as error:
        print(f"benchmarks.faults: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json is not None:
        content = {**summary(rows), "machine": machine("cpu", os.cpu_count() or 1)}
        content["rows"] = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if all(map(passed, rows, wanted)) else 1)


def passed(row: Row, faults: int) -> bool:
    """Whether `faults` faults at least took effect and changed nothing."""
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
    """A row in Markdown: the faults by kind, and what came of them."""
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
