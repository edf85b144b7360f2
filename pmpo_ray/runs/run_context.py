"""Parts of a run that all its tasks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmpo_ray.config.run import RunConfig
from pmpo_ray.protocols import Observer, ScoreClient
from pmpo_ray.store import RunStore

if TYPE_CHECKING:
    from pmpo_ray.actors.clients import RewriterPool


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run over started pools: its configuration, its folder, its clients and its observer."""

    config: RunConfig
    store: RunStore
    scorer: ScoreClient
    rewriter: RewriterPool
    observer: Observer
