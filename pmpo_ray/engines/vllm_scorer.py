"""A scorer on vLLM: log-likelihoods of prompts whose beginnings come from its prefix cache (AsyncScorer).

Invariants:
- No log-likelihood is taken from a row that was not computed for its request: vLLM leaves the rows of cached
  tokens unwritten. A row that is missing is taken from another answer of the same example, which went the
  same way up to there, or the request is repeated without reading the cache.
- The scores are those of plain one-by-one scoring but for rounding, whether the cache is cold, warm, or full
  of other requests' text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pmpo_ray.config import ScorerConfig
from pmpo_ray.engines.scoring_items import ItemBuilder, example_score
from pmpo_ray.engines.together import together
from pmpo_ray.engines.tree import Item, Tokens
from pmpo_ray.engines.vllm_engine import VllmEngine
from pmpo_ray.templates import PromptEncoder
from pmpo_ray.types import EngineInfo, ScoreRequest, ScoreResult

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

Known = dict[Tokens, float]
"""log p of the last token of a beginning of an answer, by that beginning."""


class VllmScorer:
    """One vLLM engine that scores answers."""

    def __init__(self, engine: VllmEngine, config: ScorerConfig) -> None:
        self._engine = engine
        self._encoder = PromptEncoder(engine.tokenizer, config.layout)
        # One token is drawn after every prompt, and has to fit, too.
        self._items = ItemBuilder(self._encoder, engine.context_length - 1)

    def info(self) -> EngineInfo:
        return self._engine.info(self._encoder.layout)

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives (protocols.Scorer.score).

        The answers of an example follow each other, and the examples of an instruction: vLLM's scheduler
        takes requests in their order and finds the beginnings that it has seen.
        """
        began = time.perf_counter()
        items = self._items.items(request)
        known: list[Known] = [{} for _ in items]
        asked = [(number, answer) for number, item in enumerate(items) for answer in item.answers]
        computed = await self._ask(items, asked, known, reading=True)
        again = [(number, answer) for number, answer in asked if not _complete(answer, known[number])]
        computed += await self._ask(items, again, known, reading=False)
        scores = tuple(
            example_score(item, [_sum(answer, rows) for answer in item.answers])
            for item, rows in zip(items, known, strict=True)
        )
        return ScoreResult(scores, computed, time.perf_counter() - began)

    def close(self) -> None:
        self._engine.close()

    async def _ask(
        self, items: Sequence[Item], asked: Sequence[tuple[int, Tokens]], known: list[Known], *, reading: bool
    ) -> int:
        """Add to `known` what the engine computes for the answers `asked`, by their items' numbers; returns
        how many tokens went through the model."""
        outputs = await together(
            [
                self._engine.run(
                    items[number].context + answer, self._params(len(items[number].context), answer, reading)
                )
                for number, answer in asked
            ]
        )
        computed = 0
        for (number, answer), output in zip(asked, outputs, strict=True):
            context = len(items[number].context)
            cached = output.num_cached_tokens or 0
            computed += context + len(answer) - cached
            for position, value in enumerate(self._rows(output, context, len(answer), cached)):
                if value is not None:
                    known[number].setdefault(answer[: position + 1], value)
        return computed

    def _params(self, context: int, answer: Tokens, reading: bool) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        wanted: dict[str, Any] = {"prompt_logprobs": 0, "flat_logprobs": True}
        if self._engine.rows_by_id:
            wanted = {
                "prompt_logprob_token_ids": [[token] for token in answer],
                "prompt_logprob_start": context - 1,
            }
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            skip_reading_prefix_cache=not reading,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **wanted,
        )

    def _rows(self, output: RequestOutput, context: int, length: int, cached: int) -> list[float | None]:
        """log p of each of the answer's `length` tokens; None where the row was not computed."""
        if self._engine.rows_by_id:
            scores = output.prompt_token_id_logprobs
            return [None] * length if scores is None else [float(row[0]) for row in scores]
        rows = output.prompt_logprobs
        if rows is None or len(rows) != context + length:
            raise RuntimeError("vLLM returned no log-likelihoods of the prompt")
        # The row of a token is computed where the one before it is: it must lie behind what was cached.
        return [
            rows.logprobs[rows.start_indices[context + position]] if context + position > cached else None
            for position in range(length)
        ]


def _complete(answer: Tokens, known: Known) -> bool:
    return all(answer[: end + 1] in known for end in range(len(answer)))


def _sum(answer: Tokens, known: Known) -> float:
    """log p of the answer. Raises RuntimeError where vLLM left a row out even without its cache, or gave no
    number."""
    try:
        total = sum(known[answer[: end + 1]] for end in range(len(answer)))
    except KeyError:
        raise RuntimeError("vLLM left out log-likelihoods of the prompt") from None
    if not math.isfinite(total):
        raise RuntimeError(f"vLLM gave {total} for the log-likelihood of an answer")
    return total
