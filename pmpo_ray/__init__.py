"""Prompt optimization from token log-likelihoods, distributed with Ray.

The names in this module are the public interface. All other modules of the package may move.

Invariant: importing this module loads no dependency; each name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmpo_ray.api import evaluate, load_run, optimize
    from pmpo_ray.callbacks.dispatch import Callback, RunStart
    from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
    from pmpo_ray.config.run import RunConfig
    from pmpo_ray.errors import PmpoError
    from pmpo_ray.evaluation.alpaca_rows import preference_rows
    from pmpo_ray.outcomes import Progress, Shot, TaskFailure, TaskResult
    from pmpo_ray.protocols import AsyncGenerator, AsyncScorer, GenerateClient, Generator, Observer, Scorer
    from pmpo_ray.result import RunResult
    from pmpo_ray.run_plan import Pace, PlannedTokens, PlannedWork, RunPlan, SearchPlan
    from pmpo_ray.runs.evaluate import EvaluationResult
    from pmpo_ray.search.hard_cases import HardCaseContext, HardCases
    from pmpo_ray.search.objectives import Objective
    from pmpo_ray.search.operators import Proposal, ProposalContext, Proposer
    from pmpo_ray.tasks import task
    from pmpo_ray.types import (
        AnswerScore,
        EngineInfo,
        Example,
        ExampleScore,
        GenerateRequest,
        GenerateResult,
        Generation,
        RoundRecord,
        ScoreRequest,
        ScoreResult,
        Task,
    )

__all__ = [
    "AnswerScore",
    "AsyncGenerator",
    "AsyncScorer",
    "Callback",
    "EngineInfo",
    "EvaluationResult",
    "Example",
    "ExampleScore",
    "GenerateClient",
    "GenerateRequest",
    "GenerateResult",
    "Generation",
    "Generator",
    "HardCaseContext",
    "HardCases",
    "Objective",
    "Observer",
    "Pace",
    "PlannedTokens",
    "PlannedWork",
    "PmpoError",
    "Progress",
    "Proposal",
    "ProposalContext",
    "Proposer",
    "RewriterConfig",
    "RoundRecord",
    "RunConfig",
    "RunPlan",
    "RunResult",
    "RunStart",
    "ScoreRequest",
    "ScoreResult",
    "Scorer",
    "ScorerConfig",
    "SearchPlan",
    "Shot",
    "Task",
    "TaskFailure",
    "TaskResult",
    "evaluate",
    "load_run",
    "optimize",
    "preference_rows",
    "task",
]

_MODULES = {
    "AnswerScore": "pmpo_ray.types",
    "AsyncGenerator": "pmpo_ray.protocols",
    "AsyncScorer": "pmpo_ray.protocols",
    "Callback": "pmpo_ray.callbacks.dispatch",
    "EngineInfo": "pmpo_ray.types",
    "EvaluationResult": "pmpo_ray.runs.evaluate",
    "Example": "pmpo_ray.types",
    "ExampleScore": "pmpo_ray.types",
    "GenerateClient": "pmpo_ray.protocols",
    "GenerateRequest": "pmpo_ray.types",
    "GenerateResult": "pmpo_ray.types",
    "Generation": "pmpo_ray.types",
    "Generator": "pmpo_ray.protocols",
    "HardCaseContext": "pmpo_ray.search.hard_cases",
    "HardCases": "pmpo_ray.search.hard_cases",
    "Objective": "pmpo_ray.search.objectives",
    "Observer": "pmpo_ray.protocols",
    "Pace": "pmpo_ray.run_plan",
    "PlannedTokens": "pmpo_ray.run_plan",
    "PlannedWork": "pmpo_ray.run_plan",
    "PmpoError": "pmpo_ray.errors",
    "Progress": "pmpo_ray.outcomes",
    "Proposal": "pmpo_ray.search.operators",
    "ProposalContext": "pmpo_ray.search.operators",
    "Proposer": "pmpo_ray.search.operators",
    "RewriterConfig": "pmpo_ray.config.engines",
    "RoundRecord": "pmpo_ray.types",
    "RunConfig": "pmpo_ray.config.run",
    "RunPlan": "pmpo_ray.run_plan",
    "RunResult": "pmpo_ray.result",
    "RunStart": "pmpo_ray.callbacks.dispatch",
    "ScoreRequest": "pmpo_ray.types",
    "ScoreResult": "pmpo_ray.types",
    "Scorer": "pmpo_ray.protocols",
    "ScorerConfig": "pmpo_ray.config.engines",
    "SearchPlan": "pmpo_ray.run_plan",
    "Shot": "pmpo_ray.outcomes",
    "Task": "pmpo_ray.types",
    "TaskFailure": "pmpo_ray.outcomes",
    "TaskResult": "pmpo_ray.outcomes",
    "evaluate": "pmpo_ray.api",
    "load_run": "pmpo_ray.api",
    "optimize": "pmpo_ray.api",
    "preference_rows": "pmpo_ray.evaluation.alpaca_rows",
    "task": "pmpo_ray.tasks",
}
"""The module that defines each public name."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
