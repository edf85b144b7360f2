"""Log-probabilities of scored tokens from their last hidden states.

Invariants: log-softmax is in fp32; if the model's logits are exactly those of its output layer, the rows x
vocabulary held never exceed the allowed bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pmpo_ray.engines.hf.tree_attention import Pass, Scratch

_MAX_ROWS = 256
_MAX_BYTES = 1 << 28


class OutputHead:
    """The end of a model. `whole_logits` is True if the model itself has to return all logits at once, since
    it changes those of its output layer (a soft cap, a scale). `bytes` is the most memory it holds."""

    def __init__(self, model: PreTrainedModel, allowed: int) -> None:
        self._model = model
        vocabulary = model.config.get_text_config().vocab_size
        row = vocabulary * (model.dtype.itemsize + 4)
        self._rows = max(1, min(_MAX_ROWS, min(allowed, _MAX_BYTES) // row))
        self.bytes = self._rows * row
        self._layer: torch.nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.whole_logits = not self._layer_is_all()

    def logprobs(self, plan: Pass, rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Run `plan`; log p of token `targets[i]` behind node `rows[i]`, float64 in nats."""
        inputs = {"input_ids": plan.tokens[None], "position_ids": plan.positions[None], "use_cache": False}
        needed, places = np.unique(rows, return_inverse=True)
        picked = torch.from_numpy(needed).to(plan.tokens.device)
        if self.whole_logits:
            keep = picked if len(needed) else 1
            states = self._model(**inputs, logits_to_keep=keep, plan=plan).logits[0]
        else:
            states = self._model.base_model(**inputs, plan=plan).last_hidden_state[0].index_select(0, picked)
        parts = [np.empty(0)]
        order = np.argsort(places, kind="stable")
        sorted_places = places[order]
        for begin in range(0, len(needed), self._rows):
            chunk = states[begin : begin + self._rows]
            low, high = np.searchsorted(sorted_places, (begin, begin + len(chunk)))
            mine = order[low:high]
            logits = chunk if self.whole_logits or self._layer is None else self._layer(chunk)
            parts.append(_chosen(logits, places[mine] - begin, targets[mine], plan.scratch))
        logprobs = np.empty(len(rows))
        logprobs[order] = np.concatenate(parts)
        return logprobs

    @torch.inference_mode()
    def _layer_is_all(self) -> bool:
        """Check if the model's logits are its output layer applied to its last hidden states."""
        if self._layer is None or self._model.base_model is self._model:
            return False
        ids = (
            torch.arange(8, device=self._model.device)[None] % self._model.config.get_text_config().vocab_size
        )
        whole = self._model(input_ids=ids, use_cache=False).logits
        states = self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return torch.allclose(whole.float(), self._layer(states).float(), rtol=1e-2, atol=1e-3)


def _chosen(logits: torch.Tensor, places: np.ndarray, targets: np.ndarray, scratch: Scratch) -> np.ndarray:
    """log p of `targets[i]` in row `places[i]` of `logits` [rows, vocabulary]."""
    exact = scratch.take(tuple(logits.shape), torch.float32, logits.device).copy_(logits)
    rows = torch.from_numpy(places).to(logits.device)
    chosen = exact[rows, torch.from_numpy(targets).to(logits.device)]
    top = exact.amax(dim=1, keepdim=True)
    norm = top[:, 0] + exact.sub_(top).exp_().sum(dim=1).log()
    return (chosen.double() - norm[rows].double()).cpu().numpy()
