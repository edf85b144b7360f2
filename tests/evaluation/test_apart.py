"""Scores of examples of which a few cannot be scored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.errors import EngineError
from pmpo_ray.evaluation.apart import scored_apart
from pmpo_ray.types import AnswerScore, Example, ExampleScore, ScoreRequest

EXAMPLES = tuple(Example(f"e{number}", f"input {number}", "yes", ("no",)) for number in range(100))


@dataclass
class Scorer:
    """Refuses every request with one of the examples `bad`."""

    bad: Collection[str]
    requests: list[ScoreRequest] = field(default_factory=list)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.requests.append(request)
        for example in request.examples:
            if example.id in self.bad:
                raise EngineError(f"{example.id} is too long")
        return tuple(
            ExampleScore(AnswerScore(-float(example.id[1:]), 1), (), 1) for example in request.examples
        )


@given(st.sets(st.sampled_from([example.id for example in EXAMPLES]), max_size=11))
async def test_every_example_but_those_at_fault_gets_its_score(bad: set[str]) -> None:
    scorer = Scorer(bad)
    scores = await scored_apart(scorer, ScoreRequest("Answer.", EXAMPLES))
    assert [score is None for score in scores] == [example.id in bad for example in EXAMPLES]
    assert all(
        score is None or score.target.logprob == -float(example.id[1:])
        for example, score in zip(EXAMPLES, scores, strict=True)
    )
    # Each example at fault is found in as many steps as the number of examples has binary digits.
    assert len(scorer.requests) <= 1 + 2 * 7 * len(bad)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
async def test_a_scorer_that_always_fails_is_given_up_early(count: int) -> None:
    scorer = Scorer({example.id for example in EXAMPLES})
    with pytest.raises(EngineError, match="too long"):
        await scored_apart(scorer, ScoreRequest("Answer.", EXAMPLES[:count]))
    assert len(scorer.requests) < 40


async def test_one_request_is_enough_where_all_is_well() -> None:
    scorer = Scorer(())
    request = ScoreRequest("Answer.", EXAMPLES)
    assert None not in await scored_apart(scorer, request)
    assert scorer.requests == [request]
