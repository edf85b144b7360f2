"""Measuring the conditions of an evaluation on a connected cluster.

Invariants: one model is loaded at a time, in addition to the models that grade replies; outcomes are kept as
soon as they are measured, and kept outcomes are not measured again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig
from pmpo_ray.config.run import RunConfig
from pmpo_ray.counting import counting
from pmpo_ray.errors import DataError, EngineError
from pmpo_ray.evaluation.conditions import condition_key
from pmpo_ray.evaluation.evaluators import Evaluator
from pmpo_ray.evaluation.grading import Grader, ModelGrader, RuleGrader
from pmpo_ray.evaluation.labels import labels_of
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome, Progress
from pmpo_ray.protocols import GenerateClient, Observer
from pmpo_ray.runs.evaluation_plan import TaskPlan, conditions_of, engines_for, models_of, shots_of
from pmpo_ray.runs.fitting import Ruler, fitting_examples, on_shared_examples
from pmpo_ray.runs.placement import Replica
from pmpo_ray.runs.task_evaluator import task_evaluator
from pmpo_ray.store import RunStore
from pmpo_ray.types import EngineInfo, Example, ScoreRequest

if TYPE_CHECKING:
    from pmpo_ray.actors.evaluation_pools import EvaluatedModel, RewardPool
    from pmpo_ray.actors.resources import ReplicaPlan

_log = logging.getLogger(__name__)

_CONDITIONS_PER_REPLICA = 2
"""Conditions measured at once: enough to keep the replicas busy, few enough that each is soon finished and
kept."""


class Evaluation:
    """One evaluation over a connected cluster. `place` plans where the replicas of each role go."""

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
        self._locks: dict[str, asyncio.Lock] = {}
        self._progress = {
            plan.task: Progress(plan.task, "waiting", 0, self._size(plan), unit="condition") for plan in plans
        }
        self._counts: dict[str, dict[str, tuple[int, int]]] = {plan.task: {} for plan in plans}

    async def run(self) -> tuple[ConditionResult, ...]:
        """Measure every condition, one model after the other. Errors as in the pools of `actors`."""
        from pmpo_ray.actors.cluster import watched_ray

        for progress in self._progress.values():
            self._observer(progress)
        results: list[ConditionResult] = []
        async with watched_ray(), AsyncExitStack() as stack:
            grading_model = await self._grading_model(stack)
            reward = await self._reward_model(stack)
            for model in models_of(self._config):
                results += await self._evaluate_model(model, grading_model, reward)
        return tuple(results)

    def _size(self, plan: TaskPlan) -> int:
        return sum(len(list(conditions_of(self._config, plan, model))) for model in models_of(self._config))

    @property
    def _generates(self) -> bool:
        return any(plan.method != "likelihood" for plan in self._plans)

    async def _grading_model(self, stack: AsyncExitStack) -> GenerateClient | None:
        """The model that grades replies (`evaluation.evaluator`), if configured and needed."""
        from pmpo_ray.actors.evaluation_pools import evaluator_pool

        settings = self._config.evaluation.evaluator
        if settings.model is None or not self._generates:
            return None
        config = RewriterConfig(engine=settings.engine, endpoint=settings.endpoint)
        role = "evaluation.evaluator"
        plans = await asyncio.to_thread(self._place, {role: (config, settings.model)})
        pool = evaluator_pool(config, settings.model, plans[role], self._config.ray)
        return await stack.enter_async_context(pool)

    async def _reward_model(self, stack: AsyncExitStack) -> RewardPool | None:
        """The process-reward model, if configured and needed."""
        from pmpo_ray.actors.evaluation_pools import reward_pool

        settings = self._config.evaluation.process_reward
        if settings.model is None or not self._generates:
            return None
        replica = ReplicaConfig(
            engine="transformers",
            revision=settings.revision,
            gpus=settings.gpus,
            trust_remote_code=settings.trust_remote_code,
        )
        role = "evaluation.process_reward"
        plans = await asyncio.to_thread(self._place, {role: (replica, settings.model)})
        return await stack.enter_async_context(reward_pool(settings, plans[role], self._config.ray))

    async def _evaluate_model(
        self, model: str, grading_model: GenerateClient | None, reward: RewardPool | None
    ) -> list[ConditionResult]:
        from pmpo_ray.actors.evaluation_pools import model_pools

        config = self._config
        scorer, rewriter = engines_for(config, model, {plan.method for plan in self._plans})
        roles: dict[str, Replica] = {}
        if scorer is not None:
            roles["scorer"] = (scorer, model)
        if rewriter is not None and (scorer is None or scorer.role != "both"):
            roles["rewriter"] = (rewriter, model)
        replica_plans = await asyncio.to_thread(self._place, roles)
        replicas = max(replica.replicas for replica, _ in roles.values())
        async with model_pools(model, scorer, rewriter, replica_plans, config.ray) as pools:
            if pools.scorer is not None and pools.info.prompt_note:
                _log.warning("%s: %s", model, pools.info.prompt_note)
            loaded = _LoadedModel(
                info=pools.info,
                evaluators={
                    plan.task: _evaluator(config, plan, pools, grading_model) for plan in self._plans
                },
                examples={plan.task: await self._fitting(plan, model, pools) for plan in self._plans},
                reward=reward,
                slots=asyncio.Semaphore(_CONDITIONS_PER_REPLICA * replicas),
            )
            results = await gather_or_cancel(
                self._evaluate_condition(plan, condition, loaded)
                for plan in self._plans
                for condition in conditions_of(config, plan, model)
            )
        return [
            one
            for plan in self._plans
            for one in on_shared_examples([own for own in results if own.condition.task == plan.task])
        ]

    async def _fitting(self, plan: TaskPlan, model: str, pools: EvaluatedModel) -> tuple[Example, ...]:
        """The rows of the task's test part that fit under its longest condition: all conditions are measured
        on the same rows."""
        settings, prepared = self._config.evaluation, plan.prepared
        examples = prepared.split.test[: settings.limit]
        client = pools.scorer if plan.method == "likelihood" else pools.generator
        if client is None:
            return examples
        conditions = list(conditions_of(self._config, plan, model))
        instruction = max((condition.instruction for condition in conditions), key=len)
        shots = max(
            (shots_of(prepared, condition, self._config.seed) for condition in conditions),
            key=lambda chosen: sum(len(shot.input) + len(shot.target) for shot in chosen),
        )
        return await fitting_examples(
            plan.task,
            examples,
            ScoreRequest(instruction, (), shots),
            Ruler(client.lengths, client.info.context_length),
            reply=None if plan.method == "likelihood" else settings.max_tokens,
        )

    async def _evaluate_condition(
        self, plan: TaskPlan, condition: Condition, loaded: _LoadedModel
    ) -> ConditionResult:
        """The outcomes under one condition: the kept ones, or else measured in a free slot and kept."""
        config, prepared = self._config, plan.prepared
        examples = loaded.examples[plan.task]
        shots = shots_of(prepared, condition, config.seed)
        key = condition_key(
            condition,
            loaded.info,
            examples,
            shots,
            config.evaluation,
            layout=config.scorer.layout,
            start=plan.instructions[0].instruction,
            objective=f"{prepared.objective.name}/{prepared.search.beta}/{prepared.objective.per_token}",
            calibrate=prepared.calibrates(config.evaluation),
            trained=prepared.split.train,
            per_token=prepared.chooses_per_token,
            seed=config.seed,
        )
        async with loaded.slots, self._locks.setdefault(key, asyncio.Lock()):
            outcomes = await asyncio.to_thread(self._store.read_outcomes, key)
            if outcomes is None:
                with counting(partial(self._count, plan.task, key)):
                    outcomes = await loaded.evaluators[plan.task].evaluate(
                        condition.instruction, examples, shots, condition.repetition
                    )
                self._counts[plan.task].pop(key, None)
                if loaded.reward is not None and condition.method == "generation":
                    outcomes = await _rate(examples, outcomes, loaded.reward)
                outcomes = tuple(outcome for outcome in outcomes if outcome.fits)
                await asyncio.to_thread(self._store.write_outcomes, key, outcomes)
        self._report(condition.task, sum(outcome.tokens for outcome in outcomes))
        measured = {outcome.example for outcome in outcomes}
        fitting = [example for example in examples if example.id in measured]
        return ConditionResult(condition, outcomes, labels_of(prepared.task, fitting))

    def _count(self, task: str, key: str, done: int, asked: int) -> None:
        counts = self._counts[task]
        counts[key] = (done, asked)
        self._progress[task] = replace(
            self._progress[task],
            state="evaluating",
            done=sum(one for one, _ in counts.values()),
            asked=sum(one for _, one in counts.values()),
        )
        self._observer(self._progress[task])

    def _report(self, task: str, tokens: int) -> None:
        last = self._progress[task]
        done = last.round + 1
        self._progress[task] = replace(
            last,
            state="done" if done == last.rounds else "evaluating",
            round=done,
            tokens_generated=last.tokens_generated + tokens,
        )
        self._observer(self._progress[task])


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """A model whose pools run, with an evaluator and the examples that fit for each task. `slots` limits the
    conditions that are measured at once."""

    info: EngineInfo
    evaluators: Mapping[str, Evaluator]
    examples: Mapping[str, tuple[Example, ...]]
    reward: RewardPool | None
    slots: asyncio.Semaphore


def _evaluator(
    config: RunConfig, plan: TaskPlan, pools: EvaluatedModel, grading_model: GenerateClient | None
) -> Evaluator:
    """The evaluator of a task under all its conditions with one model."""
    task = plan.prepared.task
    grader: Grader = RuleGrader(task) if grading_model is None else ModelGrader(task, grading_model)
    evaluator = task_evaluator(
        plan.prepared,
        plan.method,
        config,
        scorer=pools.scorer,
        generator=pools.generator,
        grader=grader,
        reference=plan.instructions[0].instruction,
    )
    if evaluator is None:
        raise RuntimeError(f"task {task.name}: no pool was started for the method {plan.method}")
    return evaluator


async def _rate(
    examples: Sequence[Example], outcomes: Sequence[Outcome], reward: RewardPool
) -> tuple[Outcome, ...]:
    """The outcomes, each with the mean score of the steps of its reply. The score of a reply stays None if it
    has no steps or is too long for the process-reward model."""

    async def rated(example: Example, outcome: Outcome) -> Outcome:
        try:
            scores = await reward.rate(example.input, outcome.reply)
        except (EngineError, DataError):
            return outcome
        return replace(outcome, score=scores.mean)

    return tuple(await gather_or_cancel(map(rated, examples, outcomes)))
