"""A writer: an operator that asks a model for instructions, as the requests that it makes for a parent.

Invariant: a writer is pure, and its only source of chance is the seed of the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pmpo_ray.search.meta_prompts import Style
from pmpo_ray.types import Example, RoundRecord, ScoredCandidate, SegmentImportance, Task


@dataclass(frozen=True, slots=True)
class WritingContext:
    """The data that a writer can use for one parent.

    `parent` has its scores and losses on `examples`, the training examples, in their order. `hard_cases` are
    indices of examples, the hardest first; `importances` those of the parent's segments, empty without
    masking. `survivors` are all parents of the round; `history` are the finished rounds, the oldest first,
    without losses of single examples. `count` samples are wanted in all, and `hard_examples` is the number of
    requests that the search makes for a parent. Texts longer than `max_chars` characters are refused. With
    `per_token`, answers are compared by their log-likelihoods per token.
    """

    style: Style
    task: Task
    parent: ScoredCandidate
    examples: tuple[Example, ...]
    hard_cases: tuple[int, ...]
    importances: tuple[SegmentImportance, ...]
    survivors: tuple[ScoredCandidate, ...]
    history: tuple[RoundRecord, ...]
    count: int
    hard_examples: int
    max_chars: int
    per_token: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A meta-prompt to answer `samples` times. `examples` are the ids of the training examples that it shows,
    `hard_case` the one that it asks for, if any. The seeds of the samples depend on `key`, which no other
    request for the parent has."""

    prompt: str
    samples: int
    key: tuple[str, ...]
    examples: tuple[str, ...] = ()
    hard_case: str | None = None


class Writer(Protocol):
    """Asks a model for instructions, once a round for every parent."""

    def samples(self, count: int, hard_examples: int, cases: int, /) -> list[int]:
        """The samples of each request for a parent, if `count` are wanted and there are so many hard cases.
        There may be fewer requests, never more samples."""
        ...

    def requests(self, context: WritingContext) -> list[Ask]:
        """The requests for a parent; empty if there is nothing to propose."""
        ...

    def shots(self, style: Style) -> tuple[Example, ...]:
        """The turns in front of every request: filled-in forms with good answers.

        A model of a few hundred million parameters does not follow a form, but it continues in the style of
        the turns before. The long form needs none.
        """
        ...

    def longest(self, task: Task, examples: Sequence[Example], style: Style, max_chars: int, /) -> str:
        """A meta-prompt as long as any that this writer makes for an empty instruction without a mask
        analysis; `examples` are the training examples."""
        ...


def spread(count: int, requests: int) -> list[int]:
    """`count` samples over so many requests, as evenly as can be; those that come to none are left out."""
    each, further = divmod(count, requests)
    return [each + (place < further) for place in range(requests) if each or place < further]


def size(text: str) -> int:
    """The bytes of a text, by which tokens are estimated."""
    return len(text.encode("utf-8", "surrogatepass"))


def turn(name: str, form: str, answer: str) -> Example:
    """A turn of `Writer.shots`: a filled-in form with a good answer."""
    return Example(name, form, f"<prompt>{answer}</prompt>")
