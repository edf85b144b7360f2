"""Racing: who leaves, when, and what is kept of it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.search.calibration import Calibration
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.objectives import batch_loss
from pmpo_ray.search.racing import blocks_of, is_worse, leaving
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    Example,
    ExampleScore,
    RoundRecord,
    ScoredCandidate,
    ScoreRequest,
)
from tests.search.test_loop import setup_of

TRAIN = tuple(Example(f"{n}", f"input {n}", "yes" if n % 4 else "no", ("maybe",)) for n in range(40))


def scored(name: str, losses: list[float]) -> ScoredCandidate:
    parent = None if name == "parent" else "parent"
    return ScoredCandidate(Candidate(name, name, parent, "parent", "rewrite", 1), (), tuple(losses), math.nan)


def settings(level: float = 0.2, **changes: object) -> SearchConfig:
    return SearchConfig.model_validate({"racing": level, **changes})


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=24, max_size=60))
def test_blocks_hold_every_example_once_and_are_balanced(answers: list[str]) -> None:
    train = [Example(f"{n}", f"{n}", answer) for n, answer in enumerate(answers)]
    blocks = blocks_of(train, 0.2)
    assert len(blocks) == 3
    assert sorted(row for block in blocks for row in block) == list(range(len(train)))
    assert len(blocks[0]) == len(blocks[1]) == max(8, len(train) // 4)
    # An answer is rarer than another in the first block only if the block has all its examples, or by one.
    first, every = Counter(answers[row] for row in blocks[0]), Counter(answers)
    assert all(first[one] >= min(every[one], first[other] - 1) for one in every for other in every)


@pytest.mark.parametrize(("count", "level"), [(23, 0.2), (40, None)])
def test_few_examples_or_no_level_are_one_block(count: int, level: float | None) -> None:
    assert blocks_of(TRAIN[:count], level) == (tuple(range(count)),)


def test_the_worse_one_leaves_and_the_better_and_the_even_stay() -> None:
    parent = scored("parent", [1.0, 0.9, 1.1, 1.0] * 10)
    children = [
        scored("better", [0.5, 0.4, 0.5, 0.6] * 10),
        scored("worse", [1.5, 1.3, 1.6, 1.5] * 10),
        scored("even", [1.0, 0.9, 1.1, 1.0] * 10),
        scored("broken", [math.inf, *[0.1] * 39]),
    ]
    rows = tuple(range(10))
    # Against the parent alone, an equal one stays; against the better one it is worse.
    without = [child for child in children if child.candidate.id != "better"]
    assert leaving(without, [parent], rows, [1.0] * 40, settings()) == {"worse", "broken"}
    assert leaving(children, [parent], rows, [1.0] * 40, settings()) == {"worse", "even", "broken"}
    # Two survive, so the worst survivor is the parent again.
    two = settings(population=2, max_siblings=2)
    assert leaving(children, [parent], rows, [1.0] * 40, two) == {"worse", "broken"}
    # More places than candidates: nobody leaves.
    many = settings(population=9, max_siblings=9)
    assert leaving(children, [parent], rows, [1.0] * 40, many) == set()
    # Nor may more than one survive of those that have the same parent: then it has to beat its sibling.
    one = settings(population=9, max_siblings=1)
    assert leaving(children, [parent], rows, [1.0] * 40, one) == {"worse", "even", "broken"}


def test_only_the_scored_rows_and_their_weights_count() -> None:
    parent = scored("parent", [1.0] * 40)
    child = scored("child", [*[0.5, 0.4] * 5, *[math.nan] * 30])
    assert leaving([child], [parent], range(10), [1.0] * 40, settings()) == set()
    # Outputs to avoid: with weights below 0 a lower loss is worse.
    assert leaving([child], [parent], range(10), [-1.0] * 40, settings()) == {"child"}
    assert leaving([child], [parent], range(10), [0.0] * 40, settings()) == set()


def test_the_difference_of_the_penalties_counts_on_every_example() -> None:
    parent = replace(scored("parent", [1.0, 0.9, 1.1, 1.0] * 10), penalty=0.2)
    lower = scored("lower", [0.9, 0.7, 1.0, 0.8] * 10)
    higher = scored("higher", [1.1, 1.1, 1.2, 1.2] * 10)

    def left(child: ScoredCandidate, penalty: float, weights: list[float] | None = None) -> bool:
        found = leaving(
            [replace(child, penalty=penalty)], [parent], range(10), weights or [1.0] * 40, settings()
        )
        return bool(found)

    # Its losses are lower by 0.15 in the mean.
    assert [left(lower, penalty) for penalty in (0.2, 0.3, 0.4)] == [False, False, True]
    # Higher by as much.
    assert [left(higher, penalty) for penalty in (0.2, 0.1, 0.0)] == [True, True, False]
    # With examples to avoid, a higher loss is better, a higher penalty is not.
    assert [left(higher, penalty, [-2.0] * 40) for penalty in (0.2, 0.3, 0.4)] == [False, False, True]
    assert left(lower, math.inf)


@pytest.mark.parametrize("level", [0.05, 0.2, 0.4])
def test_candidates_that_are_no_worse_leave_at_the_stated_level(level: float) -> None:
    import random

    rng = random.Random(0)
    left = [is_worse([rng.gauss(0, 1) for _ in range(10)], level) for _ in range(4000)]
    assert sum(left) / len(left) == pytest.approx(level, abs=0.03)


@dataclass
class Spread:
    """A scorer whose losses depend on the text, with a part that varies between examples; replies come in
    any order."""

    backwards: bool = False
    seen: Counter[str] = field(default_factory=Counter)

    async def score(self, request: ScoreRequest, *, rounds_left: int = 0) -> tuple[ExampleScore, ...]:
        words = len(request.instruction)
        await asyncio.sleep((words % 7 if self.backwards else 7 - words % 7) / 5000)
        self.seen[request.instruction] += len(request.examples)
        return tuple(
            ExampleScore(
                AnswerScore(-(words % 11) / 4 - hash_of(example.input + request.instruction), 2),
                tuple(AnswerScore(-1.0, 2) for _ in example.negatives),
                20,
            )
            for example in request.examples
        )


def hash_of(text: str) -> float:
    return sum(map(ord, text)) % 10 / 20


def raced(scorer: Spread, kept: list[RoundRecord] | None = None, **changes: object) -> SearchSetup:
    setup = setup_of(kept=kept, **{"rounds": 4, "masking": "rules", "racing": 0.2, **changes})
    train = tuple(
        replace(TRAIN[n], target=example.target, negatives=example.negatives)
        for n, example in enumerate(setup.split.train * 4)
        if n < 40
    )
    return replace(setup, split=replace(setup.split, train=train), scorer=scorer)


def untimed(records: tuple[RoundRecord, ...]) -> list[RoundRecord]:
    return [replace(record, seconds=0.0) for record in records]


async def test_who_leaves_was_scored_on_less_and_never_survives() -> None:
    scorer = Spread()
    kept: list[RoundRecord] = []
    outcome = await search_task(raced(scorer, kept))
    found = {one.candidate.id: one for record in kept for one in record.candidates}
    left = [one for one in found.values() if one.left]
    assert left
    assert {one.left for one in left} <= {10, 20}
    for one in left:
        assert scorer.seen[one.candidate.text] == one.left
        assert sum(not math.isnan(loss) for loss in one.losses) == one.left
        assert len(one.losses) == 40
        own = [loss for loss in one.losses if not math.isnan(loss)]
        assert one.loss == pytest.approx(batch_loss(own, [1.0] * len(own)))
    survivors = {name for record in outcome.records for name in record.survivors}
    assert not survivors & {one.candidate.id for one in left}
    whole = await search_task(raced(Spread(), racing=None))
    assert outcome.best.loss == pytest.approx(whole.best.loss)
    assert sum(r.tokens_scored for r in outcome.records) < 0.8 * sum(r.tokens_scored for r in whole.records)


async def test_decisions_do_not_depend_on_who_answers_first() -> None:
    one, other = await search_task(raced(Spread())), await search_task(raced(Spread(backwards=True)))
    assert repr(untimed(one.records)) == repr(untimed(other.records))


@pytest.mark.parametrize("finished", [1, 3])
async def test_a_continued_race_equals_an_undisturbed_one(finished: int) -> None:
    kept: list[RoundRecord] = []
    whole = await search_task(raced(Spread(), kept))
    again = await search_task(raced(Spread()), kept[:finished])
    # repr lets a nan equal a nan.
    assert repr(untimed(again.records)) == repr(untimed(whole.records))


@pytest.mark.parametrize("calibrate", [True, "inputs"])
async def test_racing_calibrates_by_what_was_scored(calibrate: bool | str) -> None:
    """A calibrated race without anybody leaving equals a calibrated search without racing."""
    # With places for all, nobody leaves.
    plain = raced(Spread(), racing=None, rounds=1, population=50, max_siblings=50)
    calibration = Calibration.of(plain.task, calibrate)  # type: ignore[arg-type]
    whole = await search_task(replace(plain, calibration=calibration))
    racing = raced(Spread(), rounds=1, population=50, max_siblings=50)
    race = await search_task(replace(racing, calibration=calibration))
    one, other = whole.records[1], race.records[1]
    assert not any(found.left for found in other.candidates)
    assert [found.loss for found in one.candidates] == pytest.approx(
        [found.loss for found in other.candidates]
    )
    assert one.tokens_scored == other.tokens_scored
