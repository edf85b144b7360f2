"""Resolve models in processes of their own, each with its own caches and settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RESOLVE = """
import sys
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ModelError
try:
    found = resolve_model(sys.argv[1], weights="no-weights" not in sys.argv[2:])
except ModelError as error:
    print(error)
    sys.exit(2)
print(found.path, found.revision, sep="\\n")
"""


def start(name: str, *options: str, **env: str) -> subprocess.Popen[str]:
    """A process of its own that resolves `name`: the hub client reads its settings when it is imported."""
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, name, *options],
        env={**os.environ, "PYTHONPATH": root, "HF_HUB_DISABLE_TELEMETRY": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=240)
    assert "Traceback" not in err, err
    return process.returncode, out.splitlines(), err


def refusal(name: str, **env: str) -> str:
    """The one line with which resolving `name` is refused."""
    code, lines, _ = outcome(start(name, **env))
    assert (code, len(lines)) == (2, 1), lines
    return lines[0]


def offline(cache: Path) -> dict[str, str]:
    return {"PMPO_CACHE_DIR": str(cache), "HF_HOME": str(cache / "hf"), "HF_HUB_OFFLINE": "1"}


def without_packages(folder: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
