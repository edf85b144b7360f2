"""The arithmetic of a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pmpo_ray.config.search import SearchConfig
from pmpo_ray.run_plan import Pace, PlannedTokens, PlannedWork, RunPlan, SearchPlan
from pmpo_ray.runs.plan_tokens import Part, Reach, SearchTokens, Sizes, counts
from tests.run_folders import REWRITING

SIZES = Sizes(
    training=Part(1000, 10),
    seeds=(1000,),
    validation=Part(0, 0),
    start=50,
    start_characters=200,
    reach=Reach(50, 900),
    characters=Reach(200, 4000),
    shots=0,
    mean_shots=0,
    mask=5,
    forms={"rewrite": 300},
    mask_form=100,
    judging=0,
    reading=0,
    eligible=10,
)


def tokens(**settings: object) -> SearchTokens:
    search = SearchConfig.model_validate({**REWRITING, "masking": "off", "reasks": 0, **settings})
    return SearchTokens(search, search.operators, SIZES, 64)


def test_a_round_scores_every_proposal_and_masked_text_of_every_parent() -> None:
    settings = SearchConfig(hard_examples=3, variants=4, max_segments=5, bandit=False)
    found = counts(settings, ["rewrite", "compose"], 2, 50)
    assert found.by_operator == {"rewrite": 24, "compose": 24, "mask_drop": 10}
    assert (found.together, found.masked) == (48, 10)


def test_no_more_is_written_than_there_are_hard_cases() -> None:
    settings = SearchConfig(hard_examples=10, variants=4, masking="off")
    assert counts(settings, ["rewrite"], 1, 3).by_operator == {"rewrite": 12}


def test_a_bandit_shares_out_what_all_operators_make() -> None:
    settings = SearchConfig(hard_examples=3, variants=4, bandit=True, masking="off")
    found = counts(settings, ["rewrite", "compose"], 1, 50)
    assert found.together == 24
    # An operator gets at most three quarters and its part of the last one.
    assert found.by_operator == {"rewrite": 22, "compose": 22}
    assert counts(settings, ["compose"], 1, 50).by_operator == {"compose": 12}


def test_writers_share_what_is_written_and_each_sends_its_own_requests() -> None:
    forms = {"rewrite": 300, "induce": 700, "shorten": 200}
    search = SearchConfig.model_validate(
        {"hard_examples": 3, "variants": 2, "masking": "off", "reasks": 1, "rounds": 2, "demonstrations": 0}
    )
    one = SearchTokens(search, list(forms), replace(SIZES, forms=forms, eligible=2), 64)
    # An operator gets at most 15 of the 18 texts; a third of the rewrites are for a hard case that is not
    # there.
    assert counts(search, list(forms), 1, 2).by_operator == {"rewrite": 10, "induce": 15, "shorten": 15}
    planned = one.of_round(1, 1)
    assert planned.generated == 2 * 18 * 64
    # Two hard cases, three draws of examples and one request to shorten, each sent twice.
    assert planned.prompted == 2 * (2 * 350 + 3 * 750 + 250)


def test_every_text_is_read_once_for_its_readability() -> None:
    search = SearchConfig(
        rounds=2, hard_examples=1, variants=2, masking="rules", max_segments=3, reasks=0, bandit=False
    )
    operators = ["rewrite", "compose", "demonstrate"]
    plain = SearchTokens(search, operators, SIZES, 64)
    read = replace(plain, sizes=replace(SIZES, reading=30))
    # The texts of two operators and the masked ones: 30 in front of a text, 50 of it, and 8 around it.
    assert read.of_round(2, 1).scored - plain.of_round(2, 1).scored == (2 + 2 + 3) * 88
    # What is judged is read for that.
    judged = replace(plain, sizes=replace(SIZES, judging=20))
    both = replace(plain, sizes=replace(SIZES, judging=20, reading=30))
    assert both.of_round(2, 1).scored - judged.of_round(2, 1).scored == (2 + 3) * 88


def test_compose_grows_by_a_sentence_a_round_up_to_its_library() -> None:
    reach = Reach(base=50, limit=100, whole=20, sentence=10, library=45)
    assert [reach.at(number) for number in (1, 2, 3, 4, 5)] == [70, 80, 90, 95, 95]
    assert reach.at(reach.settled) == 95
    assert Reach(base=50, limit=60, whole=20, sentence=10, library=45).at(4) == 60


def test_texts_as_long_as_the_start_take_as_much_as_the_start() -> None:
    one = tokens(rounds=2, hard_examples=1, variants=3)
    assert one.of_round(1, 1) == PlannedTokens(scored=3000, prompted=350, generated=192)
    assert one.whole == PlannedTokens(scored=7000, prompted=700, generated=384)
    assert one.pick == PlannedTokens()


def test_in_the_first_round_only_new_demonstrations_are_shown() -> None:
    search = SearchConfig(
        rounds=2, hard_examples=1, variants=2, masking="rules", max_segments=3, bandit=False
    )
    one = SearchTokens(search, ["compose", "demonstrate"], replace(SIZES, shots=40), 64)
    assert one.of_round(1, 1) == PlannedTokens(scored=7 * 1000 + 2 * 400)
    assert one.of_round(2, 1) == PlannedTokens(scored=7 * 1400)
    # What an operator of one's own shows is not known.
    assert replace(one, operators=["mine"]).of_round(1, 1) == PlannedTokens(scored=3 * 1000 + 2 * 1400)


def test_every_retry_counts_and_every_parent_but_in_the_first_round() -> None:
    one = tokens(rounds=3, hard_examples=1, variants=1, reasks=1, population=4)
    assert one.of_round(1, 1) == PlannedTokens(scored=1000, prompted=700, generated=128)
    assert one.one_round == one.of_round(1, 1).times(4)
    assert one.whole == PlannedTokens(scored=1000) + one.one_round.times(2) + one.of_round(1, 1)


def test_the_first_round_rewrites_as_many_starts_as_survive() -> None:
    one = tokens(rounds=2, hard_examples=1, variants=1, population=4)
    three = replace(one, sizes=replace(SIZES, seeds=(1000, 1500, 900)))
    assert [one.parents(number) for number in (1, 2)] == [1, 4]
    assert [three.parents(number) for number in (1, 2)] == [3, 4]
    rounds = three.of_round(1, 3) + three.of_round(2, 4)
    assert three.whole == PlannedTokens(scored=3400) + rounds
    assert three.typical(10).whole.scored == three.whole.scored


def plan(limit: int | None, seconds: float | None = None) -> RunPlan:
    most = PlannedWork(
        PlannedTokens(), PlannedTokens(6000, 100, 400), PlannedTokens(500), PlannedTokens(1000)
    )
    search = SearchPlan("one", 10, 5, 20, 2, {"rewrite": 3}, 1000, most, most, limit, seconds)
    paces = Pace(10_000, 10.0, 1, 1), Pace(100, 10.0, 1, 1)
    return RunPlan((search, search), *paces, PlannedTokens(10_000, 20, 100))


def test_time_and_price_are_those_of_all_tokens() -> None:
    free = plan(None)
    assert free.tokens() == PlannedTokens(15_000, 200, 800)
    assert free.total("typical") == 16_000
    assert free.seconds() == pytest.approx(15 + 80)
    assert free.cost(1.0) == pytest.approx(0.016)
    assert free.cost(1.0, 10.0) == pytest.approx(0.0232)


def test_within_a_limit_the_dearest_tokens_come_first() -> None:
    limited = plan(1000)
    assert limited.tokens() == PlannedTokens(4000, 200, 800)
    assert limited.total() == 4000
    # Of 1,000 tokens at most 400 are written, at 10 a second, and the others scored, at 1,000 a second.
    assert limited.seconds() == pytest.approx(2 * (40 + 0.6) + 2)
    assert limited.cost(1e6, 2e6) == pytest.approx(2 * (800 + 600) + 2000)


def test_a_limit_of_seconds_holds_for_searches_that_run_at_the_same_time() -> None:
    assert plan(None, 30.0).seconds() == pytest.approx(30 + 2)
