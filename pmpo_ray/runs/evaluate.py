"""The composition root of an evaluation: from a run folder or a configuration to evaluation.parquet.

Invariants:
- A run is evaluated on its own test part, which its search never saw: tasks, split and seed are the run's,
  and data that changed since are refused.
- What was measured is kept at once, under everything it depends on: the same command goes on after a stop,
  and measures again only what has changed.
- What was started here is ended here; one driver writes a run folder.
"""

from __future__ import annotations

from pmpo_ray.store.kept_config import kept_config, requested_config

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig
from pmpo_ray.config.overrides import Override
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.resume import differences
from pmpo_ray.config.loading import dump_config, load_config
from pmpo_ray.errors import ConfigError, DataError, EngineError, RunFolderError
from pmpo_ray.evaluation.alpaca import outputs_document
from pmpo_ray.evaluation.conditions import condition_key
from pmpo_ray.evaluation.evaluators import GenerationEvaluator, LikelihoodEvaluator, Evaluator
from pmpo_ray.evaluation.grading import Grader, ModelGrader, RuleGrader
from pmpo_ray.evaluation.judge import Judging
from pmpo_ray.runs.evaluation_plan import (TaskPlan, conditions_of, engines_for, models_of, plan_file, plan_run, shots_of)
from pmpo_ray.evaluation.summary import Summary, summarise
from pmpo_ray.prepared_task import PreparedTask, given_tasks, prepare_tasks
from pmpo_ray.runs.event_loop import ending_on_sigterm, run_to_end
from pmpo_ray.runs.run_folder import fresh_run_dir
from pmpo_ray.runs.placement import Replica, place_roles
from pmpo_ray.protocols import GenerateClient, Observer
from pmpo_ray.store import Lease, RunStore, hold, task_folder
from pmpo_ray.types import Condition, ConditionResult, Example, Outcome, Progress

if TYPE_CHECKING:
    from pmpo_ray.actors.evaluation_pools import EvaluatedModel, RewardPool
    from pmpo_ray.actors.resources import ReplicaPlan

_OPEN = ("evaluation", "scorer", "rewriter", "ray", "data_dir", "run_dir")
"""Sections of a run's configuration that an evaluation may change."""
_PER_REPLICA = 2
"""Conditions under way at a time: enough to keep the replicas busy, few enough that one is soon kept."""


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation came to, and the folder that keeps it."""

    summary: Summary
    results: tuple[ConditionResult, ...]
    run_dir: str


def run_evaluation(source: str, overrides: Sequence[Override] = (), *, observer: Observer) -> EvaluationResult:
    """Evaluate the instructions of the run in the folder `source`, or those of a configuration file, whose
    `run_dir` keeps the result (None: a new folder).

    Raises a PmpoError for everything a user can mend, and KeyboardInterrupt after a clean end on Ctrl-C.
    """
    from pmpo_ray.actors.cluster import LOCAL, connected, connected_cluster

    is_run = not Path(source).is_file() and RunStore.exists(source)
    config = _config(source, overrides, is_run=is_run)
    location = source if is_run else config.run_dir or fresh_run_dir(config)
    jobs = prepare_tasks(config, given_tasks(config, location, {}))
    with hold(location) as lease:
        store = _store(config, location, lease)
        plans = _plans(config, jobs, store, is_run=is_run)
        with connected(config.ray) as address, ending_on_sigterm():
            there = connected_cluster()

            def place(roles: Mapping[str, Replica]) -> dict[str, ReplicaPlan]:
                return place_roles(roles, config.ray, there, local=address == LOCAL)

            try:
                results = run_to_end(_Evaluation(config, store, plans, observer, place).run())
            except KeyboardInterrupt:
                raise KeyboardInterrupt(store.location) from None
        store.write_evaluation(results)
        _write_outputs(store, jobs, results)
    free = {instruction.name for plan in plans for instruction in plan.instructions if instruction.free}
    return EvaluationResult(summarise(results, free), results, store.location)


def _config(source: str, overrides: Sequence[Override], *, is_run: bool) -> RunConfig:
    if not is_run and not Path(source).is_file():
        raise ConfigError(f"{source}: neither a run folder nor a configuration file; check the path")
    if not is_run:
        return load_config(source, overrides)
    config = kept_config(source, overrides)
    fixed = _fixed(source, config)
    if fixed:
        raise ConfigError(
            f"--set {fixed[0]}: an evaluation takes it from the run, or else training examples could be "
            "tested on; leave it out, or evaluate a configuration file"
        )
    return config


def _fixed(location: str, config: RunConfig) -> list[str]:
    """What `config` has otherwise than the run in `location`, of what an evaluation takes from the run."""
    kept = kept_config(location)
    return [key for key in differences(kept, config) if key.split(".")[0] not in _OPEN]


def _plans(config: RunConfig, jobs: Sequence[PreparedTask], store: RunStore, *, is_run: bool) -> list[TaskPlan]:
    if not is_run:
        return [plan_file(config, job) for job in jobs]
    plans = [plan for job in jobs if (plan := plan_run(config, job, store)) is not None]
    if not plans:
        raise RunFolderError(f"{store.location}: no task has a finished round yet; continue the run first")
    return plans


def _store(config: RunConfig, location: str, lease: Lease) -> RunStore:
    if RunStore.exists(location):
        store = RunStore.open(location, lease)
        fixed = _fixed(location, config)
        if fixed:
            raise RunFolderError(
                f"{location} was made with another {fixed[0]}; give another --run-dir, or evaluate the run "
                "itself"
            )
        return store
    return RunStore.create(location, dump_config(config), lease)


def _write_outputs(store: RunStore, jobs: Sequence[PreparedTask], results: Sequence[ConditionResult]) -> None:
    """Answers that a judge compared, in AlpacaEval's format, for its own tools."""
    inputs = {job.task.name: {example.id: example.input for example in job.split.test} for job in jobs}
    for one in results:
        condition = one.condition
        if condition.method != "judged":
            continue
        parts = (condition.task, condition.model, condition.name, condition.shots, condition.repetition)
        where = "-".join(task_folder(str(part)).replace("~", "-") for part in parts)
        document = outputs_document(
            [inputs[condition.task][outcome.example] for outcome in one.outcomes],
            [outcome.reply for outcome in one.outcomes],
            generator=f"{condition.model} ({condition.name})",
        )
        store.write_file(f"outputs-{where}.json", json.dumps(document, indent=1).encode())


