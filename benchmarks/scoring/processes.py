"""A process with its descendants: how much memory they hold, and how to stop and continue them. Read from
Linux's /proc; elsewhere memory is unknown, and only the process itself gets a signal."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def reset_peak(pid: int) -> None:
    """Start the peak of `pid` and its descendants anew from what they hold now."""
    for process in _tree(pid):
        _write(process / "clear_refs", "5")


def peak_mb(pid: int) -> float | None:
    """The peaks of resident memory since `reset_peak`, summed over `pid` and its descendants, in MB."""
    peaks = [_kilobytes(process / "status", "VmHWM") for process in _tree(pid)]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) * 1024 / 1e6 if known else None


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to `pid` and its descendants; to those that have ended meanwhile, none."""
    for process in list(_tree(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.name), number)


def total_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _tree(pid: int) -> Iterator[Path]:
    process = _PROC / str(pid)
    yield process
    for children in process.glob("task/*/children"):
        for child in _read(children).split():
            yield from _tree(int(child))


def _kilobytes(path: Path, key: str) -> int | None:
    found = re.search(rf"^{key}:\s*(\d+) kB", _read(path), re.MULTILINE)
    return int(found[1]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # the process has ended, or this is not Linux
        return ""


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:  # as above
        return
