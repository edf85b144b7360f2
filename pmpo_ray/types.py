"""Values that cross boundaries: between modules, processes and the run folder.

Invariants: every value is immutable and picklable, and contains no objects of torch or ray and no file
handles. Log-likelihoods are in nats, lengths in tokens, times in seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["options", "labels", "text", "pairs"]
"""The kind of a task's targets: options listed in each input, labels from a closed set, free text, or the
preferred outputs of pairs."""

Operator = str
"""The origin of a candidate: one of OPERATORS, or the name of a custom operator."""
WRITING_OPERATORS = ("rewrite", "induce", "contrast", "shorten", "repair")
"""The built-in operators that ask a model to write, in the order in which a round admits their texts."""
OPERATORS = ("seed", *WRITING_OPERATORS, "mask_drop", "compose", "demonstrate")
"""The built-in operators."""
Status = Literal["survivor", "dropped", "refused", "failed"]

Layout = Literal["system", "user", "plain"]
"""The place of the instruction in a prompt: the system turn, the head of the first user turn, or running text
for base models."""
LayoutSetting = Literal["auto", "system", "user", "plain"]
"""A layout, or "auto": the first of system and user that the model's chat template shows, plain without
one."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: input x, target y+, negatives y-, and the weight r of the row in the batch loss.
    `id` is unique and stable within its task. `also_right` are other right answers: the targets of examples
    with the same input."""

    id: str
    input: str
    target: str
    negatives: tuple[str, ...] = ()
    weight: float = 1.0
    also_right: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of examples with the instruction to start from.

    `labels` is the closed label set, empty for every kind except "labels"; `meanings` are phrases that tell
    what each of them stands for, in the same order, empty if the data's owner gives none. `test_examples` is
    a test part that the data set itself defines; if it is empty, the test part is split off `examples`.
    `notes` tell the user how odd rows were taken. `starts` are further instructions that the search starts
    from; results are compared with `instruction`.
    """

    name: str
    kind: Kind
    description: str
    instruction: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    test_examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    meanings: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()

    @property
    def instructions(self) -> tuple[str, ...]:
        """All instructions that the search starts from, `instruction` first."""
        return (self.instruction, *self.starts)


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint parts of a task: the examples that the search scores (`train`), demonstrations in every prompt
    (`shots`), held-out examples for the evaluation (`test`), and those on which the best instruction is
    chosen, if any (`validation`)."""

    train: tuple[Example, ...]
    shots: tuple[Example, ...]
    test: tuple[Example, ...]
    validation: tuple[Example, ...] = ()

    def demonstrations(self, shots: Sequence[str]) -> tuple[Example, ...]:
        """The demonstrations behind an instruction: those of every prompt, then the training examples with
        the ids `shots`. Raises KeyError for an id that the training part lacks."""
        return (*self.shots, *self.trained(shots))

    def trained(self, names: Sequence[str]) -> tuple[Example, ...]:
        """The training examples with these ids, in their order. Raises KeyError for an unknown one."""
        train = {example.id: example for example in self.train} if names else {}
        return tuple(train[name] for name in names)


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """log p(answer | instruction, input) in nats: the sum over the answer's `tokens` tokens, its end-of-turn
    token included."""

    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """The scores of one example under one instruction, with `negatives` in the example's order.
    `context_tokens` counts instruction, shots and input with their template."""

    target: AnswerScore
    negatives: tuple[AnswerScore, ...]
    context_tokens: int

    @property
    def tokens(self) -> int:
        """The cost of this score: the tokens of the context, once, and of every answer. It does not depend on
        how an engine shared or packed the work."""
        return self.context_tokens + self.target.tokens + sum(score.tokens for score in self.negatives)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A unit of scoring work: one instruction on a chunk of examples, after the demonstrations `shots`."""

    instruction: str
    examples: tuple[Example, ...]
    shots: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptLength:
    """The tokens of an example's prompt, from the instruction to the input (`context`), and of its longest
    answer."""

    context: int
    answer: int


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Scores in the order of the request's examples. `tokens_computed` counts the tokens that went through
    the model, those shared by several answers once; `seconds` is the time spent in the engine."""

    scores: tuple[ExampleScore, ...]
    tokens_computed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A user turn to answer `n` times by sampling. Sample i depends only on the seed `seed + i`, not on other
    requests. Temperature 0 means greedy decoding. Generation ends at the model's end-of-turn token, at the
    first of the `stop` strings (not part of the text), or after `max_tokens` tokens.

    `system` is an instruction, empty for none; `shots` are earlier turns. With a `layout` (that of the
    scorer) the prompt is the one that is scored, up to the model's generation prompt. None: a conversation in
    the model's chat format; a base model continues the text.
    """

    prompt: str
    n: int = 1
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    system: str = ""
    shots: tuple[Example, ...] = ()
    layout: LayoutSetting | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One sampled answer. `finished` is False if it was cut off at the token limit."""

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
        """The number of generated tokens of all samples."""
        return sum(sample.tokens for sample in self.samples)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The engine and the model of a replica. `revision` identifies the weights (hub commit or checksum),
    empty if a server does not report it; `parameters` is their number, 0 if unknown; `context_length` is in
    tokens; `fallback` names a slower code path in use, empty for none; `dtype_reason` says why the number
    format is `dtype`, empty if unknown. `encoding` identifies how the replica turns texts into token ids
    (`PromptEncoder.fingerprint`), empty if that is not known; `prompt_note` is what a user should know about
    the prompts, empty for nothing."""

    engine: str
    model: str
    revision: str
    parameters: int
    context_length: int
    layout: str
    dtype: str
    device: str
    fallback: str = ""
    dtype_reason: str = ""
    encoding: str = ""
    prompt_note: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instruction in a population, with the demonstrations that belong to it: `shots` are ids of training
    examples, in the order in which they stand before the input. `parent` is the id of the candidate that it
    was made from (None for a seed), `lineage` the id of its first ancestor, `operator` its origin, `round`
    the round that made it, `hard_case` the id of the training example that it was written for, if any, and
    `request` the id of the WritingRequest that it answers (None: no built-in operator asked a model for it).
    Ids are unique within a task and sort by age."""

    id: str
    text: str
    parent: str | None
    lineage: str
    operator: Operator
    round: int
    shots: tuple[str, ...] = ()
    hard_case: str | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate with its scores on every training example (in training order), the losses of the examples,
    and the batch loss (Eq. 4, weighted). One that left the race after `left` examples has no scores, nan for
    the losses of the other examples, and the batch loss of those `left`; 0: it was scored on all.

    `surprisal` is that of its text behind the task's description, in nats per token (None: it was not read);
    `penalty` is what it adds to the loss where candidates are ranked: `search.readability` times the
    surprisal, 0 without that setting."""

    candidate: Candidate
    scores: tuple[ExampleScore, ...]
    losses: tuple[float, ...]
    loss: float
    left: int = 0
    surprisal: float | None = None
    penalty: float = 0.0

    @property
    def value(self) -> float:
        """The number by which the search ranks candidates, in nats; lower is better."""
        return self.loss + self.penalty

    def without_scores(self) -> ScoredCandidate:
        """This candidate with only its batch loss, which takes a fraction of the memory."""
        return replace(self, scores=(), losses=())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A text, with its demonstrations `shots`, that did not become a scored candidate, and the reason.
    `hard_case` and `request` are as in Candidate. `status` is "refused" if the gate rejected it, "failed" if
    it could not be scored."""

    id: str
    text: str
    parent: str
    lineage: str
    operator: Operator
    reason: str
    status: Literal["refused", "failed"] = "refused"
    shots: tuple[str, ...] = ()
    hard_case: str | None = None
    request: str | None = None


@dataclass(frozen=True, slots=True)
class WritingRequest:
    """A request of a built-in operator to the model that writes.

    `id` has the round and the number of the request in it, such as "002.03". `parent` is the id of the
    candidate whose instruction it asks to better, `hard_case` the id of the training example that it asks to
    better it for, if any, and `examples` the ids of all training examples that it shows. `attempt` is 0 for
    the first request, and 1 or more if refused texts are asked for again; `samples` is the number of texts
    that it asks for. `prompt` is the meta-prompt, without its middle if it is very long; the turns in front
    of it are always the same.
    """

    id: str
    operator: Operator
    parent: str
    hard_case: str | None
    examples: tuple[str, ...]
    attempt: int
    samples: int
    prompt: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A removable unit of an instruction: `text == instruction[start:end]`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class SegmentImportance:
    """dL_j = L(instruction without segment j) - L(instruction), in nats. If it is positive, the segment
    helps."""

    candidate: str
    index: int
    segment: Segment
    importance: float


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """The complete result of one round of one task, from which the search continues.

    `candidates` are all that were scored, parents included; `survivors` are ids, best first. Round 0 scores
    only the seeds. `requests` are those to the model that writes (empty in a round of an earlier version).
    Tokens and seconds are those of this round: the scorer read `tokens_scored`, the rewriter read
    `tokens_prompted` (0 in a round of an earlier version) and wrote `tokens_generated`.
    """

    task: str
    round: int
    candidates: tuple[ScoredCandidate, ...]
    survivors: tuple[str, ...]
    refusals: tuple[Refusal, ...] = ()
    segments: tuple[SegmentImportance, ...] = ()
    tokens_scored: int = 0
    tokens_prompted: int = field(default=0, kw_only=True)
    tokens_generated: int = 0
    seconds: float = 0.0
    requests: tuple[WritingRequest, ...] = field(default=(), kw_only=True)

    @property
    def tokens(self) -> int:
        """Everything that counts towards a token budget."""
        return self.tokens_scored + self.tokens_prompted + self.tokens_generated

    @property
    def scored_survivors(self) -> tuple[ScoredCandidate, ...]:
        """The survivors, best first."""
        scored = {candidate.candidate.id: candidate for candidate in self.candidates}
        return tuple(scored[name] for name in self.survivors)

    def slim(self, whole: Collection[str] = ()) -> RoundRecord:
        """This record without its requests, and with scores only for the candidates whose ids are in `whole`:
        the form in which a run of many tasks keeps stored rounds in memory."""
        return replace(
            self,
            requests=(),
            candidates=tuple(
                scored if scored.candidate.id in whole else scored.without_scores()
                for scored in self.candidates
            ),
        )
