"""The resources of this machine that a process may use.

Invariants: the limits of containers (cgroups v1 and v2) and of the scheduler count, not the hardware; system
files are only read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.engines.hf.processor import bfloat16_extension

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """The cores that a process may use and those of the hardware; the memory that it may use, in bytes.
    `bfloat16` is the extension with which the processor multiplies bfloat16, None if it has none."""

    cores: float
    hardware_cores: int
    memory_bytes: int
    bfloat16: str | None = None


def this_machine(membership: Path = _PROC, cgroups: Path = _CGROUPS) -> Machine:
    """The resources that this process may use. `membership` is the file that lists its cgroups, `cgroups` the
    folder where they are mounted."""
    hardware = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else hardware
    quotas = [
        quota
        for folder in _folders("cpu", membership, cgroups)
        if (quota := _quota(folder)) is not None and quota > 0
    ]
    limits = [
        limit
        for folder in _folders("memory", membership, cgroups)
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _number(folder / name)) is not None
    ]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(min([allowed, *quotas]), hardware, min([total, *limits]), bfloat16_extension())


def free_disk(path: Path) -> int:
    """The free space in bytes of the disk where `path` is or will be. Raises OSError if it cannot be read."""
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists and is visible to this process."""
    return next(folder for folder in (path, *path.absolute().parents) if os.access(folder, os.F_OK))


def _folders(controller: str, membership: Path, cgroups: Path) -> Iterator[Path]:
    """The folders of the cgroups of this process for a controller: its own and all above, each of which may
    set a limit. A container may see its own cgroup as the topmost one."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            roots = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            roots = [cgroups / controllers, cgroups / controller]
        else:
            continue
        path = Path(group.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (path, *path.parents))


def _quota(folder: Path) -> float | None:
    """The number of cores that a cgroup grants; None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        micros, period_v1 = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return micros / period_v1 if micros is not None and period_v1 else None


def _number(file: Path) -> int | None:
    """The number in a system file; None if it has none ("max" means no limit)."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
