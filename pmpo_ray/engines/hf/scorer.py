"""A scorer on a transformers model: texts in, log-likelihoods out (protocols.Scorer).

Invariant: an example that can't be scored is named in the error.
"""

from __future__ import annotations

import time

from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.hf.devices import context_length
from pmpo_ray.engines.hf.likelihood import LikelihoodEngine
from pmpo_ray.engines.hf.loading import LoadedModel, load_replica
from pmpo_ray.engines.hf.memory import TooLargeError
from pmpo_ray.engines.items import ItemBuilder, example_name, example_score
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.errors import EngineError
from pmpo_ray.types import EngineInfo, PromptLength, ScoreRequest, ScoreResult


class TransformersScorer:
    """One model replica that scores answers."""

    def __init__(self, loaded: LoadedModel, config: ScorerConfig) -> None:
        encoder = PromptEncoder(loaded.tokenizer, config.layout, loaded.day)
        memory = None if config.working_memory_gb is None else int(config.working_memory_gb * 1e9)
        self._engine = LikelihoodEngine(loaded.model, working_memory=memory)
        self._items = ItemBuilder(encoder, context_length(loaded.model))
        self._info = encoder.described(loaded.info(encoder.layout, self._engine.fallback))

    @classmethod
    def load(cls, model: str, config: ScorerConfig, placement: Placement | None = None) -> TransformersScorer:
        """A scorer with `model` loaded; `placement` and errors as in `load_replica`."""
        return cls(load_replica(model, config, placement), config)

    def info(self) -> EngineInfo:
        return self._info

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example (protocols.Measurer)."""
        return self._items.lengths(request)

    def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives (protocols.Scorer.score)."""
        began = time.perf_counter()
        items = self._items.items(request)
        try:
            rated = self._engine.score(items)
        except TooLargeError as error:
            subject = (
                "the instruction and its shots"
                if error.owner is None
                else example_name(request.examples[error.owner])
            )
            raise EngineError(f"{subject}: {error}") from None
        scores = tuple(example_score(item, sums) for item, sums in zip(items, rated.logprobs, strict=True))
        return ScoreResult(scores, rated.tokens_computed, time.perf_counter() - began)
