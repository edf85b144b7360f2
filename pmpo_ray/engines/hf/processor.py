"""The processor as the system describes it, for the choice of a number format.

Invariants: system files are only read; importing this module does not import torch. Processors that only
emulate bfloat16 are three times slower with it than with float32, and oneDNN supports it on them all the
same, so its word does not count.
"""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LISTS = ("flags", "features")
"""The keys under which Linux lists the extensions of an x86 and of an Arm core, in lower case."""
_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Extensions that multiply bfloat16: two of x86, the fastest first, and that of Arm."""


def bfloat16_extension(cpuinfo: Path = _CPUINFO) -> str | None:
    """The extension with which every core of this machine multiplies bfloat16, by `cpuinfo`, the file in
    which Linux describes the cores; None if there is none, or if the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    parts = (line.partition(":") for line in lines)
    cores = [set(words.lower().split()) for key, _, words in parts if key.strip().lower() in _LISTS]
    return next((name for name in _BFLOAT16 if cores and all(name in core for core in cores)), None)
