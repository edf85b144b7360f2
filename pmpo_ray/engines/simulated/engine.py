"""An engine without a model, for scheduling, fault and scale tests.

Invariants: every score and every reply is a pure function of the engine's name and the request; a
request fails only if it is longer than the context. Log-likelihoods rise with the quality of the
instruction, so that a search over this engine makes progress.

The name may request the pace of a real model, "simulated:tokens_per_s=5000,jitter=0.1,stragglers=0.01": the
engine then sleeps accordingly. "simulated:context=200" is the length of its context in tokens, and
"simulated:faults=FOLDER" makes it suffer ordered faults (see `faults`).
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from pmpo_ray.engines.simulated.faults import OrderedFaults
from pmpo_ray.errors import ModelError, PromptTooLongError
from pmpo_ray.types import (
    AnswerScore,
    EngineInfo,
    Example,
    ExampleScore,
    GenerateRequest,
    GenerateResult,
    Generation,
    PromptLength,
    ScoreRequest,
    ScoreResult,
)

CONTEXT_LENGTH = 1_000_000
TOKENS_PER_WORD = 1.3
PREFIX = "simulated:"

HELPFUL = ("carefully", "check", "compare", "each", "eliminate", "exactly", "only", "options", "read", "step")
"""Words that make an instruction better, each counted once."""

ADDITIONS = (
    "Read the question carefully.",
    "Go through it step by step.",
    "Compare all the options before you choose.",
    "Eliminate what contradicts the facts.",
    "Check each statement again.",
    "Answer with exactly one of the choices.",
    "Give only the answer.",
    "Be polite.",
)
NO_CONTENT = "N/A"
FALLBACK_INSTRUCTION = "Answer the question."

_PART = re.compile(r"\S[^.!?\n]*[.!?]*")
# The instruction in the project's meta-prompts: in the mask request, the long form and the short form.
_IN_PROMPT = (
    re.compile(r"^[^\n]*\binstruction:[ \t]*\n(.+)\Z", re.DOTALL | re.MULTILINE | re.IGNORECASE),
    re.compile(r"<current>\n(.+?)\n</current>", re.DOTALL),
    re.compile(r"^Instruction: (.+)\n\n[^\n]+\Z", re.DOTALL | re.MULTILINE),
)

STRAGGLER = 4.0
"""Duration of a straggler relative to other requests."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Duration of work: `tokens_per_s`, with log-normal noise of sigma `jitter`, and four times as long for a
    share of the requests (`stragglers`). The same request always takes the same time. `context` is the length
    of the context in tokens."""

    tokens_per_s: float = math.inf
    jitter: float = 0.0
    stragglers: float = 0.0
    context: float = CONTEXT_LENGTH

    def seconds(self, tokens: int, *basis: str) -> float:
        """Seconds for a request of `tokens` tokens that `basis` identifies."""
        seconds = tokens / self.tokens_per_s
        if self.jitter > 0 and seconds > 0:
            # Away from 0 and 1, where the normal distribution has no quantiles.
            share = 0.001 + 0.998 * _uniform("jitter", *basis)
            seconds *= math.exp(self.jitter * NormalDist().inv_cdf(share))
        if self.stragglers > 0 and _uniform("straggler", *basis) < self.stragglers:
            seconds *= STRAGGLER
        return seconds


class SimulatedScorer:
    """A Scorer whose likelihoods come from hashes. Raises ModelError for a name it cannot read."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._pace, self._faults = _settings(model)
        self._faults.at_start()

    def info(self) -> EngineInfo:
        return _info(self._model, self._pace)

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """As in `Measurer.lengths`."""
        return _lengths(request)

    def score(self, request: ScoreRequest) -> ScoreResult:
        """As in `Scorer.score`, in the time that a model of this pace takes."""
        self._faults.at_call()
        result = self.answer(request)
        if result.seconds > 0:
            time.sleep(result.seconds)
        return result

    def answer(self, request: ScoreRequest) -> ScoreResult:
        """The result of `score` without the wait, with the seconds that it would have taken. The shared part
        of the request counts as computed once."""
        shared = _shared(request)
        surprise = 2.0 - 1.5 * instruction_quality(request.instruction)
        scores = tuple(
            self._example_score(request, example, shared, surprise) for example in request.examples
        )
        computed = shared + sum(score.tokens - shared for score in scores)
        basis = (request.instruction, *(example.id for example in request.examples[:1]))
        return ScoreResult(scores, computed, self._pace.seconds(computed, *basis))

    def _example_score(
        self, request: ScoreRequest, example: Example, shared: int, surprise: float
    ) -> ExampleScore:
        """Per token, `surprise` nats for the target and 2 for the others, plus or minus 0.4 by hash; behind
        an input without content 2 more, as no text there is about the task."""
        context = shared + _count(example.input)
        more = 2.0 if example.input == NO_CONTENT else 0.0
        answers = (example.target, *example.negatives)
        tokens = [_count(answer) + 1 for answer in answers]
        longest = context + max(tokens)
        if longest > self._pace.context:
            raise PromptTooLongError(
                f"example {example.id!r} has {longest} tokens with its instruction, the context holds "
                f"{self._pace.context:.0f}; shorten it"
            )
        basis = (
            self._model,
            request.instruction,
            *(shot.id for shot in request.shots),
            example.id,
            example.input,
            *answers,
        )
        target, *negatives = (
            AnswerScore(-count * (nats + more + 0.8 * noise - 0.4), count)
            for count, nats, noise in zip(
                tokens,
                (surprise, *[2.0] * len(example.negatives)),
                _uniforms(len(answers), *basis),
                strict=True,
            )
        )
        return ExampleScore(target, tuple(negatives), context)


