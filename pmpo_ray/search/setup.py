"""The inputs of a search."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.protocols import GenerateClient, Observer, ScoreClient
from pmpo_ray.search.budget import Measure
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.hard_cases import HardCases, HighestLoss
from pmpo_ray.search.meta_prompts import Style
from pmpo_ray.search.objectives import Objective
from pmpo_ray.search.operators import Proposer
from pmpo_ray.search.sense import SenseGate
from pmpo_ray.types import RoundRecord, Split, Task

KeepRound: TypeAlias = Callable[[RoundRecord, Sequence[RoundRecord]], Awaitable[None]]
"""Store a finished round. The first argument is its record with all scores. The second one holds all rounds
so far, this one included, without the scores that the search no longer needs; it is the search's own list, to
be read only until the call ends."""


@dataclass(frozen=True, slots=True)
class SearchSetup:
    """Everything that a search needs.

    `keep` stores a finished round before the next one begins; `clock` returns seconds; `proposers` are the
    operators other than rewriting, by name; `measure` tells the lengths of prompts, for the token budget;
    `sense` refuses texts that are no instructions (None: nothing is refused for that);
    `calibration` takes the bias from the scores (None: they stay as they are).
    """

    task: Task
    split: Split
    objective: Objective
    style: Style
    settings: SearchConfig
    sampling: RewriterConfig
    seed: int
    scorer: ScoreClient
    rewriter: GenerateClient
    keep: KeepRound
    observer: Observer
    clock: Callable[[], float]
    proposers: Mapping[str, Proposer] = field(default_factory=dict)
    hard_cases: HardCases = field(default_factory=HighestLoss)
    sense: SenseGate | None = None
    calibration: Calibration | None = None
    measure: Measure | None = None
