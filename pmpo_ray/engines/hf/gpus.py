"""GPUs as torch sees them.

Invariants: nothing is computed or changed; importing this module does not import torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.text import error_line

_DRIVER = Path("/proc/driver/nvidia/version")
_FIRST_BFLOAT16 = 8
"""The first compute capability of NVIDIA's with bfloat16; ROCm supports it on all GPUs."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, with the name that its driver reports. `bfloat16`: it multiplies bfloat16 natively."""

    name: str
    memory_bytes: int
    bfloat16: bool = True


@dataclass(frozen=True, slots=True)
class GpuReport:
    """The GPUs that this process sees. `driver` and `cuda` are the versions of the driver and of the CUDA
    that torch was built with, empty if there is none; `problem` is the reason if torch itself does not work,
    else empty."""

    gpus: tuple[Gpu, ...]
    driver: str
    cuda: str
    problem: str = ""


def inspect_gpus(driver: Path = _DRIVER) -> GpuReport:
    """The GPUs that torch sees; `driver` is the file in which the system reports the driver's version."""
    try:
        version = driver.read_text(encoding="utf-8", errors="replace")
    except OSError:
        version = ""
    number = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", version)
    driver_version = number[0] if number else ""
    try:
        import torch

        properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        gpus = tuple(
            Gpu(gpu.name, gpu.total_memory, bfloat16=bool(torch.version.hip) or gpu.major >= _FIRST_BFLOAT16)
            for gpu in properties
        )
        return GpuReport(gpus, driver_version, torch.version.cuda or "")
    except (ImportError, OSError, RuntimeError) as error:
        return GpuReport((), driver_version, "", error_line(error))
