"""Sampling from a transformers model, many requests in one batch.

Invariants:
- A prompt is computed once, however many samples are requested.
- Sample i of a request has its own random numbers, seeded with `seed + i`; the rest of the batch changes it
  by rounding at most.
- A sample ends at the model's end-of-turn token, at a stop string, or at the token limit, and `finished` is
  False for the last.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.engines.generation_prompt import RequestEncoder
from pmpo_ray.engines.hf import grouped_attention
from pmpo_ray.engines.hf.devices import context_length
from pmpo_ray.engines.hf.loading import LoadedModel, load_replica
from pmpo_ray.engines.items import ItemBuilder
from pmpo_ray.engines.placement import Placement
from pmpo_ray.types import EngineInfo, GenerateRequest, GenerateResult, Generation, PromptLength, ScoreRequest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Stop strings are searched in the text of this many last tokens.
_TAIL = 24


@dataclass(slots=True)
class _Sample:
    """An unfinished answer."""

    request: GenerateRequest
    owner: int
    limit: int
    random: torch.Generator
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    finished: bool = False


class TransformersGenerator:
    """One model replica that answers prompts (protocols.Generator)."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._context = context_length(loaded.model)
        self._encoder = RequestEncoder(loaded.tokenizer, self._context, loaded.day)
        self._ends = self._encoder.end_tokens() | _named_ends(loaded.model)
        self._info = self._encoder.own.described(loaded.info(self._encoder.own.layout))
        plain = loaded.attention
        self._attention = grouped_attention.NAME if plain == "sdpa" else plain

    @classmethod
    def load(
        cls, model: str, config: RewriterConfig, placement: Placement | None = None
    ) -> TransformersGenerator:
        """A generator with `model` loaded; `placement` and errors as in `load_replica`."""
        return cls(load_replica(model, config, placement))

    def info(self) -> EngineInfo:
        return self._info

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example as a prompt (protocols.Measurer)."""
        return ItemBuilder(self._encoder.own, self._context).lengths(request)

    @torch.inference_mode()
    def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult]:
        """Answer all requests as one batch (protocols.Generator.generate)."""
        began = time.perf_counter()
        if self._model.config._attn_implementation != self._attention:
            # A scorer of the same model object sets another attention.
            self._model.set_attn_implementation(self._attention)
        requests = [self._encoder.with_stops(request) for request in requests]
        prompts = [self._encoder.prompt(request) for request in requests]
        samples = [
            _Sample(
                request,
                owner,
                limit=min(request.max_tokens, self._context - len(prompts[owner])),
                random=torch.Generator().manual_seed(request.seed + index),
            )
            for owner, request in enumerate(requests)
            for index in range(request.n)
        ]
        self._decode(prompts, samples)
        seconds = time.perf_counter() - began
        return [
            GenerateResult(
                samples=tuple(self._finish(sample) for sample in samples if sample.owner == owner),
                prompt_tokens=len(prompt),
                seconds=seconds,
            )
            for owner, prompt in enumerate(prompts)
        ]

    def _decode(self, prompts: Sequence[tuple[int, ...]], samples: list[_Sample]) -> None:
        device = self._model.device
        cache = DynamicCache(config=self._model.config)
        mask, positions = _left_padded_mask(prompts, device)
        logits = self._model(
            input_ids=_left_padded(prompts, device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        # From one row per prompt to one row per sample.
        rows = torch.tensor([sample.owner for sample in samples], device=device)
        logits, mask, position = logits[rows], mask[rows], positions[rows, -1:]
        cache.batch_select_indices(rows)
        active = list(samples)
        while True:
            for sample, token in zip(active, _draw(logits, active), strict=True):
                self._append(sample, token)
            keep = [row for row, sample in enumerate(active) if not sample.ended]
            if not keep:
                return
            if len(keep) < len(active):
                rows = torch.tensor(keep, device=device)
                mask, position, active = mask[rows], position[rows], [active[row] for row in keep]
                cache.batch_select_indices(rows)
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            position = position + 1
            logits = self._model(
                input_ids=torch.tensor([[sample.tokens[-1]] for sample in active], device=device),
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

    def _append(self, sample: _Sample, token: int) -> None:
        sample.tokens.append(token)
        if token in self._ends or self._stops(sample):
            sample.ended = sample.finished = True
        elif len(sample.tokens) >= sample.limit:
            sample.ended = True

    def _stops(self, sample: _Sample) -> bool:
        if not sample.request.stop:
            return False
        tail = str(self._tokenizer.decode(sample.tokens[-_TAIL:]))
        return any(stop in tail for stop in sample.request.stop)

    def _finish(self, sample: _Sample) -> Generation:
        text = str(self._tokenizer.decode(sample.tokens, skip_special_tokens=True))
        for stop in sample.request.stop:
            text = text.partition(stop)[0]
        return Generation(text, len(sample.tokens), sample.finished)


def _named_ends(model: PreTrainedModel) -> frozenset[int]:
    """The end-of-answer tokens in the model's generation settings."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    tokens = named if isinstance(named, list) else [named]
    return frozenset(token for token in tokens if token is not None)


def _left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> torch.Tensor:
    longest = max(len(prompt) for prompt in prompts)
    # The mask hides the padding, whatever its value.
    return torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)


def _left_padded_mask(
    prompts: Sequence[tuple[int, ...]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """[prompts, longest] each: 1 for tokens and 0 for padding, and the position of each token."""
    longest = max(len(prompt) for prompt in prompts)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        mask[row, longest - len(prompt) :] = 1
    return mask, (mask.cumsum(dim=1) - 1).clamp(min=0)


def _draw(logits: torch.Tensor, samples: Sequence[_Sample]) -> list[int]:
    """The next token of each sample. `logits` [samples, vocabulary]."""
    scores = logits.float()
    best = scores.argmax(dim=1)
    heat = torch.tensor([sample.request.temperature for sample in samples], device=scores.device)
    nucleus = torch.tensor([sample.request.top_p for sample in samples], device=scores.device)
    probabilities = (scores / heat.clamp(min=1e-6)[:, None]).softmax(dim=1)
    total = probabilities.cumsum(dim=1)
    chosen = best.clone()
    waiting = torch.nonzero(heat > 0)[:, 0]
    # A token drawn from the whole distribution is kept if it is in the nucleus, else another is drawn: the
    # same distribution as that of the sorted and truncated one, without sorting the vocabulary.
    while len(waiting):
        uniform = torch.stack([torch.rand(1, generator=samples[row].random) for row in waiting.tolist()])
        mass = total[waiting]
        drawn = torch.searchsorted(mass, uniform.to(mass.device) * mass[:, -1:])
        drawn = drawn.clamp(max=mass.shape[1] - 1)
        likelihood = probabilities[waiting]
        above = torch.where(likelihood > likelihood.gather(1, drawn), likelihood, 0.0).sum(dim=1)
        chosen[waiting] = drawn[:, 0]
        waiting = waiting[above >= nucleus[waiting]]
    return [int(token) for token in chosen]
