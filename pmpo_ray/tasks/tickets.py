"""The built-in task: classify a customer's support message into one of six classes.

Invariants: the packaged rows are balanced over `LABELS`, in a fixed order that does not depend on a seed, and
every target is exactly one of `LABELS`. The messages were written for this project; they name no real person
or company.
"""

from __future__ import annotations

import json
from importlib.resources import files

from pmpo_ray.text import explained

_LABELS = {
    "billing": "charges, refunds, prices, invoices, how to pay",
    "bug report": "a product, app or page does something wrong",
    "account access": "signing in, locked or stolen accounts, rights",
    "shipping": "where, when or in what state goods arrive, also returns in transit",
    "feature request": "a wish for something that does not exist yet",
    "praise": "thanks or a compliment that asks for nothing",
}
LABELS = tuple(_LABELS)
MEANINGS = tuple(_LABELS.values())

DESCRIPTION = (
    "The input is one message that a customer wrote to a company's support desk; the output is exactly one "
    "of six labels, in lower case and with nothing around it. The label says what the customer wants, "
    "whatever else the message mentions. The labels are: "
    f"{', '.join(explained(LABELS, MEANINGS))}."
)

INSTRUCTION = (
    "You work at a customer support desk. Read the message and decide which kind of ticket it is. "
    "Choose one of these labels: billing, bug report, account access, shipping, feature request, praise. "
    "Answer with the label only."
)


def load_rows() -> tuple[tuple[str, str], ...]:
    """All packaged (message, label) pairs, in file order."""
    resource = files("pmpo_ray.tasks") / "data" / "tickets.jsonl"
    with resource.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple((row["input"], row["target"]) for row in rows)
