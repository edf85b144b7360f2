"""The memory of a forward pass, in addition to the weights, and the error if it is too little.

Invariant: estimates err upwards; a pass that is estimated to fit its bounds fits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pmpo_ray.engines.answer_tree import AnswerTree
from pmpo_ray.engines.hf.tree_attention import SCORE_BLOCK
from pmpo_ray.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_CPU_BYTES = 1 << 30
_CUDA_SHARE = 0.5
"""Share of the memory that is free after loading the weights; another replica may need the rest."""


class TooLargeError(EngineError):
    """A single item needs more memory than allowed. `owner` is its index, None for the part that all items
    share; `allowed` is None if the memory itself ran out."""

    def __init__(self, owner: int | None, tokens: int, ahead: int, needed: int, allowed: int | None) -> None:
        self.owner = owner
        limit = (
            "more than is free"
            if allowed is None
            else f"more than the {_size(allowed)} that scorer.working_memory_gb allows"
        )
        advice = "shorten it, give the scorer more memory, or use a smaller model"
        super().__init__(f"{tokens} tokens behind {ahead} take about {_size(needed)}, {limit}: {advice}")


@dataclass(frozen=True, slots=True)
class PassCost:
    """Bytes that a pass takes: `fixed` once, `node` for each token in it, `scored` for each token whose
    logits are held, `cached` for each token whose keys and values are kept."""

    fixed: int
    node: int
    scored: int
    cached: int

    @classmethod
    def of(cls, model: PreTrainedModel, head_bytes: int, *, whole_logits: bool) -> PassCost:
        """The costs of `model`; `head_bytes` are the bytes of the output head; `whole_logits` is True if the
        model returns the logits of all scored tokens at once."""
        config, item = model.config.get_text_config(), model.dtype.itemsize
        width = config.hidden_size
        heads = _largest(config, "num_attention_heads", 1)
        kv_heads = _largest(config, "num_key_value_heads", heads)
        head_size = _largest(config, "head_dim", width // heads)
        inner = _largest(config, "intermediate_size", 4 * width)
        states = (heads + 2 * kv_heads) * head_size
        # Hidden states and residuals, queries, keys and values before and after rotation and padding, the
        # feed-forward layer's three products; norms and rotations work in fp32.
        node = item * (4 * width + 4 * states + 3 * inner) + 4 * (2 * width + states)
        return cls(
            fixed=head_bytes + 2 * SCORE_BLOCK * (item + 4),
            node=node,
            scored=config.vocab_size * item if whole_logits else 0,
            cached=2 * config.num_hidden_layers * kv_heads * head_size * item,
        )

    def of_tree(self, tree: AnswerTree, ahead: int) -> int:
        """Bytes for a tree of a pass behind `ahead` tokens; each of the three masks has one byte per pair of
        tokens."""
        kept = 0 if tree.rows else self.cached
        return tree.size * (self.node + kept + 3 * (tree.size + ahead)) + tree.scored * self.scored


def _largest(config: PreTrainedConfig, name: str, default: int) -> int:
    """A size from a model's configuration, the largest if it differs by layer."""
    value = getattr(config, name, None) or default
    return max(value) if isinstance(value, list | tuple) else int(value)


def default_working_memory(device: torch.device) -> int:
    """The default bytes for intermediate results: 1 GiB on a CPU, half of the free memory on a GPU."""
    if device.type != "cuda":
        return _CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * _CUDA_SHARE)


def is_out_of_memory(error: Exception) -> bool:
    """True if torch or the system had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"
