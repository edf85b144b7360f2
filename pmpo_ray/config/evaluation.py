"""The section about held-out evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pmpo_ray.config.base import (
    Calibrate,
    NonNegative,
    Positive,
    Section,
    Share,
    Temperature,
    Units,
    true_false_or,
)
from pmpo_ray.config.engines import EndpointConfig, Engine
from pmpo_ray.config.instruction_files import Instruction


class EvaluatorConfig(Section):
    """A model that decides if a reply agrees with the target. Without `model` rules decide."""

    model: str | None = None
    engine: Engine = "openai"
    endpoint: EndpointConfig = EndpointConfig()


class JudgeConfig(Section):
    """The judge of AlpacaEval, for tasks of better and worse answers. The judge generates one token whose
    log-likelihoods count (`weighted`), or a ranking in words (`plain`). `references` is a file of outputs in
    AlpacaEval's format (None: the outputs under the start instruction)."""

    model: str | None = None
    annotator: Literal["weighted", "plain"] = "weighted"
    references: str | None = None
    endpoint: EndpointConfig = EndpointConfig()


class ProcessRewardConfig(Section):
    """A process-reward model that rates the steps of generated replies, if `model` is set. `separator` is the
    text or token that ends a step (None: the known separator of the model)."""

    model: str | None = None
    separator: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    gpus: Units | None = None


Baseline = Literal["answer_only", "step_by_step", "rephrase", "step_back", "description"]


class EvaluationConfig(Section):
    """Held-out accuracy. A run evaluates its first and its best instruction. `pmpo evaluate` also uses
    `models` (empty: the scorer's), `baselines`, `instructions` by name (a text, a file as @PATH, or texts by
    task), `shots` (None: those of the split), `seeds` repetitions and, with `candidates`, all candidates of a
    run.

    `limit` bounds the test examples of a task, which are drawn at random; on 1,000 the 95% interval of an
    accuracy reaches 3 points to each side. `method` auto chooses among the target and its negatives by
    likelihood, and generates if answers are free text. `temperature` 0 is greedy. With `follow_up` the model
    is prompted once more, for the answer alone, if its reply contains none. `evaluator` is a model
    that compares replies with the targets, in place of rules; `judge` compares whole answers with others;
    `process_reward` rates the steps of replies. `calibrate` is as in the search (None: its value)."""

    enabled: bool = True
    limit: Positive | None = 1000
    method: Literal["auto", "likelihood", "generation"] = "auto"
    calibrate: Annotated[Calibrate | None, true_false_or("inputs")] = None
    max_tokens: Annotated[Positive, Field(le=1_000_000)] = 256
    temperature: Temperature = 0.0
    top_p: Share = 1.0
    follow_up: bool = True
    seeds: Annotated[Positive, Field(le=10_000)] = 1
    models: tuple[str, ...] = ()
    baselines: tuple[Baseline, ...] = ("description",)
    instructions: dict[str, Instruction] = Field(default_factory=dict)
    shots: tuple[NonNegative, ...] | None = None
    candidates: Literal["best", "all"] = "best"
    evaluator: EvaluatorConfig = EvaluatorConfig()
    judge: JudgeConfig = JudgeConfig()
    process_reward: ProcessRewardConfig = ProcessRewardConfig()
