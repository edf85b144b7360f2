"""Attention over packed trees, each behind keys and values that were computed earlier.

All trees of a pass go through the model's linear layers as one row of tokens. Only attention has to separate
them: here trees of similar size behind the same shared tokens become the entries of a batch, padded to the
largest, with the shared keys in front of theirs. So attention costs trees x (largest tree)^2, not (all
tokens)^2.

Invariant: a node attends to everything shared ahead of its tree, to its ancestors and itself, and to nothing
else; in a layer with a sliding window, only to those of them within the window by position.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from pmpo_ray.engines.answer_tree import AnswerTree, Tokens

NAME = "pmpo_tree"

Kernel = Literal["matmul", "sdpa"]
"""How attention is computed. "matmul": two batched matrix products with a softmax between them, in blocks
that stay in the processor's cache; "sdpa": torch's fused kernels."""

SCORE_BLOCK = 1 << 20
"""Attention scores that "matmul" holds at once."""

_SIMILAR = 0.75
"""The minimum size of a tree in a batch, as a share of its largest: below it, padding costs more than another
batch."""


@dataclass(slots=True, eq=False)
class KeyValues:
    """Keys and values of a run of tokens: for each layer [kv heads, tokens, head size]."""

    tokens: Tokens = ()
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def cut(self, length: int) -> None:
        """Keep only the first `length` tokens."""
        self.tokens = self.tokens[:length]
        for layer in self.keys:
            # A view would keep the memory of the rest.
            self.keys[layer] = self.keys[layer][:, :length].clone()
            self.values[layer] = self.values[layer][:, :length].clone()

    def extend(self, tokens: Tokens, keys: dict[int, torch.Tensor], values: dict[int, torch.Tensor]) -> None:
        """Append tokens with their keys and values, which must cover the same layers."""
        for kept, fresh in ((self.keys, keys), (self.values, values)):
            for layer, states in fresh.items():
                kept[layer] = (
                    torch.cat([kept[layer], states], dim=1) if layer in kept else states.contiguous()
                )
        self.tokens += tokens


Chain = tuple[KeyValues, ...]
"""The tokens ahead of a tree: runs of tokens, one after the other."""


@dataclass(frozen=True, slots=True)
class PackedTree:
    """A tree of a pass, the chain ahead of it, and the place to keep its keys and values, if any."""

    tree: AnswerTree
    chain: Chain = ()
    keep: KeyValues | None = None

    @property
    def start(self) -> int:
        """The position of the tree's nodes of depth 0."""
        return sum(len(run.tokens) for run in self.chain)


class _Batch:
    """Neighbouring trees of a pass behind the same chain, padded to the largest of them.

    `gather` [trees x longest]: the row of each node in the pass (row 0 of the batch for padding). `valid`:
    the places in the padded batch that hold nodes.
    """

    def __init__(self, packed: Sequence[PackedTree], first_row: int, device: torch.device) -> None:
        sizes = [entry.tree.size for entry in packed]
        self.chain = packed[0].chain
        self.ahead = packed[0].start
        self.trees, self.longest, self.rows = len(sizes), max(sizes), slice(first_row, first_row + sum(sizes))
        places = np.concatenate([i * self.longest + np.arange(size) for i, size in enumerate(sizes)])
        gather = np.full(self.trees * self.longest, first_row)
        gather[places] = np.arange(self.rows.start, self.rows.stop)
        depths = np.zeros(self.trees * self.longest, dtype=np.int64)
        depths[places] = np.concatenate([entry.tree.depths for entry in packed])
        # A padding node attends to itself: a row without any key would give NaN.
        ancestry = np.tile(np.eye(self.longest, dtype=np.bool_), (self.trees, 1, 1))
        for index, entry in enumerate(packed):
            ancestry[index, : entry.tree.size, : entry.tree.size] = entry.tree.ancestry()
        self.padded = self.trees * self.longest > sum(sizes)
        self.gather, self.valid = _tensor(gather, device), _tensor(places, device)
        self._ancestry = torch.from_numpy(ancestry).to(device)
        self._depths = _tensor(depths, device).view(self.trees, self.longest)
        self._deepest = int(depths.max())
        self._hidden: dict[int | None, torch.Tensor] = {}
        self._masks: dict[tuple[int | None, int], torch.Tensor] = {}

    def reached(self, window: int | None) -> int | None:
        """`window`, or None if no node of the batch is far enough behind to be affected."""
        return None if window is None or self.ahead + self._deepest < window else window

    def hidden(self, window: int | None) -> torch.Tensor:
        """[trees, 1, 1, longest, keys], True where a node may not attend; without a window the keys are only
        those of the trees, since all nodes attend to everything ahead."""
        if window not in self._hidden:
            seen = self._ancestry if window is None else self._seen(window)
            self._hidden[window] = ~seen[:, None, None]
        return self._hidden[window]

    def mask(self, window: int | None, group: int) -> torch.Tensor:
        """[trees, 1, group x longest, ahead + longest], True where a node may attend; the rows are repeated
        for each of the `group` query heads that share a key head."""
        if (window, group) not in self._masks:
            self._masks[window, group] = self._seen(window).repeat(1, group, 1)[:, None]
        return self._masks[window, group]

    def _seen(self, window: int | None) -> torch.Tensor:
        """[trees, longest, ahead + longest]."""
        ahead = self._ancestry.new_ones(self.trees, self.longest, self.ahead)
        seen = torch.cat([ahead, self._ancestry], dim=2)
        return seen if window is None else seen & self._within(window)

    def _within(self, window: int) -> torch.Tensor:
        """[trees, longest, ahead + longest]: True if a key is less than `window` positions before."""
        positions = self._depths + self.ahead
        ahead = torch.arange(self.ahead, device=positions.device).expand(self.trees, -1)
        keys = torch.cat([ahead, positions], dim=1)
        return positions[:, :, None] - keys[:, None] < window


