"""What this machine has for engines: GPUs as torch sees them, and models.

Invariants: nothing is computed, fetched or changed; importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmpo_ray.engines.weights.resolve import Whereabouts, whereabouts
from pmpo_ray.errors import ModelError
from pmpo_ray.tasks.http_status import ask_status

Model = tuple[str, str | None, bool]
"""A model's name, its revision, and whether the code that comes with it is wanted."""


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
