"""A scorer on a transformers model: texts in, log-likelihoods out (protocols.Scorer).

Invariant: an example that can't be scored is named in the error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pmpo_ray.config import ScorerConfig
from pmpo_ray.engines.devices import context_length
from pmpo_ray.engines.likelihood import LikelihoodEngine
from pmpo_ray.engines.loading import LoadedModel, load_replica
from pmpo_ray.engines.memory import TooLargeError
from pmpo_ray.engines.tree import Item
from pmpo_ray.errors import EngineError
from pmpo_ray.templates import PromptEncoder
from pmpo_ray.types import AnswerScore, EngineInfo, Example, ExampleScore, ScoreRequest, ScoreResult


class TransformersScorer:
    """One model replica that scores answers."""

    def __init__(self, loaded: LoadedModel, config: ScorerConfig) -> None:
        self._encoder = PromptEncoder(loaded.tokenizer, config.layout)
        memory = None if config.working_memory_gb is None else int(config.working_memory_gb * 1e9)
        self._engine = LikelihoodEngine(loaded.model, working_memory=memory)
        self._context_length = context_length(loaded.model)
        self._info = loaded.info(self._encoder.layout, self._engine.fallback)

    @classmethod
    def load(cls, model: str, config: ScorerConfig) -> TransformersScorer:
        """A scorer with `model` loaded; errors as in `load_replica`."""
        return cls(load_replica(model, config), config)

    def info(self) -> EngineInfo:
        return self._info

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives (protocols.Scorer.score)."""
        began = time.perf_counter()
        prefix = self._encoder.prefix(request.instruction, request.shots)
        items = [self._item(prefix, example) for example in request.examples]
        try:
            found = self._engine.score(items)
        except TooLargeError as error:
            where = (
                "the instruction and its shots"
                if error.owner is None
                else _name(request.examples[error.owner])
            )
            raise EngineError(f"{where}: {error}") from None
        scores = tuple(_example_score(item, sums) for item, sums in zip(items, found.logprobs, strict=True))
        return ScoreResult(scores, found.tokens_computed, time.perf_counter() - began)

    def _item(self, prefix: tuple[int, ...], example: Example) -> Item:
        answers = tuple(self._encoder.answer(answer) for answer in (example.target, *example.negatives))
        item = Item(prefix + self._encoder.question(example.input), answers)
        longest = len(item.context) + max(map(len, answers))
        if longest > self._context_length:
            raise EngineError(
                f"{_name(example)} takes {longest} tokens with its instruction, but the model's context "
                f"holds {self._context_length}: shorten or drop it, or use a model with a longer context"
            )
        return item


def _name(example: Example) -> str:
    return f"example {example.id} ({example.input[:40]!r}...)"


def _example_score(item: Item, sums: Sequence[float]) -> ExampleScore:
    scores = [AnswerScore(value, len(answer)) for value, answer in zip(sums, item.answers, strict=True)]
    return ExampleScore(scores[0], tuple(scores[1:]), len(item.context))
