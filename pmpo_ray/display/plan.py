"""The plan of a run on a terminal: a page for one search, a table for several, and the totals.

Invariant: texts from data are shown, never interpreted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pmpo_ray.display.numbers import amount, count_text, tokens_words
from pmpo_ray.run_plan import Amount, Pace, RunPlan, SearchPlan
from pmpo_ray.text import in_line, shortened_name

_AMOUNTS: Mapping[Amount, str] = {"typical": "typically", "at_most": "at most"}
_CANDIDATES: Mapping[str, str] = {"mask_drop": "masked texts"}
"""What the candidates of an operator are called, if not by its name."""


def show_plan(
    plan: RunPlan, console: Console, price: float | None = None, price_generated: float | None = None
) -> None:
    """Print a plan, with the price of its tokens if that of a million tokens is given."""
    for part in _parts(plan, console.width):
        console.print(part)
    console.print(_totals(plan, price, price_generated))
    console.print(Text(f"time: at {_paces(plan)}, without the start of the models", style="dim"))
    used = plan.measuring
    words = tokens_words(used.scored, used.prompted, used.generated)
    console.print(Text(f"measuring the pace took {words}", style="dim"))
    for remark in plan.notes:
        console.print(Text(f"note: {in_line(remark)}", style="dim"))


def duration_text(seconds: float) -> str:
    """A duration in the unit that suits it: "40 s", "12 min", "3.5 h", "4.0 days"."""
    for size, unit, digits in ((86_400, "days", 1), (3600, "h", 1), (60, "min", 0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def price_text(price: float) -> str:
    """A price, in the unit of the given ones."""
    return f"{price:,.2f}" if price >= 0.01 else f"{price:.2g}"


def _parts(plan: RunPlan, width: int) -> Iterator[RenderableType]:
    if len(plan.searches) == 1:
        yield _page(plan.searches[0])
    else:
        yield _table(plan.searches, width)
        for remark in dict.fromkeys(remark for one in plan.searches for remark in one.notes):
            yield Text(f"note: {in_line(remark)}", style="dim")
    yield Text()


def _page(plan: SearchPlan) -> RenderableType:
    tokens = _numbers("tokens", "scored", "prompted", "generated")
    for name, words in _AMOUNTS.items():
        work = plan.work(name)
        parts = {
            "a round": work.round,
            f"the search ({count_text(plan.rounds, 'round')})": work.search,
            "the final pick": work.pick,
            "the evaluation": work.evaluation,
        }
        for title, part in parts.items():
            if part.total:
                tokens.add_row(
                    f"{title}, {words}", f"{part.scored:,}", f"{part.prompted:,}", f"{part.generated:,}"
                )
    return Group(
        Rule(Text(in_line(plan.task), style="bold"), align="left"),
        Text(f"rows: {_rows(plan)}"),
        Text(f"a text: {plan.text:,} tokens scored on the training rows, for the start instruction"),
        Text(f"texts of a round, at most: {_candidates(plan) or 'none'}"),
        Text(),
        tokens,
        *([Text(_limit(plan), style="bold")] if plan.max_tokens is not None else ()),
        *(Text(f"note: {in_line(remark)}", style="dim") for remark in plan.notes),
    )


def _table(plans: Sequence[SearchPlan], width: int) -> Table:
    table = _numbers("task", "rows", "held-out", "rounds", "texts", "a text", "typical", "at most", "limit")
    for plan in plans:
        table.add_row(
            Text(shortened_name(plan.task, max(12, width - 66))),
            str(plan.training + plan.validation),
            str(plan.held_out),
            str(plan.rounds),
            str(sum(plan.candidates.values())),
            amount(plan.text),
            *(amount(plan.work(name).tokens(None).total) for name in _AMOUNTS),
            "–" if plan.max_tokens is None else amount(plan.max_tokens),
        )
    table.caption = Text(
        "rows: training and validation; texts: of a round, at most; a text: tokens scored on the training "
        "rows, for the start instruction; typical, at most: tokens of search, final pick and evaluation, "
        "without the limit",
        style="dim",
    )
    table.caption_justify = "left"
    return table


def _totals(plan: RunPlan, price: float | None, price_generated: float | None) -> Table:
    titles = ("the run", "scored", "prompted", "generated", "together", "time")
    table = _numbers(*titles, *(() if price is None else ("price",)))
    for name, words in _AMOUNTS.items():
        tokens = plan.tokens(name)
        cost = () if price is None else (price_text(plan.cost(price, price_generated, name)),)
        table.add_row(
            words,
            *map(amount, (tokens.scored, tokens.prompted, tokens.generated, plan.total(name))),
            duration_text(plan.seconds(name)),
            *cost,
        )
    return table


def _numbers(first: str, *titles: str) -> Table:
    """A table of numbers behind a column of names."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _rows(plan: SearchPlan) -> str:
    parts = [f"{plan.training:,} training"]
    if plan.validation:
        parts.append(f"{plan.validation:,} validation")
    evaluated = f"{plan.held_out:,} held-out to evaluate" if plan.held_out else "none to evaluate"
    return ", ".join((*parts, evaluated))


def _candidates(plan: SearchPlan) -> str:
    return ", ".join(
        f"{number:,} {in_line(_CANDIDATES.get(name, name))}" for name, number in plan.candidates.items()
    )


def _limit(plan: SearchPlan) -> str:
    limit = plan.max_tokens or 0
    works = (plan.work(name) for name in _AMOUNTS)
    typical, most = ((work.search + work.pick).total for work in works)
    if most <= limit:
        return f"limit: {limit:,} tokens, which the search never reaches"
    likely = "before its last round" if typical > limit else "if it takes more than is typical"
    return f"limit: {limit:,} tokens; the search ends there {likely}"


def _paces(plan: RunPlan) -> str:
    paces = [f"{_pace(plan.scoring)} scored"]
    if plan.writing is not None:
        paces.append(f"{_pace(plan.writing)} generated")
    return " and ".join(paces)


def _pace(pace: Pace) -> str:
    return f"{pace.per_second:,.0f} tokens/s ({count_text(pace.replicas, 'replica')})"
