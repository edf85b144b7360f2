"""log p(answer | context) over token ids, from a transformers model; what items share is computed once.

Invariants:
- The score of an answer depends only on its context; packing, order and cached tokens change it by rounding
  at most (fp32: 2e-5 nats per token).
- Log-softmax is in fp32 and holds a bounded number of rows x vocabulary.
- The memory of a pass is estimated in advance and kept within `working_memory`; if the estimate was too low,
  the pass is halved and tried again.
- A model whose attention can't be computed as a tree is detected when the engine is created, by comparison
  with plain one-by-one scoring; it is then scored in a slower way, which `fallback` names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from transformers import PreTrainedModel

from pmpo_ray.engines.answer_tree import (
    AnswerTree,
    Item,
    Stem,
    Tokens,
    build_tree,
    common_prefix,
    find_root,
    find_stems,
    pack,
    run_of,
)
from pmpo_ray.engines.hf import tree_attention
from pmpo_ray.engines.hf.memory import PassCost, TooLargeError, default_working_memory, is_out_of_memory
from pmpo_ray.engines.hf.output_head import OutputHead
from pmpo_ray.engines.hf.plain_scoring import ExpandedCache, Sums, score_one_by_one
from pmpo_ray.engines.hf.tree_attention import Kernel, KeyValues, PackedTree, Pass, Scratch
from pmpo_ray.errors import EngineError

_PASS_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens of one forward pass: more need more memory and are not faster."""

