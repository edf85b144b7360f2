"""A scorer on vLLM: log-likelihoods of prompts whose beginnings come from its prefix cache (AsyncScorer).

Invariants:
- No log-likelihood is read from a row that was not computed for its request: vLLM leaves the rows of cached
  tokens unwritten. A missing row is taken from another answer of the same example with the same tokens up to
  there, or computed as the last row of a prompt that ends there, which is never cached, or the request is
  repeated without reading the cache: whichever needs the fewest tokens.
- The scores are those of plain one-by-one scoring except for rounding, whether the cache is cold, warm, or
  full of other requests' text.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.answer_tree import Item, Tokens
from pmpo_ray.engines.items import ItemBuilder, example_score
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.vllm.engine import VllmEngine
from pmpo_ray.types import EngineInfo, PromptLength, ScoreRequest, ScoreResult

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

_MAX_IDS = 128
"""The number of token ids that vLLM rates at the end of a prompt."""

Known = dict[Tokens, float]
"""log p of the last token of each beginning of an answer, by that beginning."""


class VllmScorer:
    """One vLLM engine that scores answers."""

    def __init__(self, engine: VllmEngine, config: ScorerConfig) -> None:
        self._engine = engine
        encoder = PromptEncoder(engine.tokenizer, config.layout, engine.day)
        # vLLM generates one token after every prompt, which has to fit as well.
        self._items = ItemBuilder(encoder, engine.context_length - 1)
        self._info = engine.info(encoder)

    def info(self) -> EngineInfo:
        return self._info

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example (protocols.Measurer)."""
        return self._items.lengths(request)

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives (protocols.Scorer.score).

        The answers of an example, and the examples of an instruction, are sent in succession: vLLM's
        scheduler takes requests in order and reuses beginnings that it has seen.
        """
        began = time.perf_counter()
        items = self._items.items(request)
        pairs: list[tuple[Item, Known]] = [(item, {}) for item in items]
        computed = await self._rate(
            [(item, rows, answer) for item, rows in pairs for answer in item.answers], reading=True
        )
        last: list[tuple[Item, Known, Tokens, Tokens]] = []
        again: list[tuple[Item, Known, Tokens]] = []
        for item, rows in pairs:
            gaps = _gaps(item, rows)
            unfinished = [answer for answer in item.answers if not _complete(answer, rows)]
            repeating = sum(len(item.context) + len(answer) for answer in unfinished)
            if len(gaps) * self._engine.block_size < repeating and max(map(len, gaps.values())) <= _MAX_IDS:
                last += [(item, rows, beginning, tuple(following)) for beginning, following in gaps.items()]
            else:
                again += [(item, rows, answer) for answer in unfinished]
        computed += sum(await gather_or_cancel([self._rate_last(last), self._rate(again, reading=False)]))
        scores = tuple(
            example_score(item, [_sum(answer, rows) for answer in item.answers]) for item, rows in pairs
        )
        return ScoreResult(scores, computed, time.perf_counter() - began)

    def close(self) -> None:
        self._engine.close()

    async def _rate(self, queries: Sequence[tuple[Item, Known, Tokens]], *, reading: bool) -> int:
        """Add the rows computed for answers of items to their known rows; return the number of tokens that
        went through the model."""
        outputs = await gather_or_cancel(
            [
                self._engine.run(item.context + answer, self._params(len(item.context), answer, reading))
                for item, _, answer in queries
            ]
        )
        computed = 0
        for (item, known, answer), output in zip(queries, outputs, strict=True):
            context = len(item.context)
            cached = output.num_cached_tokens or 0
            computed += context + len(answer) - cached
            for position, value in enumerate(self._rows(output, context, len(answer), cached)):
                if value is not None:
                    known.setdefault(answer[: position + 1], value)
        return computed

    async def _rate_last(self, queries: Sequence[tuple[Item, Known, Tokens, Tokens]]) -> int:
        """The same for the tokens that may follow an answer's beginning, from the last row of a prompt."""
        outputs = await gather_or_cancel(
            [
                self._engine.run(
                    item.context + beginning,
                    _params(logprob_token_ids=list(following), flat_logprobs=True),
                )
                for item, _, beginning, following in queries
            ]
        )
        computed = 0
        for (item, known, beginning, following), output in zip(queries, outputs, strict=True):
            computed += len(item.context) + len(beginning) - (output.num_cached_tokens or 0)
            logprobs = output.outputs[0].logprobs
            if logprobs is None:
                raise RuntimeError("vLLM returned no log-likelihoods of the requested tokens")
            values = dict(zip(logprobs.token_ids, logprobs.logprobs, strict=True))
            known.update(((*beginning, token), values[token]) for token in following)
        return computed

    def _params(self, context: int, answer: Tokens, reading: bool) -> SamplingParams:
        if self._engine.rows_by_id:
            return _params(
                prompt_logprob_token_ids=[[token] for token in answer],
                prompt_logprob_start=context - 1,
                skip_reading_prefix_cache=not reading,
            )
        return _params(prompt_logprobs=0, flat_logprobs=True, skip_reading_prefix_cache=not reading)

    def _rows(self, output: RequestOutput, context: int, length: int, cached: int) -> list[float | None]:
        """log p of each of the answer's `length` tokens; None if the row was not computed."""
        if self._engine.rows_by_id:
            scores = output.prompt_token_id_logprobs
            return [None] * length if scores is None else [float(row[0]) for row in scores]
        rows = output.prompt_logprobs
        if rows is None or len(rows) != context + length:
            raise RuntimeError("vLLM returned no log-likelihoods of the prompt")
        # A token's row is computed with the token before it, which must not come from the cache.
        return [
            rows.logprobs[rows.start_indices[context + position]] if context + position > cached else None
            for position in range(length)
        ]


def _params(**reading: Any) -> SamplingParams:
    """Parameters of a request that only reads log-likelihoods; vLLM insists on generating one token."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **reading,
    )


def _gaps(item: Item, known: Known) -> dict[Tokens, set[int]]:
    """The tokens of the item's answers whose rows are not known yet, by the beginnings that they follow."""
    gaps: dict[Tokens, set[int]] = {}
    for answer in item.answers:
        for end, token in enumerate(answer):
            if answer[: end + 1] not in known:
                gaps.setdefault(answer[:end], set()).add(token)
    return gaps


def _complete(answer: Tokens, known: Known) -> bool:
    return all(answer[: end + 1] in known for end in range(len(answer)))


def _sum(answer: Tokens, known: Known) -> float:
    """log p of the answer. Raises RuntimeError if vLLM omitted a row even without its cache, or the sum is
    not finite."""
    try:
        total = sum(known[answer[: end + 1]] for end in range(len(answer)))
    except KeyError:
        raise RuntimeError("vLLM omitted log-likelihoods of the prompt") from None
    if not math.isfinite(total):
        raise RuntimeError(f"vLLM gave {total} for the log-likelihood of an answer")
    return total
