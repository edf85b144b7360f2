"""The work: tasks of the shapes of BIG-Bench Hard, and engines that answer at once and report a duration.

Invariants: all rounds of a task have the same number of new candidates; the duration of a request depends on
the request alone, so that a schedule changes the time of the work but never its amount.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import random
from collections.abc import Sequence
from dataclasses import replace

from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.engines.simulated.engine import Pace, SimulatedScorer
from pmpo_ray.protocols import GenerateClient, Observer, ScoreClient
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    EngineInfo,
    Example,
    GenerateRequest,
    GenerateResult,
    Generation,
    RoundRecord,
    ScoreRequest,
    ScoreResult,
    Split,
    Task,
)

# Words of an input and of an answer, and wrong answers, as they are on average in the 27 files.
SHAPES = (
    ("boolean_expressions", 9, 1, 1),
    ("causal_judgement", 188, 1, 1),
    ("date_understanding", 34, 1, 5),
    ("disambiguation_qa", 50, 1, 2),
    ("dyck_languages", 39, 2, 4),
    ("formal_fallacies", 92, 1, 1),
    ("geometric_shapes", 42, 1, 9),
    ("hyperbaton", 20, 1, 1),
    ("logical_deduction_five_objects", 103, 1, 4),
    ("logical_deduction_seven_objects", 133, 1, 6),
    ("logical_deduction_three_objects", 71, 1, 2),
    ("movie_recommendation", 34, 1, 3),
    ("multistep_arithmetic_two", 16, 1, 4),
    ("navigate", 35, 1, 1),
    ("object_counting", 23, 1, 4),
    ("penguins_in_a_table", 97, 1, 4),
    ("reasoning_about_colored_objects", 66, 1, 13),
    ("ruin_names", 32, 1, 3),
    ("salient_translation_error_detection", 161, 1, 5),
    ("snarks", 35, 1, 1),
    ("sports_understanding", 12, 1, 1),
    ("temporal_sequences", 106, 1, 3),
    ("tracking_shuffled_objects_five_objects", 114, 1, 4),
    ("tracking_shuffled_objects_seven_objects", 143, 1, 6),
    ("tracking_shuffled_objects_three_objects", 85, 1, 2),
    ("web_of_lies", 29, 1, 1),
    ("word_sorting", 18, 12, 4),
)
CANDIDATES = 13
EXAMPLES = 50
REWRITER_BATCH = 16
JITTER, STRAGGLERS = 0.15, 0.01
_WORDS = (
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
)


def bbh_shaped(count: int) -> list[Task]:
    """`count` tasks of the 27 shapes in turn."""
    return [_task(f"{SHAPES[n % 27][0]}-{n // 27}", *SHAPES[n % 27][1:]) for n in range(count)]


def _task(name: str, words: int, answer_words: int, negatives: int) -> Task:
    draw = random.Random(name)

    def text(length: int) -> str:
        return " ".join(draw.choices(_WORDS, k=max(1, length)))

    examples = tuple(
        Example(
            id=f"{name}-{number}",
            input=text(round(words * draw.uniform(0.6, 1.4))),
            target=text(answer_words),
            negatives=tuple(f"{text(answer_words)} {wrong}" for wrong in range(negatives)),
        )
        for number in range(EXAMPLES + 1)
    )
    return Task(name, "options", f"The task {name}.", "Let's think step by step.", examples)


def search_setup(
    task: Task, rounds: int, scorer: ScoreClient, rewriter: GenerateClient, observer: Observer
) -> SearchSetup:
    """One task's search: 13 rewriting requests a round, one new candidate each, one shot."""

    async def keep(record: RoundRecord, _rounds: Sequence[RoundRecord]) -> None:
        if len(record.refusals) or (record.round > 0 and len(record.candidates) != CANDIDATES + 1):
            raise RuntimeError(f"{task.name}, round {record.round}: not {CANDIDATES} new candidates")

    return SearchSetup(
        task=task,
        split=Split(train=task.examples[:EXAMPLES], shots=task.examples[EXAMPLES:], test=()),
        objective=make_objective("preference", beta=1.0, per_token=False),
        style="short",
        settings=SearchConfig(
            rounds=rounds,
            hard_examples=CANDIDATES,
            variants=1,
            operators=("rewrite",),
            masking="off",
            racing=None,
            reasks=0,
        ),
        sampling=RewriterConfig(max_tokens=160),
        seed=0,
        scorer=scorer,
        rewriter=rewriter,
        keep=keep,
        observer=observer,
        clock=asyncio.get_running_loop().time,
    )


class WorkScorer(SimulatedScorer):
    """The simulated scorer at a pace with jitter and stragglers."""

    def __init__(self, tokens_per_s: float) -> None:
        super().__init__(scorer_model(tokens_per_s))

    def on_call(
        self,
        instruction: str,
        examples: tuple[Example, ...],
        start: int,
        stop: int,
        shots: tuple[Example, ...],
    ) -> ScoreResult:
        """The answer of a scorer replica."""
        return self.answer(ScoreRequest(instruction, examples[start:stop], shots))


class FreshRewriter:
    """An engine whose every sample is a new, usable instruction of about 40 words; a request takes as long
    as its own tokens."""

    def __init__(self, tokens_per_s: float) -> None:
        self._pace = Pace(tokens_per_s, JITTER, STRAGGLERS)
        self._info = replace(SimulatedScorer("fresh").info(), engine="fresh")

    def info(self) -> EngineInfo:
        return self._info

    def answer(self, request: GenerateRequest) -> GenerateResult:
        """The samples of one request, with their duration."""
        basis = f"{request.prompt}/{request.seed}"
        draw = random.Random(hashlib.sha256(basis.encode()).digest())
        # Words that no example has: the gate refuses what is copied from one.
        text = f"Do {' '.join(f'{draw.getrandbits(20):05x}' for _ in range(40))}."
        tokens = draw.randint(80, 160)
        sample = Generation(f"<prompt>{text}</prompt>", tokens, finished=True)
        seconds = self._pace.seconds(tokens, basis)
        return GenerateResult((sample,) * request.n, len(request.prompt) // 4, seconds)


class RewriterReplica:
    """An actor that answers as FreshRewriter does and sleeps for the duration, 16 requests at a time."""

    def __init__(self, tokens_per_s: float) -> None:
        self._engine = FreshRewriter(tokens_per_s)
        self._slots = asyncio.Semaphore(REWRITER_BATCH)

    async def start(self) -> EngineInfo:
        return self._engine.info()

    async def ping(self) -> str:
        return f"{platform.node()}:{os.getpid()}"

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        async with self._slots:
            result = self._engine.answer(request)
            await asyncio.sleep(result.seconds)
            return result


def scorer_model(tokens_per_s: float) -> str:
    """The simulated engine's name for this pace."""
    return f"simulated:tokens_per_s={tokens_per_s:g},jitter={JITTER},stragglers={STRAGGLERS}"
