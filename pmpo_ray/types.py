"""Values that cross boundaries: between modules, processes and the run folder.

Invariant: every value here is immutable, picklable, and free of torch, ray and file handles.
Log-likelihoods are in nats, lengths in tokens, times in seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["options", "labels", "text", "pairs"]
"""What the targets of a task are: options listed in each input, labels from a closed set,
free text, or preferred/dispreferred pairs."""

Operator = str
"""What made a candidate: one of OPERATORS, or the name of an operator of the user's own."""
OPERATORS = ("seed", "rewrite", "mask_drop")
"""The operators that come along."""
Status = Literal["survivor", "dropped", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: input x, wanted output y+ (`target`), unwanted outputs y- (`negatives`),
    and the weight r of the row in the batch loss. `id` is unique and stable within its task."""

    id: str
    input: str
    target: str
    negatives: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of examples with the instruction to start from.

    `labels` is the closed label set, empty for every kind but "labels". `test_examples` is a test
    part that the data set itself defines; where it is empty, the test part is split off `examples`.
    """

    name: str
    kind: Kind
    description: str
    instruction: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    test_examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts of a task: what the optimiser sees (`train`), demonstrations that stand in
    every prompt (`shots`), what only the final evaluation reads (`test`), and what the final pick is made
    on where there is such a part (`validation`)."""

    train: tuple[Example, ...]
    shots: tuple[Example, ...]
    test: tuple[Example, ...]
    validation: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """log p(answer | instruction, input): the sum over the answer's `tokens` tokens, in nats,
    its end-of-turn token included."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """Scores of one example under one instruction; `negatives` in the example's order.
    `context_tokens` counts instruction, shots and input with their template."""

    target: AnswerScore
    negatives: tuple[AnswerScore, ...]
    context_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens of the context once and of every answer: what this score is charged for.
        It does not depend on how an engine shared or packed the work."""
        return self.context_tokens + self.target.tokens + sum(score.tokens for score in self.negatives)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One unit of scoring work: one instruction on a chunk of examples."""

    instruction: str
    examples: tuple[Example, ...]
    shots: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores in the order of the request's examples. `tokens_computed` is what really went through
    the model, after sharing; `seconds` is the engine's own time."""

    scores: tuple[ExampleScore, ...]
    tokens_computed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One user turn to answer `n` times by sampling. Sample i uses `seed + i` alone, so a sample does
    not depend on what else runs. temperature 0 means greedy. Generation ends at the model's
    end-of-turn token, at the first of the `stop` strings (not part of the text), or after
    `max_tokens` tokens. `system` is a system turn, empty for none."""

    prompt: str
    n: int = 1
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    system: str = ""
    shots: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled answer. `finished` is False where it was cut off at the token limit."""

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """The samples of one request, in seed order."""

    samples: tuple[Generation, ...]
    prompt_tokens: int
    seconds: float

    @property
    def tokens(self) -> int:
        """Tokens generated, over all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a replica runs. `revision` identifies the weights (hub commit or checksum), empty where a server
    does not tell; `parameters` is 0 where their number is unknown; `context_length` is in tokens; `fallback`
    names a slower path in use, empty for none."""

    engine: str
    model: str
    revision: str
    parameters: int
    context_length: int
    layout: str
    dtype: str
    device: str
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instruction text in a population. `parent` is the id it was made from (None for a seed),
    `lineage` the id of its first ancestor. Ids are unique in a task and sort by age."""

    id: str
    text: str
    parent: str | None
    lineage: str
    operator: Operator
    round: int


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate with its scores on every training example (in training order), the example losses
    derived from them, and the batch loss (Eq. 4, weighted)."""

    candidate: Candidate
    scores: tuple[ExampleScore, ...]
    losses: tuple[float, ...]
    loss: float

    def without_scores(self) -> ScoredCandidate:
        """The same with its batch loss alone: a fraction of the memory."""
        return replace(self, scores=(), losses=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A text that did not become a scored candidate, and why. `status` is "refused" where the gate
    turned it down and "failed" where it could not be scored."""

    id: str
    text: str
    parent: str
    lineage: str
    operator: Operator
    reason: str
    status: Literal["refused", "failed"] = "refused"


@dataclass(frozen=True, slots=True)
class Segment:
    """A removable unit of an instruction: `text == instruction[start:end]`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class SegmentImportance:
    """dL_j = L(instruction without segment j) - L(instruction), in nats. Positive: the segment helps."""

    candidate: str
    index: int
    segment: Segment
    importance: float


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """All that one finished round of one task has to leave behind; the search continues from it.

    `candidates` are all scored ones that took part, parents included; `survivors` are ids, best
    first. Round 0 scores the seeds alone. Tokens and seconds are this round's own.
    """

    task: str
    round: int
    candidates: tuple[ScoredCandidate, ...]
    survivors: tuple[str, ...]
    refusals: tuple[Refusal, ...] = ()
    segments: tuple[SegmentImportance, ...] = ()
    tokens_scored: int = 0
    tokens_generated: int = 0
    seconds: float = 0.0

    @property
    def scored_survivors(self) -> tuple[ScoredCandidate, ...]:
        """The survivors, best first."""
        scored = {candidate.candidate.id: candidate for candidate in self.candidates}
        return tuple(scored[name] for name in self.survivors)

    def slim(self, whole: Collection[str] = ()) -> RoundRecord:
        """The same with scores for the candidates with the ids `whole` alone: what a run of many tasks keeps
        in memory of the rounds that are stored."""
        return replace(
            self,
            candidates=tuple(
                scored if scored.candidate.id in whole else scored.without_scores()
                for scored in self.candidates
            ),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an instruction did on one held-out example. `answer` is what was chosen, or read from `reply`; None
    where no answer could be read, which counts as wrong and is told apart. `loss` is the example's loss in
    nats where answers were scored, `score` (0 to 1) how a judge prefers the reply to a reference, or the mean
    score of its steps, where either was asked. `tokens` were generated."""

    example: str
    right: bool
    answer: str | None
    reply: str = ""
    loss: float | None = None
    score: float | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaCount:
    """How many replicas a pool had from `at` (seconds since 1970) on: with their model loaded, and coming."""

    at: float
    pool: str
    ready: int
    coming: int


Method = Literal["likelihood", "generation", "judged"]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is evaluated: one instruction on one task, with one model, number of shots and repetition. `name`
    is what the instruction is called; `train_loss` its batch loss in the run, if it took part."""

    task: str
    model: str
    name: str
    instruction: str
    shots: int
    repetition: int
    method: Method
    train_loss: float | None = None


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """A condition and its outcomes, one a test example, in the order of the test part."""

    condition: Condition
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, such as a proportion, with the ends of its 95% confidence interval; `n` is the number of
    examples."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task's optimisation came to. `stopped` is why it ended. Accuracies are None where no
    test part was evaluated, and `p_value`, that of both being equally accurate (McNemar's exact test on the
    test part), too."""

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
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task that came to no result, and why: its start instruction or its evaluation could not be scored.
    Its finished rounds are kept."""

    task: str
    reason: str


State = Literal["waiting", "scoring", "masking", "rewriting", "evaluating", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one task stands; sent to observers on every change. `losses` holds the best loss after
    each finished round, round 0 first."""

    task: str
    state: State
    round: int
    rounds: int
    losses: tuple[float, ...] = ()
    tokens_scored: int = 0
    tokens_generated: int = 0
    note: str = field(default="")