class SimulatedGenerator:
    """A Generator that answers segmentation and rewriting requests; most of its rewrites are usable, some
    repeat the instruction, some are empty or cut off. Raises ModelError for a name it cannot read."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._pace, self._faults = _settings(model)
        self._faults.at_start()

    def info(self) -> EngineInfo:
        return _info(self._model, self._pace)

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """As in `Measurer.lengths`."""
        return _lengths(request)

    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """As in `Generator.generate`, all requests at the same time: they take as long as the slowest."""
        self._faults.at_call()
        results = [self.answer(request) for request in requests]
        seconds = max((result.seconds for result in results), default=0.0)
        if seconds > 0:
            time.sleep(seconds)
        return [replace(result, seconds=seconds) for result in results]

    def answer(self, request: GenerateRequest) -> GenerateResult:
        """The result for one request without the wait, with the seconds that it alone would have taken: those
        of its longest sample."""
        shots = sum(_count(shot.input) + _count(shot.target) for shot in request.shots)
        prompt_tokens = _count(request.system) + shots + _count(request.prompt)
        if prompt_tokens >= self._pace.context:
            raise PromptTooLongError(
                f"a prompt of {prompt_tokens} tokens leaves no room for an answer, the context holds "
                f"{self._pace.context:.0f}; shorten it"
            )
        samples = tuple(self._sample(request, request.seed + index) for index in range(request.n))
        longest = max((sample.tokens for sample in samples), default=0)
        seconds = self._pace.seconds(longest, request.prompt, str(request.seed))
        return GenerateResult(samples, prompt_tokens, seconds)

    def _sample(self, request: GenerateRequest, seed: int) -> Generation:
        greedy = request.temperature == 0
        draw = _Draw((self._model, request.system, request.prompt, "greedy" if greedy else str(seed)))
        if "</mask>" in request.prompt:
            text, finished = masked(instruction_in(request.prompt)), True
        else:
            text, finished = _rewrite(instruction_in(request.prompt), draw)
        return _limited(text, finished, request)


class _Draw:
    """A sequence of choices that depends on its basis alone."""

    def __init__(self, basis: tuple[str, ...]) -> None:
        self._basis = basis
        self._taken = 0

    def below(self, limit: int) -> int:
        self._taken += 1
        return int(_uniform(*self._basis, str(self._taken)) * limit)


def instruction_quality(instruction: str) -> float:
    """Between 0 and 1: more of the helpful words are better, needless length is worse."""
    words = re.findall(r"[a-z]+", instruction.lower())
    helpful = len(set(words) & set(HELPFUL)) / len(HELPFUL)
    return max(0.0, helpful - 0.001 * len(words))


def instruction_in(prompt: str) -> str:
    """The instruction that a meta-prompt contains; `FALLBACK_INSTRUCTION` if it contains none."""
    for pattern in _IN_PROMPT:
        if match := pattern.search(prompt):
            return match[1].strip()
    return FALLBACK_INSTRUCTION


def masked(instruction: str) -> str:
    """The instruction with its first parts, at most 5, in <mask> tags."""
    marked = _PART.sub(lambda match: f"<mask>{match[0]}</mask>", instruction, count=5)
    return f"<prompt>{marked}</prompt>"


def _rewrite(instruction: str, draw: _Draw) -> tuple[str, bool]:
    """A reply, and whether it is complete."""
    kind = draw.below(10)
    if kind == 0:
        return "<prompt></prompt>", True
    if kind == 1:
        return f"The instruction is vague. <prompt>{instruction}", False
    if kind in (2, 3):
        return f"It is good as it is. <prompt>{instruction}</prompt>", True
    addition = ADDITIONS[draw.below(len(ADDITIONS))]
    if addition in instruction:
        parts = [part for part in _PART.findall(instruction) if part.strip() != addition]
        better = " ".join(part.strip() for part in parts) or addition
    else:
        better = f"{instruction} {addition}"
    return f"The instruction is vague. <prompt>{better}</prompt>", True


def _limited(text: str, finished: bool, request: GenerateRequest) -> Generation:
    """The reply, cut at stop strings and at the token limit."""
    ends = [at for stop in request.stop if stop and (at := text.find(stop)) >= 0]
    if ends:
        text, finished = text[: min(ends)], True
    words = list(re.finditer(r"\S+", text))
    allowed = int(request.max_tokens / TOKENS_PER_WORD)
    if len(words) > allowed:
        text, finished = text[: words[allowed].start()].rstrip(), False
    return Generation(text, _count(text), finished)


def _shared(request: ScoreRequest) -> int:
    """Tokens of the instruction and the shots."""
    return _count(request.instruction) + sum(
        _count(shot.input) + _count(shot.target) for shot in request.shots
    )


def _lengths(request: ScoreRequest) -> tuple[PromptLength, ...]:
    shared = _shared(request)
    return tuple(
        PromptLength(
            shared + _count(example.input),
            1 + max(map(_count, (example.target, *example.negatives))),
        )
        for example in request.examples
    )


@lru_cache(maxsize=100_000)
def _count(text: str) -> int:
    """Tokens of a text."""
    return math.ceil(len(text.split()) * TOKENS_PER_WORD)


def _uniform(*basis: str) -> float:
    """A number in [0, 1) that depends on `basis` alone."""
    return _uniforms(1, *basis)[0]


def _uniforms(count: int, *basis: str) -> list[float]:
    """Numbers in [0, 1) that depend on `basis` alone, from one hash."""
    digest = hashlib.shake_128("\x1f".join(basis).encode("utf-8", "surrogatepass")).digest(7 * count)
    return [int.from_bytes(digest[at : at + 7], "big") / 2**56 for at in range(0, 7 * count, 7)]


def _settings(model: str) -> tuple[Pace, OrderedFaults]:
    """The pace and the faults that a name requests; a name without the prefix requests none."""
    pace, folder = Pace(), ""
    if model.startswith(PREFIX):
        for setting in model.removeprefix(PREFIX).split(","):
            name, _, value = setting.partition("=")
            if name == "faults" and value:
                folder = value
            else:
                pace = replace(pace, **{name: _number(model, name, value)})
    return pace, OrderedFaults(folder)


def _number(model: str, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    limits = {"tokens_per_s": math.inf, "jitter": 2.0, "stragglers": 1.0, "context": CONTEXT_LENGTH}
    if name not in limits or not 0 < number <= limits[name]:
        raise ModelError(
            f"model {model!r}: the simulated engine knows {PREFIX}tokens_per_s=NUMBER,jitter=SIGMA,"
            "stragglers=SHARE,context=TOKENS,faults=FOLDER, with numbers above 0, sigma at most 2 and the "
            "share at most 1"
        )
    return number


def _info(model: str, pace: Pace) -> EngineInfo:
    return EngineInfo(
        engine="simulated",
        model=model,
        revision=hashlib.sha256(model.encode()).hexdigest()[:12],
        parameters=1,
        context_length=int(pace.context),
        layout="plain",
        dtype="float64",
        device="cpu",
    )
