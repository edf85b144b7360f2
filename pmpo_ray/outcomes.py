"""Values of evaluations and of whole runs: outcomes, accuracies with their intervals, results and progress.

Invariants: as in `types`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an instruction on one held-out example. `answer` is the one that was chosen, or read from
    `reply`; None if no answer could be read, which counts as wrong but is reported separately. `loss` is the
    example's loss in nats if answers were scored. `score` (0 to 1) is a judge's preference for the reply over
    a reference, or the mean score of its steps, if either is configured. `tokens` counts generated tokens.
    `fits` is False for an example that the model's context does not hold: it is left out, not wrong."""

    example: str
    right: bool
    answer: str | None
    reply: str = ""
    loss: float | None = None
    score: float | None = None
    tokens: int = 0
    fits: bool = True


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """The number of replicas of a pool from the time `at` (seconds since 1970) on: those with their model
    loaded (`ready`), and those that are starting (`coming`)."""

    at: float
    pool: str
    ready: int
    coming: int


Method = Literal["likelihood", "generation", "judged"]


@dataclass(frozen=True, slots=True)
class Condition:
    """The subject of an evaluation: one instruction on one task, with one model, number of shots and
    repetition. `name` is the instruction's name, `train_loss` its batch loss in the run, None if it was not
    part of the run. `shots` counts the demonstrations that every instruction gets; behind them stand the
    instruction's own, the training examples with the ids `own_shots`."""

    task: str
    model: str
    name: str
    instruction: str
    shots: int
    repetition: int
    method: Method
    train_loss: float | None = None
    own_shots: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """A condition and its outcomes, one for each test example, in the order of the test part. `labels` are
    the right labels of the examples, in the same order; empty for a task without a closed set of labels, and
    in a file of a version that did not keep them."""

    condition: Condition
    outcomes: tuple[Outcome, ...]
    labels: tuple[str, ...] = ()


IntervalMethod = Literal["Wilson", "Wilson by label", "bootstrap", "Tango", "permutation", "searches"]
"""The method of an interval; `pmpo_ray.evaluation.statistics` describes which figure has which."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, such as a proportion, or a difference of means, with the bounds of its 95% confidence interval
    by `method`; `n` is the number of examples."""

    value: float
    low: float
    high: float
    n: int
    method: IntervalMethod = "Wilson"


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """The accuracy on the examples of one label (its recall)."""

    label: str
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class ByLabel:
    """Accuracies by label, the most frequent label first, and the balanced accuracy: their mean."""

    labels: tuple[LabelAccuracy, ...]
    balanced: Interval


@dataclass(frozen=True, slots=True)
class Shot:
    """A demonstration: an input and its right answer."""

    input: str
    target: str


@dataclass(frozen=True, slots=True)
class AnswerBias:
    """The bias of a model towards an answer, in nats: what calibration subtracts from the log-likelihood of
    the answer."""

    answer: str
    nats: float


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The result of a task's optimisation. `stopped` is the reason why it ended, `start` and `best` are
    instructions, and `shots` are the demonstrations that belong to the best one. The scorer read
    `tokens_scored`, the rewriter read `tokens_prompted` (0 in a result of an earlier version) and wrote
    `tokens_generated`; the evaluation does not count. `p_value` is that of the hypothesis that both are
    equally accurate (a paired test on the test part). It and the accuracies are None if no test part was
    evaluated. `prompt_before` and `prompt_after` are the tokens of a training row's prompt, the median, with
    the first and with the best instruction (0: the engine does not tell). `biases` are the constants of the
    best instruction with which its accuracy was measured, if answers are chosen by calibrated likelihood: the
    answer with the highest log-likelihood less its bias is the model's. `labels_before` and `labels_after`
    are the accuracies by label; None if the labels are even, or there are none. `held_out` counts the rows of
    the test part (0: unknown), `too_long` those that were left out of the evaluation because they do not fit
    into the model's context."""

    task: str
    rounds: int
    stopped: str
    start: str
    best: str
    loss_before: float
    loss_after: float
    accuracy_before: Interval | None
    accuracy_after: Interval | None
    tokens_scored: int
    tokens_generated: int
    seconds: float
    tokens_prompted: int = field(default=0, kw_only=True)
    shots: tuple[Shot, ...] = field(default=(), kw_only=True)
    prompt_before: int = field(default=0, kw_only=True)
    prompt_after: int = field(default=0, kw_only=True)
    biases: tuple[AnswerBias, ...] = field(default=(), kw_only=True)
    p_value: float | None = None
    labels_before: ByLabel | None = None
    labels_after: ByLabel | None = None
    held_out: int = 0
    too_long: int = 0


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task without a result, and the reason: its start instruction or its evaluation could not be scored.
    Its finished rounds are kept."""

    task: str
    reason: str


State = Literal["waiting", "scoring", "masking", "rewriting", "evaluating", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one task, sent to observers on every change. `losses` has the best loss after each
    finished round, round 0 first. An evaluation counts conditions in place of rounds, by `unit`. Of the
    `asked` parts of the work in hand (examples, requests) `done` are done."""

    task: str
    state: State
    round: int
    rounds: int
    losses: tuple[float, ...] = ()
    tokens_scored: int = 0
    tokens_prompted: int = field(default=0, kw_only=True)
    tokens_generated: int = 0
    note: str = field(default="")
    unit: Literal["round", "condition"] = "round"
    done: int = 0
    asked: int = 0
