"""What this machine has for engines: GPUs as torch sees them, and models.

Invariants: nothing is computed, fetched or changed; importing this module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.engines.weights.gguf import one_line
from pmpo_ray.engines.weights.resolve import Whereabouts, whereabouts
from pmpo_ray.errors import ModelError
from pmpo_ray.tasks.http_status import ask_status

Model = tuple[str, str | None, bool]
"""A model's name, its revision, and whether the code that comes with it is wanted."""
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
        return GpuReport((), there, "", one_line(error))


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Where a model is; None with the `problem` where it is nowhere."""

    place: Whereabouts | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HubReport:
    """The hub's address, the status that it answers with or why it does not, and where models are."""

    endpoint: str
    answer: int | str
    models: tuple[ModelReport, ...]


def inspect_hub(models: Sequence[Model]) -> HubReport:
    """Ask the hub whether it answers, and where a run would find each of `models`."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    answer = "offline mode is set by HF_HUB_OFFLINE" if HF_HUB_OFFLINE else ask_status(ENDPOINT)
    return HubReport(ENDPOINT, answer, tuple(_where(*model) for model in models))


def _where(name: str, revision: str | None, code: bool) -> ModelReport:
    try:
        return ModelReport(whereabouts(name, revision=revision, code=code))
    except ModelError as error:
        return ModelReport(None, str(error))
