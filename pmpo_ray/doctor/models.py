"""Check the hub, and where a run would find its models.

Invariants: nothing is downloaded or changed; importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pmpo_ray.engines.weights.resolve import Whereabouts, whereabouts
from pmpo_ray.errors import ModelError
from pmpo_ray.tasks.http_status import status_or_reason

Model = tuple[str, str | None, bool]
"""A model's name, its revision (None: the default), and its trust_remote_code setting."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The place of a model; None, with the `problem`, if it cannot be found."""

    place: Whereabouts | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class HubReport:
    """The hub's address, its HTTP status or the reason why it does not answer, and the places of models."""

    endpoint: str
    answer: int | str
    models: tuple[ModelReport, ...]


def inspect_hub(models: Sequence[Model]) -> HubReport:
    """Check if the hub answers, and where a run would find each of `models`."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    answer = "offline mode is set by HF_HUB_OFFLINE" if HF_HUB_OFFLINE else status_or_reason(ENDPOINT)
    return HubReport(ENDPOINT, answer, tuple(_locate(*model) for model in models))


def _locate(name: str, revision: str | None, code: bool) -> ModelReport:
    try:
        return ModelReport(whereabouts(name, revision=revision, code=code))
    except ModelError as error:
        return ModelReport(None, str(error))
