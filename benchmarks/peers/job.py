"""The job that every contestant gets, as a JSON file, and the answer rule.

Invariants: this module imports the standard library alone, because contestants read their jobs in
environments without pmpo_ray; a job holds no held-out row.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ANSWERING: Mapping[str, float] = {"temperature": 0, "max_tokens": 12}
"""The sampling of answers, in the searches as in the evaluation."""
REWRITING: Mapping[str, float] = {"temperature": 1.0, "max_tokens": 512}
"""The sampling of every contestant's rewriter."""
CONCURRENCY = 16
"""Requests that a contestant sends at once: those in flight when the budget is spent are still counted."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """An input and its right label."""

    input: str
    target: str


@dataclass(frozen=True, slots=True)
class Job:
    """All that a contestant is given.

    `start` is the instruction to start from; the description stands in it. `budget` is in tokens. `model` is
    the name of the model at the server, `weights` the same model for a program that loads it itself.
    `task_url` and `rewriter_url` are addresses of OpenAI-compatible servers, for answers to rows and for
    everything else; requests to both count, and once the budget is spent they are refused with status 403 and
    code "budget_exhausted". `account_url` tells what was counted (`spent`).
    """

    task: str
    description: str
    labels: tuple[str, ...]
    start: str
    train: tuple[LabelledRow, ...]
    seed: int
    budget: int
    model: str
    weights: str
    task_url: str
    rewriter_url: str
    account_url: str
    folder: str
    answering: Mapping[str, float]
    rewriting: Mapping[str, float]

    @classmethod
    def read(cls, file: Path) -> Job:
        """The job in a file."""
        values = json.loads(file.read_text(encoding="utf-8"))
        values["labels"] = tuple(values["labels"])
        values["train"] = tuple(LabelledRow(**row) for row in values["train"])
        return cls(**values)

    def write(self, file: Path) -> None:
        """Write it to a file."""
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    def halves(self) -> tuple[list[LabelledRow], list[LabelledRow]]:
        """The training rows in two halves with equal parts of every label, both in the rows' order, for
        optimizers that choose on rows of their own."""
        by_label = sorted(
            range(len(self.train)), key=lambda index: self.labels.index(self.train[index].target)
        )
        first, second = sorted(by_label[::2]), sorted(by_label[1::2])
        return [self.train[index] for index in first], [self.train[index] for index in second]

    def spent(self) -> bool:
        """True if the budget is spent."""
        return bool(account(self.account_url)["spent"])


def account(url: str) -> dict[str, Any]:
    """What the proxy counted for a run."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the proxy's own address
        document: dict[str, Any] = json.load(answer)
    return document


def first_label(reply: str, labels: Sequence[str]) -> str | None:
    """The label that a reply names first, as whole words in whatever case; None if it names none."""
    # Of two labels that begin at the same place the longer one is meant.
    longest_first = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    found = re.search(rf"(?<!\w)(?:{longest_first})(?!\w)", reply, re.IGNORECASE)
    if found is None:
        return None
    return next(label for label in labels if label.casefold() == found.group().casefold())
