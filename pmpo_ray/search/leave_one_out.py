"""Scores of training examples behind demonstrations that are training examples themselves.

Invariant: no example is scored behind itself. In its place another training example with the same answer is
shown, so that the right answer is among the demonstrations as often as it is for every other example; without
one, a demonstration fewer is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.protocols import ScoreClient
from pmpo_ray.types import Example, ExampleScore, ScoreRequest


class LeaveOneOut:
    """A client that scores each example with `inner`: behind all demonstrations of the request, or, if it is
    one of them, behind the others and a substitute from `train`."""

    def __init__(self, inner: ScoreClient, train: Sequence[Example]) -> None:
        self._inner = inner
        self._train = tuple(train)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        """As in `ScoreClient.score`."""
        parts = apart(request, self._train)
        if parts == (request,):
            return await self._inner.score(request, rounds_left=rounds_left)
        replies = await gather_or_cancel(self._inner.score(part, rounds_left=rounds_left) for part in parts)
        scores = {
            example: score
            for part, reply in zip(parts, replies, strict=True)
            for example, score in zip(part.examples, reply, strict=True)
        }
        return tuple(scores[example] for example in request.examples)


def apart(request: ScoreRequest, train: Sequence[Example]) -> tuple[ScoreRequest, ...]:
    """The requests into which one is divided so that no example is scored behind itself: one for the examples
    that are not shown, and one for each that is. Without such examples it is the request itself."""
    shown = {shot.input for shot in request.shots}
    own = [example for example in request.examples if example.input in shown]
    if not own:
        return (request,)
    others = tuple(example for example in request.examples if example.input not in shown)
    main = (replace(request, examples=others),) if others else ()
    return (*main, *(_without(example, request, train) for example in own))


def _without(example: Example, request: ScoreRequest, train: Sequence[Example]) -> ScoreRequest:
    """The request for one example, with a substitute in its place among the shots."""
    taken = {shot.input for shot in request.shots}
    shots: list[Example] = []
    for shot in request.shots:
        if shot.input != example.input:
            shots.append(shot)
        elif (substitute := _substitute(shot, _behind(example, train), taken)) is not None:
            taken.add(substitute.input)
            shots.append(substitute)
    return replace(request, examples=(example,), shots=tuple(shots))


def _behind(example: Example, train: Sequence[Example]) -> Iterable[Example]:
    """The training examples, from the one that follows `example` around to the one before it, so that the
    examples of one answer do not all have the same substitute."""
    place = next((number for number, one in enumerate(train) if one.id == example.id), 0)
    return (*train[place + 1 :], *train[:place])


def _substitute(shot: Example, candidates: Iterable[Example], taken: set[str]) -> Example | None:
    """The first of the candidates with the shot's answer whose input is not taken."""
    same = (one for one in candidates if one.target == shot.target and one.input not in taken)
    return next(same, None)
