"""Answer trees: the tokens to compute for a unit of work, and how its items share forward passes.

A unit of work is a trie over token ids with three levels: the root, which all contexts share (mainly the
instruction); stems, which some of the contexts share below it; and one tree for each item, the rest of its
question with its answers.

Invariants:
- A tree holds every distinct token path of its item's question and answers once; parents come before
  their children, so that position and ancestry follow from the parent indexes.
- The last token of an answer is predicted but never fed: it needs no node.
- Stems and packs never change a score, only how often a token is computed and which trees share a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Item:
    """A context and the answers to rate behind it, as token ids; neither the context nor an answer is
    empty."""

    context: Tokens
    answers: tuple[Tokens, ...]


@dataclass(frozen=True, slots=True)
class AnswerTree:
    """The trie of one item's question and answers, below the part shared with other items.

    `tokens`, `parents`, `depths`: one entry for each node; parent -1 is the last shared token; depth 0
    directly follows it. The nodes `rows[a]` predict the tokens `targets[a]` of answer a. A tree without
    answers is a run of tokens.
    """

    tokens: Tokens
    parents: Tokens
    depths: Tokens
    rows: tuple[Tokens, ...] = ()
    targets: tuple[Tokens, ...] = ()

    @property
    def size(self) -> int:
        """Number of nodes: the tokens that go through the model."""
        return len(self.tokens)

    @property
    def scored(self) -> int:
        """Number of nodes that predict an answer's token."""
        return len({node for path in self.rows for node in path})

    def ancestry(self) -> BoolArray:
        """[size, size]: True if the column's node is the row's node or one of its ancestors."""
        seen = np.eye(self.size, dtype=np.bool_)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass(frozen=True, slots=True)
class Stem:
    """The first `length` tokens below the root, shared by the items `members`."""

    length: int
    members: tuple[int, ...]

    @property
    def saved(self) -> int:
        """The number of tokens that need not be computed again."""
        return self.length * (len(self.members) - 1)


def build_tree(question: Sequence[int], answers: Sequence[Sequence[int]]) -> AnswerTree:
    """The tree of one item. Raises ValueError if the question or an answer is empty."""
    if not question or not all(answers):
        raise ValueError("a tree needs a question of at least one token, and no empty answer")
    tokens, parents, depths = list(question), list(range(-1, len(question) - 1)), list(range(len(question)))
    children: dict[tuple[int, int], int] = {}
    stem = len(question) - 1
    rows: list[Tokens] = []
    for answer in answers:
        node, path = stem, [stem]
        for token in answer[:-1]:
            child = children.get((node, token))
            if child is None:
                child = len(tokens)
                tokens.append(token)
                parents.append(node)
                depths.append(depths[node] + 1)
                children[node, token] = child
            node = child
            path.append(node)
        rows.append(tuple(path))
    return AnswerTree(
        tuple(tokens), tuple(parents), tuple(depths), tuple(rows), tuple(tuple(answer) for answer in answers)
    )


def run_of(tokens: Tokens) -> AnswerTree:
    """A tree without branches or answers: tokens whose keys and values are needed."""
    return AnswerTree(tokens, tuple(range(-1, len(tokens) - 1)), tuple(range(len(tokens))))


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of leading tokens that two sequences share."""
    limit = min(len(first), len(second))
    for index in range(limit):
        if first[index] != second[index]:
            return index
    return limit


def find_root(contexts: Sequence[Tokens]) -> int:
    """The number of leading tokens that all contexts share, leaving each at least its last one."""
    first, last = min(contexts), max(contexts)
    return min(common_prefix(first, last), min(map(len, contexts)) - 1)


def find_stems(questions: Sequence[Tokens], minimum: int) -> list[Stem]:
    """The non-overlapping stems that save the most tokens; empty if they would save fewer than `minimum`.

    `questions` are the parts of the contexts below the root; each keeps at least its last token.
    """
    order = sorted(range(len(questions)), key=questions.__getitem__)
    # shared[i]: the length that neighbours i and i + 1 share. Runs of neighbours are the nodes of the trie;
    # they are closed from the deepest to the shallowest, each choosing between itself and the best below it.
    shared = [_shared(questions[a], questions[b]) for a, b in pairwise(order)]
    opened: list[tuple[int, int, list[Stem]]] = []  # (length, first member, the best stems inside)
    for end, length in enumerate([*shared, -1]):
        first, inside = end, list[Stem]()
        while opened and opened[-1][0] > length:
            depth, first, best = opened.pop()
            whole = Stem(depth, tuple(sorted(order[first : end + 1])))
            below = best + inside
            inside = [whole] if whole.saved > sum(stem.saved for stem in below) else below
        if opened and opened[-1][0] == length:
            opened[-1][2].extend(inside)
        elif length >= 0:
            opened.append((length, first, inside))
        else:
            stems = inside
    stems = [stem for stem in stems if stem.saved > 0]
    return stems if sum(stem.saved for stem in stems) >= minimum else []


def _shared(first: Tokens, second: Tokens) -> int:
    return min(common_prefix(first, second), len(first) - 1, len(second) - 1)


def pack(sizes: Sequence[int], costs: Sequence[int], max_size: int, max_cost: int) -> list[list[int]]:
    """Indexes in their order, cut into groups whose sizes sum to at most `max_size` and costs to at most
    `max_cost`. A larger one forms a group alone."""
    groups: list[list[int]] = []
    size = cost = 0
    for index in range(len(sizes)):
        if not groups or size + sizes[index] > max_size or cost + costs[index] > max_cost:
            groups.append([])
            size = cost = 0
        groups[-1].append(index)
        size += sizes[index]
        cost += costs[index]
    return groups
