"""Scoring with a model's own attention: slower than trees, for every causal model.

`score_one_by_one` is the reference for all other ways. `ExpandedCache` runs the contexts' common beginning
once, each question once behind a copy of it, and the question's answers behind copies of that.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from pmpo_ray.engines.answer_tree import Item, Tokens, find_root

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

Sums = tuple[float, ...]


def score_one_by_one(model: PreTrainedModel, items: Sequence[Item]) -> tuple[tuple[Sums, ...], int]:
    """Sums of log p for each item and answer, and the number of tokens that went through the model: every
    sequence whole and alone."""
    sums: list[Sums] = []
    computed = 0
    for item in items:
        results = []
        for answer in item.answers:
            ids = _ids(model, (item.context + answer)[:-1])
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer)).logits[0]
            results.append(_sum(logits[-len(answer) :], answer))
            computed += ids.shape[1]
        sums.append(tuple(results))
    return tuple(sums), computed


class ExpandedCache:
    """Scoring with the model's own cache, whatever it holds: keys, or a recurrent state."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._root: tuple[Tokens, Cache] | None = None

    def forget(self) -> None:
        """Drop the cached beginning."""
        self._root = None

    def score(self, items: Sequence[Item]) -> tuple[tuple[Sums, ...], int]:
        """Sums of log p for each item and answer, and the number of tokens that went through the model."""
        length = find_root([item.context for item in items])
        root = items[0].context[:length]
        computed = 0
        if root and (self._root is None or self._root[0] != root):
            self._root = (root, self._run(root, None)[1])
            computed = length
        sums: list[Sums] = []
        for item in items:
            behind = copy.deepcopy(self._root[1]) if root and self._root is not None else None
            logits, cache = self._run(item.context[length:], behind)
            computed += len(item.context) - length
            by_answer: dict[Tokens, float] = {}
            for size in sorted({len(answer) for answer in item.answers}):
                group = sorted({answer for answer in item.answers if len(answer) == size})
                by_answer |= dict(zip(group, self._answers(group, logits, cache), strict=True))
                computed += len(group) * (size - 1)
            sums.append(tuple(by_answer[answer] for answer in item.answers))
        return tuple(sums), computed

    def _answers(self, answers: Sequence[Tokens], first: torch.Tensor, cache: Cache) -> list[float]:
        """The sums of answers of one length, of which `first` [1, vocabulary] predicts the first token."""
        size = len(answers[0])
        if size == 1:
            return [_sum(first, answer) for answer in answers]
        expanded = copy.deepcopy(cache)
        # Every answer's cache is the first and only one, copied.
        first_only = torch.zeros(len(answers), dtype=torch.long, device=self._model.device)
        expanded.reorder_cache(first_only)  # type: ignore[arg-type]
        fed = torch.tensor([answer[:-1] for answer in answers], device=self._model.device)
        logits = self._model(input_ids=fed, past_key_values=expanded, use_cache=True).logits
        return [_sum(torch.cat([first, rows]), answer) for rows, answer in zip(logits, answers, strict=True)]

    def _run(self, tokens: Tokens, cache: Cache | None) -> tuple[torch.Tensor, Cache]:
        """The last token's logits [1, vocabulary], and the cache behind all of them."""
        out: Any = self._model(
            input_ids=_ids(self._model, tokens), past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        return out.logits[0, -1:], out.past_key_values


def _ids(model: PreTrainedModel, tokens: Tokens) -> torch.Tensor:
    return torch.tensor([tokens], device=model.device)


def _sum(logits: torch.Tensor, answer: Tokens) -> float:
    """Sum of log p of `answer`, whose tokens are predicted by the rows of `logits`, in fp32."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(answer, device=logits.device)[:, None])
    return float(chosen.double().sum())
