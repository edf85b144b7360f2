"""The least work that a workload needs, and how fast this machine multiplies matrices.

Invariant: the least work counts every distinct token path of the whole workload once, whatever request it
stands in, the keys that a layer's window lets it see, and the vocabulary only where an answer's token is
predicted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from pmpo_ray.engines.answer_tree import Item

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_BODY_ROWS = 1024
_HEAD_ROWS = 64
_SQUARE = 2048
_ROUNDS = 5
_ROUND_SECONDS = 0.05

Shape = tuple[int, int]
"""Inputs and outputs of a linear layer."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The matrix products of a model. `body` counts its linear layers below the vocabulary by shape;
    `attention_width` is heads x head size; `windows` has one entry a layer, None for full attention."""

    body: Mapping[Shape, int]
    hidden: int
    vocabulary: int
    attention_width: int
    windows: tuple[int | None, ...]

    @property
    def body_weights(self) -> int:
        return sum(inputs * outputs * count for (inputs, outputs), count in self.body.items())


@dataclass(frozen=True, slots=True)
class LeastWork:
    """`unique_tokens` is U, `scored_rows` R; the parts of F in floating-point operations:
    F = 2 N_body U + attention + 2 d V R."""

    unique_tokens: int
    scored_rows: int
    body: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.body + self.attention + self.head


@dataclass(frozen=True, slots=True)
class MatmulRates:
    """Operations a second: of each linear shape with 1,024 rows (the vocabulary's with 64), and of a
    square product of 2,048."""

    body: Mapping[Shape, float]
    head: float
    square: float

    def at_own_shapes(self, shape: ModelShape, work: LeastWork) -> float:
        """The rate of the workload's linear layers: each shape's, weighted by its share of the work."""
        seconds = work.head / self.head
        for size, count in shape.body.items():
            part = size[0] * size[1] * count / shape.body_weights
            seconds += part * work.body / self.body[size]
        return (work.body + work.head) / seconds


class _Trie:
    """Distinct token paths: nodes are numbered from 0 as they come; -1 is the root."""

    def __init__(self) -> None:
        self._children: dict[tuple[int, int], int] = {}
        self.depths: list[int] = []

    def add(self, node: int, tokens: Sequence[int]) -> list[int]:
        """Follow or make the path of `tokens` below `node`; its nodes in order."""
        path: list[int] = []
        for token in tokens:
            child = self._children.setdefault((node, token), len(self.depths))
            if child == len(self.depths):
                self.depths.append(self.depths[node] + 1 if node >= 0 else 0)
            node = child
            path.append(node)
        return path


def least_work(requests: Sequence[Sequence[Item]], shape: ModelShape) -> LeastWork:
    """The least work for all `requests`. Contexts and answers hold at least one token."""
    trie = _Trie()
    rows: set[int] = set()
    for item in (item for request in requests for item in request):
        stem = trie.add(-1, item.context)[-1]
        for answer in item.answers:
            # The last token of an answer is predicted but never read.
            rows.update((stem, *trie.add(stem, answer[:-1])))
    layers = Counter(shape.windows)
    attended = sum(
        count * (depth + 1 if window is None else min(depth + 1, window))
        for window, count in layers.items()
        for depth in trie.depths
    )
    return LeastWork(
        unique_tokens=len(trie.depths),
        scored_rows=len(rows),
        body=2.0 * shape.body_weights * len(trie.depths),
        attention=4.0 * shape.attention_width * attended,
        head=2.0 * shape.hidden * shape.vocabulary * len(rows),
    )


def model_shape(source: Path | PreTrainedConfig) -> ModelShape:
    """The shape of the model that a configuration describes, or the one in a folder; no weights are read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(source, Path):
        config = AutoConfig.from_pretrained(str(source), local_files_only=True).get_text_config()
    else:
        config = source.get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    head = model.get_output_embeddings()
    body = Counter(
        (module.in_features, module.out_features)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head
    )
    hidden, heads = config.hidden_size, config.num_attention_heads
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return ModelShape(
        body=dict(body),
        hidden=hidden,
        vocabulary=config.vocab_size,
        attention_width=heads * (getattr(config, "head_dim", None) or hidden // heads),
        windows=tuple(config.sliding_window if kind == "sliding_attention" else None for kind in kinds),
    )


def matmul_rates(shape: ModelShape, dtype: torch.dtype, device: str) -> MatmulRates:
    """Measure the rates with torch's number of threads, each as the best of several rounds."""
    return MatmulRates(
        body={size: _rate(_BODY_ROWS, size, dtype, device) for size in shape.body},
        head=_rate(_HEAD_ROWS, (shape.hidden, shape.vocabulary), dtype, device),
        square=_rate(_SQUARE, (_SQUARE, _SQUARE), dtype, device),
    )


@torch.inference_mode()
def _rate(rows: int, size: Shape, dtype: torch.dtype, device: str) -> float:
    values = torch.randn(rows, size[0], dtype=dtype, device=device)
    weight = torch.randn(size[1], size[0], dtype=dtype, device=device)
    seconds = _best_seconds(lambda: nn.functional.linear(values, weight), device)
    return 2.0 * rows * size[0] * size[1] / seconds


def _best_seconds(call: Callable[[], object], device: str) -> float:
    """Seconds of one call in the best of several rounds, after one round that warms up."""
    best, calls = float("inf"), 1
    for warm in (False, *[True] * _ROUNDS):
        finish(device)
        began = time.perf_counter()
        for _ in range(calls):
            call()
        finish(device)
        each = (time.perf_counter() - began) / calls
        if warm:
            best = min(best, each)
        calls = max(1, round(_ROUND_SECONDS / each))
    return best


def finish(device: str) -> None:
    """Wait until the device has done what it was given: a GPU works on while Python goes on."""
    if device == "cuda":
        torch.cuda.synchronize()
