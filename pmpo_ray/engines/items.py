"""Examples as the items that an engine rates, and back to scores; the same for every scorer.

Invariants: an example that can't be scored is named in the error; no item is longer than the context.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.engines.answer_tree import Item
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.errors import PromptTooLongError
from pmpo_ray.types import AnswerScore, Example, ExampleScore, PromptLength, ScoreRequest


class ItemBuilder:
    """Items in the tokens of `encoder`, each of at most `context_length` tokens with its longest answer."""

    def __init__(self, encoder: PromptEncoder, context_length: int) -> None:
        self._encoder = encoder
        self._context_length = context_length

    def items(self, request: ScoreRequest) -> list[Item]:
        """One item for each example; its answers are the target, then the negatives.

        Raises PromptTooLongError if an example is longer than the context.
        """
        items = self._items(request)
        for example, item in zip(request.examples, items, strict=True):
            length = _length(item)
            if length.context + length.answer > self._context_length:
                raise PromptTooLongError(
                    f"{example_name(example)} takes {length.context + length.answer} tokens with its "
                    f"instruction, but the model's context holds {self._context_length}: shorten or drop it, "
                    "or use a model with a longer context"
                )
        return items

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example (protocols.Measurer), also of those that are longer than the context."""
        return tuple(map(_length, self._items(request)))

    def _items(self, request: ScoreRequest) -> list[Item]:
        return self._encoder.items(request.instruction, request.shots, request.examples)


def _length(item: Item) -> PromptLength:
    return PromptLength(len(item.context), max(map(len, item.answers)))


def example_score(item: Item, sums: Sequence[float]) -> ExampleScore:
    """The score of an example from the log-likelihoods of its item's answers, in their order."""
    scores = [AnswerScore(value, len(answer)) for value, answer in zip(sums, item.answers, strict=True)]
    return ExampleScore(scores[0], tuple(scores[1:]), len(item.context))


def example_name(example: Example) -> str:
    """The name of an example in errors: its id and the beginning of its input."""
    return f"example {example.id} ({example.input[:40]!r}...)"