class Pass:
    """One forward pass: trees in their order, as one row of tokens.

    `tokens` and `positions` are [nodes]. `scratch` is reused from layer to layer and pass to pass.
    """

    def __init__(
        self, packed: Sequence[PackedTree], device: torch.device, kernel: Kernel, scratch: Scratch
    ) -> None:
        self.kernel, self.scratch = kernel, scratch
        self.tokens = torch.tensor([token for entry in packed for token in entry.tree.tokens], device=device)
        depths = [np.asarray(entry.tree.depths) + entry.start for entry in packed]
        self.positions = _tensor(np.concatenate(depths), device)
        self.batches = list(_batches(packed, device))
        self._packed = packed
        self._keys: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    def record(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Record a layer's keys and values, [kv heads, nodes, head size], if those of any tree are kept."""
        if any(entry.keep is not None for entry in self._packed):
            self._keys[layer], self._values[layer] = key, value

    def keep(self) -> None:
        """Store the keys and values of the finished pass where trees are kept."""
        row = 0
        for entry in self._packed:
            rows = slice(row, row := row + entry.tree.size)
            if entry.keep is not None:
                keys, values = (
                    {layer: states[:, rows] for layer, states in seen.items()}
                    for seen in (self._keys, self._values)
                )
                entry.keep.extend(entry.tree.tokens, keys, values)


class Scratch:
    """Memory for intermediate results, reused: page faults of fresh memory cost more than filling it."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, torch.Tensor] = {}

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """An uninitialised tensor; the next one of the same dtype overwrites it."""
        size = int(np.prod(shape))
        kept = self._kept.get(dtype)
        if kept is None or kept.numel() < size or kept.device != device:
            kept = self._kept[dtype] = torch.empty(size, dtype=dtype, device=device)
        return kept[:size].view(shape)

    def free(self) -> None:
        self._kept.clear()


def _batches(packed: Sequence[PackedTree], device: torch.device) -> Iterator[_Batch]:
    """Neighbours of similar size behind the same chain."""
    row = begin = 0
    for index in range(1, len(packed) + 1):
        if index < len(packed) and _alike(packed[begin], packed[index]):
            continue
        batch = _Batch(packed[begin:index], row, device)
        yield batch
        row, begin = batch.rows.stop, index


def _alike(first: PackedTree, other: PackedTree) -> bool:
    sizes = first.tree.size, other.tree.size
    return first.chain == other.chain and min(sizes) >= _SIMILAR * max(sizes)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Pass,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer while `plan` runs.

    `query` [1, heads, nodes, head size], `key` and `value` [1, kv heads, nodes, head size]; returns
    [1, nodes, heads, the values' head size]. Raises ValueError for attention variants it does not compute.
    """
    if attention_mask is not None or softcap is not None or s_aux is not None:
        raise ValueError("tree attention computes no external masks, soft caps or sinks")
    layer = module.layer_idx
    if not isinstance(layer, int):
        raise TypeError("tree attention needs the layer's index")
    key, value = key[0], value[0]
    attend = _by_matmul if plan.kernel == "matmul" else _by_sdpa
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[2])
    for batch in plan.batches:
        result = attend(
            batch, layer, query[0], key, value, scale, batch.reached(sliding_window), plan.scratch
        )
        rows = result.transpose(1, 2).reshape(-1, *out.shape[2:])
        out[0, batch.rows] = rows[batch.valid] if batch.padded else rows
    plan.record(layer, key, value)
    return out, None


