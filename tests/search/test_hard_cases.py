"""Rules for hard cases: the built-in ones, and custom ones whose choices are checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.search.hard_cases import RULES, HardCaseContext, load_hard_cases
from pmpo_ray.search.loop import search_task
from pmpo_ray.types import Candidate, Example, Refusal, RoundRecord, ScoredCandidate
from tests.search.test_loop import setup_of

HERE = "tests.search.test_hard_cases"


def context(
    losses: list[float], weights: list[float] | None = None, targets: str = "", count: int = 3, seed: int = 0
) -> HardCaseContext:
    """A context whose examples have these losses, weights (1) and targets (all the same)."""
    weights = weights or [1.0] * len(losses)
    targets = targets or "a" * len(losses)
    examples = tuple(
        Example(str(n), "input", target, weight=weight)
        for n, (target, weight) in enumerate(zip(targets, weights, strict=True))
    )
    parent = ScoredCandidate(Candidate("r0000-0000", "x", None, "r", "seed", 0), (), tuple(losses), 1.0)
    return HardCaseContext(parent, (parent,), examples, count, 1, seed)


def chosen(rule: str, made: HardCaseContext) -> list[int]:
    return list(load_hard_cases(rule).choose(made))


def test_the_hardest_examples_have_the_highest_losses_and_ties_go_by_index() -> None:
    assert chosen("highest_loss", context([1.0, 3.0, 2.0, 3.0, 0.5])) == [1, 3, 2]


@pytest.mark.parametrize("rule", RULES)
def test_examples_to_avoid_or_ignore_are_never_hard_cases(rule: str) -> None:
    assert set(chosen(rule, context([1.0, 9.0, 9.0, 2.0], [1, -1, 0, 1]))) == {0, 3}


def test_balanced_cases_take_the_hardest_of_each_target_in_turn() -> None:
    losses = [9.0, 8.0, 7.0, 6.0, 1.0, 2.0]
    assert chosen("balanced", context(losses, targets="aaabcb", count=4)) == [0, 3, 4, 1]
    assert chosen("balanced", context(losses, targets="aaaaaa")) == [0, 1, 2]
    assert chosen("balanced", context(losses, targets="abcdef")) == [0, 1, 2]
    assert chosen("balanced", context([1.0], weights=[0.0])) == []


def test_random_cases_depend_on_the_seed_alone() -> None:
    drawn = [chosen("random", context([loss] * 40, seed=seed)) for seed in (1, 1, 2) for loss in (1.0, 2.0)]
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3] != drawn[4]
    assert all(len(set(found)) == 3 for found in drawn)


def written(number: int, losses: dict[int, list[float | None]], parent: float = 1.0) -> RoundRecord:
    """A round whose texts were written for the examples with these indices: their losses, None for one that
    was refused. The parent is the same in every round."""
    origin = ScoredCandidate(Candidate("p", "x", None, "p", "seed", 0), (), (), parent)
    candidates, refusals = [origin], []
    for index, texts in losses.items():
        for place, loss in enumerate(texts):
            name = f"{number}-{index}-{place}"
            if loss is None:
                reason = "duplicate"
                refusals.append(
                    Refusal(name, "", "p", "p", "rewrite", reason, "refused", (), str(index), None)
                )
                continue
            made = Candidate(name, name, "p", "p", "rewrite", number, (), str(index))
            candidates.append(ScoredCandidate(made, (), (), loss))
    return RoundRecord("t", number, tuple(candidates), ("p",), tuple(refusals))


def rewarded(history: Sequence[RoundRecord], examples: int = 6, count: int = 3) -> list[int]:
    """The choice among examples of which the first is the hardest, the last the easiest."""
    made = context([float(examples - n) for n in range(examples)], count=count)
    return chosen("rewarding", replace(made, history=tuple(history)))


def test_without_a_history_the_hardest_are_the_most_rewarding() -> None:
    assert rewarded([]) == rewarded([written(0, {})]) == [0, 1, 2]


def test_an_example_that_was_asked_for_in_vain_yields_its_place() -> None:
    # Half of 1, 5/6 and 4/6 for the first three; 3/6, 2/6 and 1/6 for the others.
    assert rewarded([written(1, {0: [1.2, None], 1: [1.0], 2: [None, None]})]) == [0, 3, 1]
    # A third of 1 and 5/6 after two rounds, with fading: 1 / 2.8 and 5/6 / 2.8.
    twice = [written(number, {0: [None], 1: [None]}) for number in (1, 2)]
    assert rewarded(twice, count=6) == [2, 3, 0, 4, 1, 5]
    # Rounds fade: 1 / 1.8, 3/4 / 2, 2/4 and 1/4.
    assert rewarded([written(1, {0: [None]}), written(2, {1: [None]})], examples=4) == [0, 2, 1]


def test_an_example_whose_texts_lowered_the_loss_is_asked_for_again() -> None:
    # The second gained (0.6 + 0) / 2, three times the mean of three examples: 5/6 x 4 / 2.
    history = [written(1, {0: [None], 1: [0.4, None], 2: [1.5]})]
    assert rewarded(history) == [1, 0, 3]
    # As much as is usual counts as much as never to have been asked.
    assert rewarded([written(1, {0: [0.9], 1: [0.9], 2: [0.9]})]) == [0, 1, 2]


def test_gains_are_those_of_the_value_and_never_below_0() -> None:
    record = written(1, {0: [0.8], 1: [0.9]})
    odd = tuple(
        replace(one, penalty=0.3 if one.candidate.hard_case == "0" else 0.0) for one in record.candidates
    )
    # The first gained nothing, the second all: 1 / 2 and 5/6 x 3 / 2.
    assert rewarded([replace(record, candidates=odd)], count=2) == [1, 2]
    raced = tuple(replace(one, left=8) for one in record.candidates)
    assert rewarded([replace(record, candidates=raced)]) == [2, 0, 3]
    assert rewarded([written(1, {0: [0.8], 1: [0.9]}, parent=math.inf)]) == [2, 0, 3]


@pytest.mark.parametrize("finished", [1, 2, 3])
async def test_a_rule_sees_the_finished_rounds_and_a_search_continues(finished: int) -> None:
    class Seeing:
        def __init__(self) -> None:
            self.rounds: list[tuple[int, tuple[int, ...]]] = []

        def choose(self, made: HardCaseContext) -> Sequence[int]:
            self.rounds.append((made.round, tuple(record.round for record in made.history)))
            return RULES["rewarding"]().choose(made)

    def untimed(records: Sequence[RoundRecord]) -> list[RoundRecord]:
        return [replace(record, seconds=0.0) for record in records]

    kept: list[RoundRecord] = []
    seeing = Seeing()
    setup = setup_of(kept=kept, rounds=4, population=2)
    whole = await search_task(replace(setup, hard_cases=seeing))
    assert set(seeing.rounds) == {(number, tuple(range(number))) for number in (1, 2, 3, 4)}
    again = await search_task(setup_of(rounds=4, population=2, hard_cases="rewarding"), kept[:finished])
    assert untimed(again.records) == untimed(whole.records)
    plain = await search_task(setup_of(rounds=4, population=2))
    assert untimed(plain.records) != untimed(whole.records)


def easiest(made: HardCaseContext) -> list[int]:
    return made.hardest_first[::-1][: made.count]


class Easiest:
    def choose(self, made: HardCaseContext) -> list[int]:
        return easiest(made)


def outside(made: HardCaseContext) -> list[int]:
    return [len(made.examples)]


def twice(made: HardCaseContext) -> list[int]:
    return [0, 0]


def too_many(made: HardCaseContext) -> list[int]:
    return made.eligible


NOTHING = 3


@pytest.mark.parametrize("name", ["easiest", "Easiest"])
def test_a_custom_rule_is_a_function_or_a_class(name: str) -> None:
    assert chosen(f"{HERE}:{name}", context([1.0, 3.0, 2.0, 3.0, 0.5])) == [4, 0, 2]


@pytest.mark.parametrize("name", ["outside", "twice", "too_many"])
def test_a_wrong_choice_of_a_custom_rule_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"search.hard_cases: {HERE}:{name} chose"):
        chosen(f"{HERE}:{name}", context([1.0] * 8))


def test_a_path_that_is_no_rule_is_an_error() -> None:
    with pytest.raises(ConfigError, match="neither has a method choose nor is a function"):
        load_hard_cases(f"{HERE}:NOTHING")


@pytest.mark.parametrize(("old", "rule"), [(True, "highest_loss"), (False, "random")])
def test_a_configuration_of_an_earlier_version_is_read(old: bool, rule: str) -> None:
    assert SearchConfig.model_validate({"hard_case_selection": old}, strict=True).hard_cases == rule
