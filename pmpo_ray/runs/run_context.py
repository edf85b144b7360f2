"""Parts of a run that all its tasks share."""

from __future__ import annotations

from dataclasses import dataclass

from pmpo_ray.config.run import RunConfig
from pmpo_ray.protocols import GenerateClient, Observer, ScoreClient
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.store import RunStore
from pmpo_ray.types import EngineInfo


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run over started pools: its configuration, its folder, its clients and its observer. `ruler` measures
    prompts as the scorer reads them (None: nothing measures them)."""

    config: RunConfig
    store: RunStore
    scorer: ScoreClient
    rewriter: GenerateClient
    rewriter_info: EngineInfo
    observer: Observer
    ruler: Ruler | None = None