class _Evaluation:
    """One evaluation over a connected cluster."""

    def __init__(
        self,
        config: RunConfig,
        store: RunStore,
        plans: Sequence[TaskPlan],
        observer: Observer,
        place: Callable[[Mapping[str, Replica]], dict[str, ReplicaPlan]],
    ) -> None:
        self._config = config
        self._store = store
        self._plans = plans
        self._observer = observer
        self._place = place
        self._keys: dict[str, asyncio.Lock] = {}
        self._progress = {
            plan.job.task.name: Progress(plan.job.task.name, "waiting", 0, self._size(plan)) for plan in plans
        }

    async def run(self) -> tuple[ConditionResult, ...]:
        """One model after the other, with the judges of their replies beside them."""
        for progress in self._progress.values():
            self._observer(progress)
        results: list[ConditionResult] = []
        async with AsyncExitStack() as stack:
            evaluator = await self._evaluator_model(stack)
            reward = await self._reward(stack)
            for model in models_of(self._config):
                results += await self._model(model, evaluator, reward)
        return tuple(results)

    def _size(self, plan: TaskPlan) -> int:
        return sum(len(list(conditions_of(self._config, plan, model))) for model in models_of(self._config))

    @property
    def _writes(self) -> bool:
        return any(plan.method != "likelihood" for plan in self._plans)

    async def _evaluator_model(self, stack: AsyncExitStack) -> GenerateClient | None:
        from pmpo_ray.actors.evaluation_pools import evaluator_pool

        settings = self._config.evaluation.evaluator
        if settings.model is None or not self._writes:
            return None
        config = RewriterConfig(engine=settings.engine, endpoint=settings.endpoint)
        placed = await asyncio.to_thread(self._place, {"evaluation.evaluator": (config, settings.model)})
        pool = evaluator_pool(config, settings.model, placed["evaluation.evaluator"], self._config.ray)
        return await stack.enter_async_context(pool)

    async def _reward(self, stack: AsyncExitStack) -> RewardPool | None:
        from pmpo_ray.actors.evaluation_pools import reward_pool

        settings = self._config.evaluation.process_reward
        if settings.model is None or not self._writes:
            return None
        replica = ReplicaConfig(
            engine="transformers",
            revision=settings.revision,
            gpus=settings.gpus,
            trust_remote_code=settings.trust_remote_code,
        )
        role = "evaluation.process_reward"
        placed = await asyncio.to_thread(self._place, {role: (replica, settings.model)})
        return await stack.enter_async_context(reward_pool(settings, placed[role], self._config.ray))

    async def _model(
        self, model: str, evaluator: GenerateClient | None, reward: RewardPool | None
    ) -> list[ConditionResult]:
        from pmpo_ray.actors.evaluation_pools import model_pools

        config = self._config
        scorer, rewriter = engines_for(config, model, {plan.method for plan in self._plans})
        roles: dict[str, Replica] = {}
        if scorer is not None:
            roles["scorer"] = (scorer, model)
        if rewriter is not None and (scorer is None or scorer.role != "both"):
            roles["rewriter"] = (rewriter, model)
        placed = await asyncio.to_thread(self._place, roles)
        async with model_pools(model, scorer, rewriter, placed, config.ray) as there:
            judges = _Judges(evaluator, reward)
            room = asyncio.Semaphore(_PER_REPLICA * max(replica.replicas for replica, _ in roles.values()))
            calls = [
                asyncio.ensure_future(self._condition(plan, condition, there, judges, room))
                for plan in self._plans
                for condition in conditions_of(config, plan, model)
            ]
            try:
                return await asyncio.gather(*calls)
            finally:
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)

    async def _condition(
        self,
        plan: TaskPlan,
        condition: Condition,
        there: EvaluatedModel,
        judges: _Judges,
        room: asyncio.Semaphore,
    ) -> ConditionResult:
        """The outcomes under one condition: kept ones, or, when there is `room`, measured and kept now."""
        config, job = self._config, plan.job
        examples = job.split.test[: config.evaluation.limit]
        shots = shots_of(job, condition.shots, condition.repetition, config.seed)
        key = condition_key(
            condition,
            there.info,
            examples,
            shots,
            config.evaluation,
            start=plan.instructions[0].instruction,
            objective=f"{job.objective.name}/{job.search.beta}/{job.search.per_token}",
            calibrate=job.calibrates(config.evaluation),
            seed=config.seed,
        )
        async with room, self._keys.setdefault(key, asyncio.Lock()):
            outcomes = await asyncio.to_thread(self._store.read_outcomes, key)
            if outcomes is None:
                evaluator = self._evaluator(plan, there, judges)
                outcomes = await evaluator.evaluate(
                    condition.instruction, examples, shots, condition.repetition
                )
                if judges.reward is not None and condition.method == "generation":
                    outcomes = await _rated(examples, outcomes, judges.reward)
                await asyncio.to_thread(self._store.write_outcomes, key, outcomes)
        self._report(condition.task, sum(outcome.tokens for outcome in outcomes))
        return ConditionResult(condition, outcomes)

    def _evaluator(self, plan: TaskPlan, there: EvaluatedModel, judges: _Judges) -> Evaluator | Judging:
        job, task, settings = plan.job, plan.job.task, self._config.evaluation
        if plan.method == "likelihood":
            if there.scorer is None:
                raise RuntimeError("no scorer was started")
            return LikelihoodEvaluator(job.scoring(there.scorer, job.calibrates(settings)), job.objective)
        if there.generator is None:
            raise RuntimeError("no generator was started")
        grader: Grader = RuleGrader(task)
        if judges.evaluator is not None:
            grader = ModelGrader(task, judges.evaluator)
        writer = GenerationEvaluator(task, settings, there.generator, grader, self._config.seed)
        if plan.method == "generation":
            return writer
        # One for all instructions: they share the references.
        return judges.comparing.setdefault(
            task.name, Judging(writer, settings, plan.instructions[0].instruction)
        )

    def _report(self, task: str, tokens: int) -> None:
        known = self._progress[task]
        done = known.round + 1
        self._progress[task] = replace(
            known,
            state="done" if done == known.rounds else "evaluating",
            round=done,
            tokens_generated=known.tokens_generated + tokens,
        )
        self._observer(self._progress[task])


@dataclass(frozen=True, slots=True)
class _Judges:
    """Who judges what one model writes. `comparing` are the judges of whole answers, by task."""

    evaluator: GenerateClient | None
    reward: RewardPool | None
    comparing: dict[str, Judging] = field(default_factory=dict)


async def _rated(
    examples: Sequence[Example], outcomes: Sequence[Outcome], reward: RewardPool
) -> tuple[Outcome, ...]:
    """The outcomes with the mean scores of their replies' steps; None where a reply has none, or is too long
    for the process-reward model."""

    async def rated(example: Example, outcome: Outcome) -> Outcome:
        try:
            scores = await reward.rate(example.input, outcome.reply)
        except (EngineError, DataError):
            return outcome
        return replace(outcome, score=scores.mean)

    return tuple(await asyncio.gather(*map(rated, examples, outcomes)))
