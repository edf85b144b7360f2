"""GPUs as torch sees them.

Invariants: nothing is computed or changed; importing this module does not import torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.text import error_line

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by the name that its driver gives it."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class GpuReport:
    """The GPUs that this process sees. `driver` and `cuda` are versions of the driver and of the CUDA that
    torch was built with, each empty for none; `problem` is why torch itself does not work, empty where it
    does."""

    gpus: tuple[Gpu, ...]
    driver: str
    cuda: str
    problem: str = ""


def inspect_gpus(driver: Path = _DRIVER) -> GpuReport:
    """Ask torch for the GPUs; `driver` is where the system tells its version."""
    try:
        version = driver.read_text(encoding="utf-8", errors="replace")
    except OSError:
        version = ""
    number = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", version)
    there = number[0] if number else ""
    try:
        import torch

        properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        gpus = tuple(Gpu(found.name, found.total_memory) for found in properties)
        return GpuReport(gpus, there, torch.version.cuda or "")
    except (ImportError, OSError, RuntimeError) as error:
        return GpuReport((), there, "", error_line(error))