def _by_matmul(
    batch: _Batch,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    scratch: Scratch,
) -> torch.Tensor:
    """[trees, heads, longest, head size] of a batch."""
    kv_heads = key.shape[0]
    group = query.shape[0] // kv_heads
    shape = (batch.trees, kv_heads, group, batch.longest)
    queries = _gathered(query, batch).view(*shape, -1)
    keys, values = _behind_chain(key, batch, layer, "keys"), _behind_chain(value, batch, layer, "values")
    out = torch.empty((*shape, value.shape[2]), dtype=query.dtype, device=query.device)
    hidden = batch.hidden(window)
    for trees, rows in _blocks(batch, query.shape[0]):
        # Children come after their parents: no node of the block attends beyond the block's end.
        seen = batch.ahead + rows.stop
        weights = _weights(
            queries[trees, :, :, rows].flatten(2, 3).flatten(0, 1),
            keys[trees, :, :seen].flatten(0, 1),
            hidden[trees, :, :, rows, : rows.stop if window is None else seen],
            scale,
            scratch,
        )
        result = torch.bmm(weights, values[trees, :, :seen].flatten(0, 1))
        block = out[trees, :, :, rows]
        block.copy_(result.view(block.shape))
    return out.flatten(1, 2)


def _weights(
    queries: torch.Tensor, keys: torch.Tensor, hidden: torch.Tensor, scale: float, scratch: Scratch
) -> torch.Tensor:
    """softmax(scale queries keys^T) over the keys that are not hidden; valid until the next call. `queries`
    [trees x kv heads, group x rows, size], `keys` [trees x kv heads, keys, size], `hidden` [trees, 1, 1,
    rows, the last keys]."""
    shape = (queries.shape[0], queries.shape[1], keys.shape[1])
    scores = scratch.take(shape, queries.dtype, queries.device)
    torch.baddbmm(scores, queries, keys.transpose(1, 2), beta=0, alpha=scale, out=scores)
    exact = scores
    if scores.dtype != torch.float32:
        exact = scratch.take(shape, torch.float32, queries.device).copy_(scores)
    trees, rows = hidden.shape[0], hidden.shape[3]
    by_tree = exact.view(trees, -1, exact.shape[1] // rows, rows, shape[2])
    by_tree[..., shape[2] - hidden.shape[4] :].masked_fill_(hidden, -torch.inf)
    torch.softmax(exact, dim=-1, out=exact)
    return exact if exact is scores else scores.copy_(exact)


def _blocks(batch: _Batch, heads: int) -> Iterator[tuple[slice, slice]]:
    """The batch in blocks of trees and rows, with at most `SCORE_BLOCK` attention scores each."""
    keys = heads * (batch.ahead + batch.longest)
    rows = min(batch.longest, max(1, SCORE_BLOCK // keys))
    trees = max(1, SCORE_BLOCK // (keys * rows)) if rows == batch.longest else 1
    for tree in range(0, batch.trees, trees):
        for row in range(0, batch.longest, rows):
            yield slice(tree, min(tree + trees, batch.trees)), slice(row, min(row + rows, batch.longest))


def _by_sdpa(
    batch: _Batch,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    _: Scratch,
) -> torch.Tensor:
    """[trees, heads, longest, head size] of a batch."""
    kv_heads = key.shape[0]
    # The query heads that share a key head become additional rows of it, so that no key is copied.
    group = query.shape[0] // kv_heads
    queries = _gathered(query, batch).view(batch.trees, kv_heads, group * batch.longest, -1)
    keys, values = _behind_chain(key, batch, layer, "keys"), _behind_chain(value, batch, layer, "values")
    mask = batch.mask(window, group)
    out = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    return out.reshape(batch.trees, query.shape[0], batch.longest, -1)


def _gathered(states: torch.Tensor, batch: _Batch) -> torch.Tensor:
    """[heads, nodes, size] -> [trees, heads, longest, size], contiguous."""
    heads, _, size = states.shape
    picked = states.index_select(1, batch.gather) if batch.padded else states[:, batch.rows]
    return picked.reshape(heads, batch.trees, batch.longest, size).transpose(0, 1).contiguous()


def _behind_chain(
    states: torch.Tensor, batch: _Batch, layer: int, kind: Literal["keys", "values"]
) -> torch.Tensor:
    """A batch's keys or values with those of its chain in front: [trees, kv heads, keys, size]."""
    chain = [run.keys[layer] if kind == "keys" else run.values[layer] for run in batch.chain if run.tokens]
    if not chain:
        return _gathered(states, batch)
    ahead = [part[None].expand(batch.trees, -1, -1, -1) for part in chain]
    return torch.cat([*ahead, _gathered(states, batch)], dim=2)


def _tensor(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


AttentionInterface.register(NAME, tree_attention)
