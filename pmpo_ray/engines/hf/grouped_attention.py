"""Attention for decoding that never copies keys and values.

The default CPU path repeats the key heads of grouped-query models and runs a prefill kernel for a single
query, which takes most of a decoding step. Here the query heads that share a key head become rows of one
small matrix product. Prefill, with many queries, uses sdpa.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "pmpo_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`query` [batch, heads, queries, size], `key` and `value` [batch, kv heads, tokens, size],
    `attention_mask` [batch, 1, queries, tokens], True where a query may attend; returns
    [batch, queries, heads, size]."""
    batch, heads, queries, size = query.shape
    if queries > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    rows = query.view(batch, key.shape[1], heads // key.shape[1], size)
    scores = (rows @ key.transpose(2, 3)).float() * (scaling if scaling is not None else size**-0.5)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    out = scores.softmax(dim=-1).to(value.dtype) @ value
    return out.view(batch, 1, heads, size), None


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
