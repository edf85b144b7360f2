"""Plans as a terminal shows them, and as JSON."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from pmpo_ray.display.plan import duration_text, price_text, show_plan
from pmpo_ray.display.plan_json import plan_json
from pmpo_ray.run_plan import Pace, PlannedTokens, PlannedWork, RunPlan, SearchPlan

TYPICAL = PlannedWork(
    PlannedTokens(20_000, 500, 300), PlannedTokens(61_000, 1500, 900), PlannedTokens(), PlannedTokens(4000)
)
AT_MOST = PlannedWork(
    PlannedTokens(90_000, 900, 6000),
    PlannedTokens(271_000, 2700, 18_000),
    PlannedTokens(),
    PlannedTokens(9000),
)


def search(task: str = "tickets", limit: int | None = None, notes: tuple[str, ...] = ()) -> SearchPlan:
    candidates = {"rewrite": 12, "mask_drop": 5}
    return SearchPlan(task, 50, 0, 200, 3, candidates, 1000, TYPICAL, AT_MOST, limit, None, notes)


def plan(*searches: SearchPlan) -> RunPlan:
    return RunPlan(
        searches, Pace(20_000, 10.0, 1, 4), Pace(300, 3.0, 1, 1), PlannedTokens(20_000, 80, 300), ("one",)
    )


def shown(planned: RunPlan, *prices: float, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_plan(planned, console, *prices)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_page_says_what_one_search_takes() -> None:
    page = shown(plan(search(notes=("with search.racing",))), 2.0)
    lines = [" ".join(line.split()) for line in page.splitlines()]
    for line in (
        "rows: 50 training, 200 held-out to evaluate",
        "a text: 1,000 tokens scored on the training rows, for the start instruction",
        "texts of a round, at most: 12 rewrite, 5 masked texts",
        "the search (3 rounds), typically 61,000 1,500 900",
        "the search (3 rounds), at most 271,000 2,700 18,000",
        "the evaluation, at most 9,000 0 0",
        "note: with search.racing",
        "the run scored prompted generated together time price",
        "typically 65.0k 1.5k 900 67.4k 42 s 0.13",
        "at most 280k 2.7k 18.0k 301k 5 min 0.60",
        "time: at 2,000 tokens/s (1 replica) scored and 100 tokens/s (1 replica) generated",
        "measuring the pace took 20.0k tokens scored, 80 prompted, 300 generated",
        "note: one",
    ):
        assert any(one.startswith(line) for one in lines), line
    assert "final pick" not in page
    assert "price" not in shown(plan(search()))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (50_000, "the search ends there before its last round"),
        (100_000, "the search ends there if it takes more than is typical"),
        (10**6, "which the search never reaches"),
    ],
)
def test_a_page_says_if_a_limit_holds(limit: int, words: str) -> None:
    [line] = [line for line in shown(plan(search(limit=limit))).splitlines() if line.startswith("limit")]
    assert line.startswith(f"limit: {limit:,} tokens")
    assert line.endswith(words)


def test_a_table_has_a_row_for_each_of_several_searches() -> None:
    table = shown(plan(search(), search("a[b]", 50_000)), width=80)
    rows = [line.split() for line in table.splitlines()]
    assert ["tickets", "50", "200", "3", "17", "1.0k", "67.4k", "301k", "–"] in rows
    assert ["a[b]", "50", "200", "3", "17", "1.0k", "67.4k", "301k", "50.0k"] in rows
    assert all(len(line) <= 80 for line in table.splitlines())


def test_the_json_has_all_of_it() -> None:
    document = json.loads(json.dumps(plan_json(plan(search()), 2.0), allow_nan=False))
    assert document["searches"][0]["at_most"]["round"] == {
        "scored": 90_000,
        "prompted": 900,
        "generated": 6000,
    }
    assert document["typical"] == {
        "tokens": {"scored": 65_000, "prompted": 1500, "generated": 900},
        "total": 67_400,
        "seconds": pytest.approx(41.5),
        "price": pytest.approx(0.1348),
    }
    assert document["scoring"]["tokens_per_second"] == 2000
    assert plan_json(plan(search()))["at_most"]["price"] is None  # type: ignore[index]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")],
)
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_small_prices_keep_two_digits() -> None:
    assert [price_text(price) for price in (0, 0.00123, 0.5, 12.345, 1234.5)] == [
        "0",
        "0.0012",
        "0.50",
        "12.35",
        "1,234.50",
    ]
