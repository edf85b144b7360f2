"""Sampling from vLLM, which batches requests as they arrive (AsyncGenerator).

Invariant: a sample ends at the model's end-of-turn token, at a stop string, or at the token limit, and
`finished` is False for the last.
"""

from __future__ import annotations

import time

from pmpo_ray.engines.generation_prompt import RequestEncoder
from pmpo_ray.engines.items import ItemBuilder
from pmpo_ray.engines.vllm.engine import VllmEngine
from pmpo_ray.types import EngineInfo, GenerateRequest, GenerateResult, Generation, PromptLength, ScoreRequest


class VllmGenerator:
    """One vLLM engine that answers prompts."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self._encoder = RequestEncoder(engine.tokenizer, engine.context_length, engine.day)
        self._ends = sorted(self._encoder.end_tokens())
        self._info = engine.info(self._encoder.own)

    def info(self) -> EngineInfo:
        return self._info

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example as a prompt (protocols.Measurer)."""
        return ItemBuilder(self._encoder.own, self._engine.context_length).lengths(request)

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of one request (protocols.Generator.generate). vLLM gives sample i the seed
        `request.seed + i`; other running requests change it by rounding at most."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        began = time.perf_counter()
        request = self._encoder.with_stops(request)
        prompt = self._encoder.prompt(request)
        greedy = request.temperature == 0
        params = SamplingParams(
            n=1 if greedy else request.n,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            max_tokens=min(request.max_tokens, self._engine.context_length - len(prompt)),
            stop=list(request.stop),
            stop_token_ids=self._ends,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = await self._engine.run(prompt, params)
        samples = tuple(
            Generation(sample.text, len(sample.token_ids), sample.finish_reason == "stop")
            for sample in sorted(output.outputs, key=lambda sample: sample.index)
        )
        # Greedy samples are all the same.
        return GenerateResult(
            samples * request.n if greedy else samples, len(prompt), time.perf_counter() - began
        )

    def close(self) -> None:
        self._engine.close()
