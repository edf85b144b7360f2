"""Losses from log-likelihoods."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.search.objectives import (
    batch_loss,
    check_objective,
    make_objective,
    resolve_auto,
)
from pmpo_ray.types import AnswerScore, Example, ExampleScore

logprobs = st.floats(min_value=-1e6, max_value=0)


def scored(target: float, *negatives: float, tokens: int = 2) -> ExampleScore:
    return ExampleScore(
        AnswerScore(target, tokens), tuple(AnswerScore(value, tokens) for value in negatives), 10
    )


def loss(name: str, score: ExampleScore, *, beta: float = 1.0, per_token: bool = False) -> float:
    return make_objective(name, beta=beta, per_token=per_token)(score)


def test_cross_entropy_is_the_negative_log_likelihood_of_the_target() -> None:
    assert loss("cross_entropy", scored(-3.5, -1.0)) == 3.5


def test_cross_entropy_per_token_is_the_mean_over_the_targets_tokens() -> None:
    assert loss("cross_entropy", scored(-3.0, tokens=4), per_token=True) == 0.75


def test_preference_is_the_negative_log_sigmoid_of_the_difference() -> None:
    expected = -math.log(1 / (1 + math.exp(-0.5 * (-1.0 - -3.0))))
    assert loss("preference", scored(-1.0, -3.0), beta=0.5) == pytest.approx(expected)


def test_preference_averages_over_the_negatives() -> None:
    single = [loss("preference", scored(-1.0, negative)) for negative in (-3.0, -0.5)]
    assert loss("preference", scored(-1.0, -3.0, -0.5)) == pytest.approx(sum(single) / 2)


def test_preference_is_log_two_where_the_model_has_no_preference() -> None:
    assert loss("preference", scored(-7.0, -7.0)) == pytest.approx(math.log(2))


def test_preference_per_token_compares_mean_log_likelihoods() -> None:
    score = ExampleScore(AnswerScore(-4.0, 4), (AnswerScore(-1.0, 1),), context_tokens=10)
    assert loss("preference", score, per_token=True) == pytest.approx(math.log(2))


def test_listwise_is_the_negative_log_share_of_the_target() -> None:
    weights = [math.exp(value) for value in (-1.0, -2.0, -3.0)]
    assert loss("listwise", scored(-1.0, -2.0, -3.0)) == pytest.approx(-math.log(weights[0] / sum(weights)))


@pytest.mark.parametrize("name", ["preference", "listwise"])
def test_huge_differences_neither_overflow_nor_vanish(name: str) -> None:
    assert loss(name, scored(-1e5, 0.0)) == pytest.approx(1e5)
    assert loss(name, scored(0.0, -1e5)) == 0.0


@given(target=logprobs, negative=logprobs, beta=st.floats(min_value=0.01, max_value=10))
def test_listwise_with_one_negative_is_preference(target: float, negative: float, beta: float) -> None:
    score = scored(target, negative)
    assert loss("listwise", score, beta=beta) == pytest.approx(
        loss("preference", score, beta=beta), rel=1e-9, abs=1e-9
    )


@given(target=logprobs, negatives=st.lists(logprobs, min_size=1, max_size=5))
def test_losses_are_finite_and_not_negative(target: float, negatives: list[float]) -> None:
    for name in ("cross_entropy", "preference", "listwise"):
        assert 0 <= loss(name, scored(target, *negatives)) < math.inf


def test_batch_loss_of_equal_weights_is_the_mean() -> None:
    assert batch_loss([1.0, 2.0, 6.0], [1.0, 1.0, 1.0]) == 3.0


def test_batch_loss_divides_by_the_absolute_weights() -> None:
    assert batch_loss([4.0, 1.0], [1.0, -1.0]) == 1.5


def test_examples_of_weight_zero_do_not_count() -> None:
    assert batch_loss([2.0, math.inf], [3.0, 0.0]) == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_makes_the_batch_loss_infinite(bad: float) -> None:
    assert batch_loss([1.0, bad], [1.0, 1.0]) == math.inf
    assert batch_loss([1.0, bad], [1.0, -1.0]) == math.inf


def test_a_batch_loss_needs_an_example_that_counts() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        batch_loss([1.0], [0.0])


weighted = st.tuples(st.floats(0, 1e6), st.sampled_from([1.0, -1.0, 0.1, 2.5]))


@given(st.lists(weighted, min_size=1), st.randoms())
def test_batch_loss_does_not_depend_on_the_order(pairs: list[tuple[float, float]], random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert batch_loss(*zip(*pairs, strict=True)) == batch_loss(*zip(*shuffled, strict=True))


def example(name: str, *negatives: str, weight: float = 1.0) -> Example:
    return Example(name, "Is the sky\nblue?", "yes", negatives, weight)


def test_auto_means_preferences_where_every_example_has_negatives() -> None:
    assert resolve_auto([example("a", "no"), example("b", "no")]) == "preference"
    assert resolve_auto([example("a", "no"), example("b")]) == "cross_entropy"
    assert resolve_auto([]) == "cross_entropy"


@pytest.mark.parametrize("name", ["preference", "listwise"])
def test_an_example_without_negatives_is_named(name: str) -> None:
    objective = make_objective(name, beta=1.0, per_token=False)
    with pytest.raises(DataError, match=r"'row 7' .*Is the sky blue.* no negatives.*cross_entropy") as raised:
        check_objective(objective, [example("row 1", "no"), example("row 7")])
    assert "\n" not in str(raised.value)


def test_weights_that_are_all_zero_are_refused() -> None:
    objective = make_objective("cross_entropy", beta=1.0, per_token=False)
    with pytest.raises(DataError, match="weight other than 0"):
        check_objective(objective, [example("a", weight=0.0)])


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_must_be_finite(weight: float) -> None:
    objective = make_objective("cross_entropy", beta=1.0, per_token=False)
    with pytest.raises(DataError, match="finite"):
        check_objective(objective, [example("a", weight=weight)])


def test_negative_weights_go_with_cross_entropy_only() -> None:
    rows = [example("good", "no"), example("bad", "no", weight=-1.0)]
    check_objective(make_objective("cross_entropy", beta=1.0, per_token=False), rows)
    with pytest.raises(DataError, match="'bad'"):
        check_objective(make_objective("preference", beta=1.0, per_token=False), rows)


def test_an_unknown_objective_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"search\.objective.*'hinge'.*auto.*preference"):
        make_objective("hinge", beta=1.0, per_token=False)
