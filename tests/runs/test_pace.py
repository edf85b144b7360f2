"""The pace of replicas: measured on texts of which none comes twice, until the time is over."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.runs.pace import ready_replicas, scoring_pace, writing_pace
from pmpo_ray.types import Example, ExampleScore, GenerateRequest, ScoreRequest

REQUEST = ScoreRequest("Sort the message.", (Example("a", "Where is it?", "shipping", ("praise",)),))


@dataclass
class Ticking(InProcessScorer):
    """A scorer that takes a second for each request."""

    now: float = 0.0
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.now += 1
        self.texts.append(request.instruction)
        return await super().score(request, rounds_left=rounds_left)


async def test_scoring_is_measured_for_the_time_that_was_asked_for() -> None:
    scorer = Ticking()
    tokens, seconds, all_tokens = await scoring_pace(
        scorer, [REQUEST], 2, seconds=10, clock=lambda: scorer.now
    )
    assert 10 <= seconds <= 14
    each = all_tokens / len(scorer.texts)
    assert tokens == round(each * seconds)
    # Two requests for the two replicas come before the measurement.
    assert len(scorer.texts) == seconds + 2
    assert len(set(scorer.texts)) == len(scorer.texts)
    assert {text.partition(". ")[2] for text in scorer.texts} == {"Sort the message."}


async def test_every_replica_writes_other_samples() -> None:
    request = GenerateRequest("Instruction: Sort it.\n\nSay it better.", n=3, seed=7)
    replies, _ = await writing_pace(InProcessGenerator(), request, 2)
    assert [len(reply.samples) for reply in replies] == [3, 3]
    assert replies[0].samples != replies[1].samples


async def test_replicas_that_never_come_are_not_waited_for() -> None:
    waiting = iter([1, 1, 3, 3, 3])
    assert await ready_replicas(lambda: next(waiting), 3, 60) == 3
    assert await ready_replicas(lambda: 0, 3, 0.2) == 1
