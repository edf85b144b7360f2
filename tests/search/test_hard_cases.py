"""Rules for hard cases: the built-in ones, and custom ones whose choices are checked."""

from __future__ import annotations

import pytest

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.search.hard_cases import RULES, HardCaseContext, load_hard_cases
from pmpo_ray.types import Candidate, Example, ScoredCandidate

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
