"""The one rule for which evaluator serves a task, in a run as in an evaluation."""

from __future__ import annotations

from pmpo_ray.config.run import RunConfig
from pmpo_ray.evaluation.evaluators import Evaluator, GenerationEvaluator, LikelihoodEvaluator
from pmpo_ray.evaluation.grading import Grader
from pmpo_ray.evaluation.judge import JudgeEvaluator
from pmpo_ray.outcomes import Method
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.protocols import GenerateClient, ScoreClient


def task_evaluator(
    prepared: PreparedTask,
    method: Method,
    config: RunConfig,
    *,
    scorer: ScoreClient | None,
    generator: GenerateClient | None,
    grader: Grader,
    reference: str,
) -> Evaluator | None:
    """The evaluator of a task by `method`, or None without the client that the method needs.

    `grader` grades generated replies. A judge compares replies with those under the instruction `reference`,
    unless the configuration names a file of references.
    """
    settings = config.evaluation
    if method == "likelihood":
        if scorer is None:
            return None
        return LikelihoodEvaluator(
            prepared.scoring(scorer, prepared.calibrates(settings)),
            prepared.objective,
            per_token=prepared.chooses_per_token,
        )
    if generator is None:
        return None
    writer = GenerationEvaluator(
        prepared.task, settings, generator, grader, config.seed, config.scorer.layout
    )
    return JudgeEvaluator(writer, settings, reference) if method == "judged" else writer
