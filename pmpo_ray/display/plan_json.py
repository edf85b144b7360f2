"""The plan of a run as JSON."""

from __future__ import annotations

from dataclasses import asdict

from pmpo_ray.run_plan import Amount, Pace, RunPlan


def plan_json(
    plan: RunPlan, price: float | None = None, price_generated: float | None = None
) -> dict[str, object]:
    """The document that `pmpo plan --json` prints. Everything that the run takes is told as `typical` and as
    `at_most` (see `SearchPlan`): of each search by part, without its limits; of the run within them, `tokens`
    by kind, `total` of all kinds, `seconds` at the measured pace, and `price` in the unit of the given prices
    (null without one). What does not exist is null."""
    both: tuple[Amount, Amount] = ("typical", "at_most")
    return {
        "searches": [asdict(one) for one in plan.searches],
        **{amount: _run(plan, amount, price, price_generated) for amount in both},
        "scoring": _pace(plan.scoring),
        "writing": None if plan.writing is None else _pace(plan.writing),
        "measuring": asdict(plan.measuring),
        "notes": list(plan.notes),
    }


def _run(
    plan: RunPlan, amount: Amount, price: float | None, price_generated: float | None
) -> dict[str, object]:
    return {
        "tokens": asdict(plan.tokens(amount)),
        "total": plan.total(amount),
        "seconds": plan.seconds(amount),
        "price": None if price is None else plan.cost(price, price_generated, amount),
    }


def _pace(pace: Pace) -> dict[str, object]:
    return {**asdict(pace), "tokens_per_second": pace.per_second}
