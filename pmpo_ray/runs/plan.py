"""The plan of a run, made with its models but before its first round: what it will score and write, and the
time for that at a measured pace.

Invariants: the tasks are prepared, and the pools are started and ended, as in a run; no run folder is
written or continued; nothing that a search scores is scored here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import EngineError
from pmpo_ray.notes import note
from pmpo_ray.prepared_task import PreparedTask, prepare_tasks, tasks_from_python
from pmpo_ray.run_plan import Pace, PlannedTokens, RunPlan
from pmpo_ray.runs.announcements import announce_engines
from pmpo_ray.runs.event_loop import run_to_end
from pmpo_ray.runs.fitting import Ruler
from pmpo_ray.runs.pace import MEASURED_SECONDS, ready_replicas, scoring_pace, writing_pace
from pmpo_ray.runs.placement import planned_cluster
from pmpo_ray.runs.plan_search import FittedSearch, fit_search
from pmpo_ray.runs.task_log import log_tasks
from pmpo_ray.search.writers.rewrite import rewrite_prompt, rewrite_shots
from pmpo_ray.search.writing import writing_request
from pmpo_ray.signals import ending_on_signals
from pmpo_ray.types import GenerateRequest, ScoreRequest, Task

if TYPE_CHECKING:
    from pmpo_ray.actors.pools import Pools
    from pmpo_ray.actors.resources import Plan, ReplicaPlan

_NO_FOLDER = "runs"
"""Where the data of a task that were passed in Python are looked for, without a run folder: nowhere."""


def plan_run(config: RunConfig, *, python_data: Mapping[str, Task] = MappingProxyType({})) -> RunPlan:
    """The plan of the run that `config` describes. `python_data` as in `run_optimization`.

    Raises a PmpoError for everything that a user can fix, and KeyboardInterrupt, after a clean end, on
    Ctrl-C, SIGTERM or SIGHUP.
    """
    with ending_on_signals():
        python_tasks = tasks_from_python(config, config.run_dir or _NO_FOLDER, python_data)
        prepared_tasks = prepare_tasks(config, python_tasks)
        log_tasks(prepared_tasks)
        with planned_cluster(config) as (_, placed):
            return run_to_end(_Planning(config, prepared_tasks, placed).run())


@dataclass(frozen=True, slots=True)
class _Planning:
    """The plan in the making, on a connected cluster."""

    config: RunConfig
    prepared_tasks: Sequence[PreparedTask]
    placed: Plan

    async def run(self) -> RunPlan:
        """Start the pools, plan all searches, and measure the pace."""
        from pmpo_ray.actors.cluster import watched_ray
        from pmpo_ray.actors.pools import running_pools

        # A run that begins now has this day in its prompts.
        placed = self.placed.on_day(datetime.now(UTC).date())
        async with watched_ray(), running_pools(self.config, placed) as pools:
            announce_engines(pools.scorer.info, pools.rewriter.info)
            ruler = Ruler(pools.scorer.lengths, pools.scorer.info.context_length)
            searches = await gather_or_cancel(
                fit_search(prepared, self.config, pools.rewriter.info, ruler)
                for prepared in self.prepared_tasks
            )
            return await self._measured(searches, pools)

    async def _measured(self, searches: Sequence[FittedSearch], pools: Pools) -> RunPlan:
        """The plan with the pace of the replicas."""
        note(f"measuring the pace of the replicas, for about {MEASURED_SECONDS:.0f} s")
        placed, rows = self.placed, self.config.scorer.chunk_examples
        ready = await self._ready(pools, "scorer", placed.scorer)
        requests = [
            ScoreRequest(task.task.instruction, task.split.train[:rows], task.split.shots)
            for task in (one.prepared for one in searches)
        ]
        tokens, seconds, scored = await scoring_pace(pools.scorer, requests, ready)
        scoring = Pace(tokens, seconds, ready, placed.scorer.replicas)
        writing = await self._writing(searches, pools)
        return RunPlan(
            searches=tuple(one.plan(writing.reply) for one in searches),
            scoring=scoring,
            writing=writing.pace,
            measuring=PlannedTokens(scored) + writing.used,
            notes=(*_fewer("scorer", scoring), *writing.notes),
        )

    async def _writing(self, searches: Sequence[FittedSearch], pools: Pools) -> _Writing:
        """The measured pace of writing, if anything is written."""
        writers = [one for one in searches if one.writes]
        longest = self.config.rewriter.max_tokens
        if not writers:
            return _Writing(longest)
        shared = self.placed.rewriter is None
        plan = self.placed.rewriter or self.placed.scorer
        ready = await self._ready(pools, "rewriter", plan)
        try:
            replies, seconds = await writing_pace(pools.rewriter, self._request(writers[0]), ready)
        except EngineError as error:
            return _Writing(longest, notes=(f"the pace of writing is not known, a request failed: {error}",))
        used = PlannedTokens(
            prompted=sum(reply.prompt_tokens for reply in replies),
            generated=sum(reply.tokens for reply in replies),
        )
        if not used.generated:
            return _Writing(
                longest, used, notes=("the pace of writing is not known: the replies were empty",)
            )
        pace = Pace(used.generated, seconds, ready, plan.replicas)
        samples = sum(len(reply.samples) for reply in replies)
        notes = () if shared else _fewer("rewriter", pace)
        return _Writing(math.ceil(used.generated / samples), used, pace, notes)

    def _request(self, search: FittedSearch) -> GenerateRequest:
        """A rewriting request of a search's first round."""
        prepared = search.prepared
        prompt = rewrite_prompt(
            search.style,
            description=prepared.task.description,
            instruction=prepared.task.instruction,
            example=prepared.split.train[0],
            importances=(),
            max_chars=prepared.search.max_instruction_chars,
        )
        return writing_request(
            prompt,
            rewrite_shots(search.style),
            search.style,
            self.config.rewriter,
            count=prepared.search.variants,
            seed=self.config.seed,
        )

    async def _ready(self, pools: Pools, role: str, plan: ReplicaPlan) -> int:
        """The number of ready replicas. On a cluster of fixed size all of those that always run are waited
        for."""
        read = pools.stats.get(role) or pools.stats["both"]
        wanted = 1 if self.config.ray.autoscaling else plan.min_replicas
        return await ready_replicas(lambda: read().states["ready"], wanted, self.config.ray.start_timeout)


@dataclass(frozen=True, slots=True)
class _Writing:
    """The measurement of writing: the tokens of an answer, those that it used, and the pace, if known."""

    reply: int
    used: PlannedTokens = field(default_factory=PlannedTokens)
    pace: Pace | None = None
    notes: tuple[str, ...] = ()


def _fewer(role: str, pace: Pace) -> tuple[str, ...]:
    """A note if a run may have more replicas than were measured."""
    if pace.replicas >= pace.max_replicas:
        return ()
    return (
        f"{pace.replicas} {role} {'replica was' if pace.replicas == 1 else 'replicas were'} measured; a run "
        f"has up to {pace.max_replicas} when work waits, and takes less time",
    )