_MIN_SAVED = 64, 0.05
"""A separate pass for stems pays off if it saves that many tokens, and that share of all tokens."""


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Sums of log p over each answer's tokens, in nats, by item and answer. `tokens_computed` is the
    number of tokens that went through the model."""

    logprobs: tuple[Sums, ...]
    tokens_computed: int


class LikelihoodEngine:
    """Rates answers behind contexts with one model.

    `working_memory` bounds the bytes of intermediate results and cached keys, in addition to the weights;
    `kernel` selects how attention is computed. Both defaults depend on the model's device.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        working_memory: int | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        self.model = model
        device = model.device.type
        self.working_memory = working_memory or default_working_memory(model.device)
        self._kernel: Kernel = kernel or ("matmul" if device == "cpu" else "sdpa")
        self._pass_tokens = _PASS_TOKENS.get(device, _PASS_TOKENS["cuda"])
        plain: str = model.config._attn_implementation
        # Another engine may have used this model object before.
        self._plain_attention = "eager" if plain == tree_attention.NAME else plain
        model.set_attn_implementation(self._plain_attention)
        self._scratch = Scratch()
        self._root = KeyValues()
        self._head = OutputHead(model, self.working_memory // 4)
        self._cost = PassCost.of(model, self._head.bytes, whole_logits=self._head.whole_logits)
        self._expanded: ExpandedCache | None = None
        self.fallback = self._choose_way()

    def forget(self) -> None:
        """Drop everything that is cached between calls."""
        self._root = KeyValues()
        if self._expanded is not None:
            self._expanded.forget()

    @torch.inference_mode()
    def score(self, items: Sequence[Item]) -> Likelihoods:
        """Rate every answer of every item. Items that share the beginning of their contexts, with each
        other or with those of the previous call, share its computation.

        Raises TooLargeError if a single item needs more than `working_memory` or than all free memory, and
        EngineError if memory runs out in one of the slower ways, which are unbounded.
        """
        if not items:
            return Likelihoods((), 0)
        return self._score_slowly(items) if self.fallback else self._score_trees(items)

    def _score_slowly(self, items: Sequence[Item]) -> Likelihoods:
        self._use(self._plain_attention)
        try:
            if self._expanded is not None:
                return Likelihoods(*self._expanded.score(items))
            return Likelihoods(*score_one_by_one(self.model, items))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.forget()
        longest = max(len(item.context) + max(map(len, item.answers)) for item in items)
        raise EngineError(
            f"memory ran out over sequences of up to {longest} tokens; shorten the instruction or the "
            "examples, or use a smaller model"
        )

    def _use(self, attention: str) -> None:
        """Set the model's attention; another user of this model object may have changed it."""
        if self.model.config._attn_implementation != attention:
            self.model.set_attn_implementation(attention)

    # Choosing the way to score

    @torch.inference_mode()
    def _choose_way(self) -> str:
        """The fallback's name; empty if tree attention agrees with one-by-one scoring."""
        items = _probe(self.model.config.get_text_config().vocab_size)
        expected, _ = score_one_by_one(self.model, items)
        if _attends_only(self.model) and self._tree_agrees(items, expected):
            return ""
        self.model.set_attn_implementation(self._plain_attention)
        self._expanded = ExpandedCache(self.model)
        if self._agrees(self._expanded.score, items, expected):
            return "an expanded cache for each question: no tree attention for this model"
        self._expanded = None
        return "one sequence at a time: neither tree attention nor an expanded cache for this model"

    def _tree_agrees(self, items: Sequence[Item], expected: Sequence[Sums]) -> bool:
        layers: set[int] = set()

        def by_trees(probe: Sequence[Item]) -> tuple[tuple[Sums, ...], int]:
            scored = self._score_trees(probe)
            layers.update(self._root.keys)
            return scored.logprobs, scored.tokens_computed

        every = self.model.config.get_text_config().num_hidden_layers
        return self._agrees(by_trees, items, expected) and len(layers) == every

    def _agrees(
        self,
        score: Callable[[Sequence[Item]], tuple[tuple[Sums, ...], int]],
        items: Sequence[Item],
        expected: Sequence[Sums],
    ) -> bool:
        """Check if the model can be scored this way, with results that differ by rounding at most."""
        try:
            found, _ = score(items)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError):
            return False
        finally:
            self.forget()
        return self._close(found, expected)

    def _close(self, found: Sequence[Sums], expected: Sequence[Sums]) -> bool:
        exact = self.model.dtype == torch.float32
        relative, absolute = (0.0, 1e-3) if exact else (0.02, 0.5)
        pairs = np.concatenate(found), np.concatenate(expected)
        return bool(np.allclose(*pairs, rtol=relative, atol=absolute))

    # The trie: root, stems, trees

    def _score_trees(self, items: Sequence[Item]) -> Likelihoods:
        self._use(tree_attention.NAME)
        contexts = [item.context for item in items]
        root = find_root(contexts)
        computed = self._set_root(contexts[0][:root])
        questions = [context[root:] for context in contexts]
        stems = find_stems(questions, _min_saved(questions))
        cached = self._compute_stems(questions, stems)
        stem_of = dict.fromkeys(range(len(items)), -1)
        for number, stem in enumerate(stems):
            for member in stem.members:
                stem_of[member] = number
                questions[member] = questions[member][stem.length :]
        trees = [build_tree(question, item.answers) for question, item in zip(questions, items, strict=True)]
        # Neighbours share attention batches, which need one stem and trees of similar size.
        order = sorted(range(len(items)), key=lambda i: (stem_of[i], -trees[i].size, i))
        packed = [
            PackedTree(trees[i], (self._root, cached[stem_of[i]]) if stem_of[i] >= 0 else (self._root,))
            for i in order
        ]
        sums: list[Sums] = [()] * len(items)
        for index, result in zip(order, self._run_all(packed, order), strict=True):
            sums[index] = result
        computed += sum(stem.length for stem in stems) + sum(tree.size for tree in trees)
        return Likelihoods(tuple(sums), computed)

    def _set_root(self, tokens: Tokens) -> int:
        """Make `tokens` the cached root; return the number of tokens that the last root didn't share."""
        kept = common_prefix(self._root.tokens, tokens)
        if kept < len(self._root.tokens):
            self._root.cut(kept)
        for begin in range(kept, len(tokens), self._pass_tokens):
            chunk = run_of(tokens[begin : begin + self._pass_tokens])
            self._run_all([PackedTree(chunk, (self._root,), keep=self._root)], [None])
        return len(tokens) - kept

    def _compute_stems(self, questions: Sequence[Tokens], stems: Sequence[Stem]) -> list[KeyValues]:
        runs = [KeyValues() for _ in stems]
        firsts = [stem.members[0] for stem in stems]
        trees = [run_of(questions[first][: stem.length]) for first, stem in zip(firsts, stems, strict=True)]
        packed = [PackedTree(tree, (self._root,), keep=run) for tree, run in zip(trees, runs, strict=True)]
        self._run_all(packed, firsts)
        return runs

    # Passes within bounded memory

    def _run_all(self, packed: Sequence[PackedTree], owners: Sequence[int | None]) -> list[Sums]:
        """The answers' sums of every tree, in their order. `owners` are the indexes of the items that the
        trees belong to, None for all items."""
        cached = {id(run): len(run.tokens) for entry in packed for run in entry.chain}
        room = self.working_memory - self._cost.fixed - sum(cached.values()) * self._cost.cached
        costs = [self._cost.of_tree(entry.tree, entry.start) for entry in packed]
        for entry, cost, owner in zip(packed, costs, owners, strict=True):
            if cost > room:
                needed = self.working_memory - room + cost
                raise TooLargeError(owner, entry.tree.size, entry.start, needed, self.working_memory)
        groups = pack([entry.tree.size for entry in packed], costs, self._pass_tokens, room)
        results: list[Sums] = []
        while groups:
            group = groups.pop(0)
            done = self._forward([packed[index] for index in group])
            if done is not None:
                results += done
            elif len(group) > 1:
                half = len(group) // 2
                groups[:0] = [group[:half], group[half:]]
            else:
                entry = packed[group[0]]
                raise TooLargeError(owners[group[0]], entry.tree.size, entry.start, costs[group[0]], None)
        return results

    def _forward(self, packed: Sequence[PackedTree]) -> list[Sums] | None:
        """One pass: the answers' sums of every tree. None if memory ran out: then nothing has changed, and
        the memory of the pass is free again."""
        try:
            return self._sums(packed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._scratch.free()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _sums(self, packed: Sequence[PackedTree]) -> list[Sums]:
        plan = Pass(packed, self.model.device, self._kernel, self._scratch)
        trees = [entry.tree for entry in packed]
        rows, targets, owners = _scored_rows(trees)
        logprobs = self._head.logprobs(plan, rows, targets)
        plan.keep()
        answers = [len(tree.rows) for tree in trees]
        sums = np.bincount(owners, weights=logprobs, minlength=sum(answers))
        return [tuple(map(float, sums[a:b])) for a, b in pairwise(accumulate(answers, initial=0))]


def _min_saved(questions: Sequence[Tokens]) -> int:
    tokens, share = _MIN_SAVED
    return max(tokens, int(share * sum(map(len, questions))))


def _attends_only(model: PreTrainedModel) -> bool:
    """True if tokens interact only in plain attention: a state or convolution that runs along the row would
    carry one tree's text into the next, by too little to show in a small probe."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not model._is_stateful and set(kinds) <= {"full_attention", "sliding_attention"}


def _probe(vocabulary: int) -> list[Item]:
    """A small branching case of arbitrary tokens."""
    ids = np.random.default_rng(0).integers(0, vocabulary, 40).tolist()
    root, first, second = ids[:12], ids[12:20], ids[20:28]
    short, long, other = ids[28:29], ids[29:33], [*ids[29:31], *ids[33:36]]
    answers = tuple(tuple(answer) for answer in (short, long, other))
    return [Item(tuple(root + question), answers) for question in (first, second)]


def _scored_rows(trees: Sequence[AnswerTree]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every answer token of a pass: the node that predicts it, the token, its answer's number."""
    rows: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    offset = answer = 0
    for tree in trees:
        for path, tokens in zip(tree.rows, tree.targets, strict=True):
            rows += [offset + node for node in path]
            targets += tokens
            owners += [answer] * len(tokens)
            answer += 1
        offset += tree.size
    return np.array(rows, dtype=np.int64), np.array(targets, dtype=np.int64), np.array(owners, dtype=np.int64)
