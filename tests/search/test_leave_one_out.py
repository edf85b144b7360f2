"""No example is scored behind itself, and its substitute keeps the right answers as frequent as they were."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.search.leave_one_out import LeaveOneOut, apart
from pmpo_ray.types import AnswerScore, Example, ExampleScore, ScoreRequest

TRAIN = tuple(Example(f"{n}", f"input {n}", "yes" if n % 3 else "no", ("maybe",)) for n in range(9))


class Recording:
    """Scores that say what stood before the input."""

    def __init__(self) -> None:
        self.requests: list[ScoreRequest] = []

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        self.requests.append(request)
        return tuple(
            ExampleScore(
                AnswerScore(-float(example.id), 1), (AnswerScore(-99.0, 1),), 100 + len(request.shots)
            )
            for example in request.examples
        )


@given(st.lists(st.sampled_from(TRAIN), unique=True, max_size=8), st.permutations(TRAIN))
def test_every_example_is_scored_once_behind_others_alone(
    shots: list[Example], examples: list[Example]
) -> None:
    request = ScoreRequest("Do.", tuple(examples), tuple(shots))
    parts = apart(request, TRAIN)
    assert Counter(e for part in parts for e in part.examples) == Counter(examples)
    for part in parts:
        shown = [shot.input for shot in part.shots]
        assert len(set(shown)) == len(shown)
        assert not {example.input for example in part.examples} & set(shown)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_substitute_has_the_same_answer_and_the_same_place(place: int) -> None:
    shots = (TRAIN[1], TRAIN[3], TRAIN[4])
    main, *others = apart(ScoreRequest("Do.", TRAIN, shots), TRAIN)
    assert main.shots == shots
    part = others[place]
    assert part.examples == (shots[place],)
    assert [shot.target for shot in part.shots] == [shot.target for shot in shots]
    assert [one for n, one in enumerate(part.shots) if n != place] == [
        one for n, one in enumerate(shots) if n != place
    ]
    assert part.shots[place] not in shots


def test_without_a_substitute_a_demonstration_fewer_is_shown() -> None:
    train = (*TRAIN, Example("only", "the only one", "perhaps"))
    parts = apart(ScoreRequest("Do.", train, (train[-1], TRAIN[0])), train)
    [alone] = [part for part in parts if part.examples == (train[-1],)]
    assert alone.shots == (TRAIN[0],)


def test_examples_with_the_same_input_are_scored_behind_none_of_them() -> None:
    twins = Example("a", "the same", "yes"), Example("b", "the same", "no")
    train = (*TRAIN, *twins)
    for part in apart(ScoreRequest("Do.", train, (twins[0],)), train):
        if set(part.examples) & set(twins):
            assert "the same" not in {shot.input for shot in part.shots}


async def test_scores_come_back_in_the_order_of_the_examples() -> None:
    inner = Recording()
    request = ScoreRequest("Do.", TRAIN[::-1], (TRAIN[2], TRAIN[5]))
    scores = await LeaveOneOut(inner, TRAIN).score(request, rounds_left=3)
    assert [score.target.logprob for score in scores] == [-float(example.id) for example in TRAIN[::-1]]
    assert len(inner.requests) == 3


async def test_a_request_without_such_examples_is_sent_as_it_is() -> None:
    inner = Recording()
    request = ScoreRequest("Do.", TRAIN[:3], TRAIN[4:6])
    await LeaveOneOut(inner, TRAIN).score(request)
    [sent] = inner.requests
    assert sent is request
