"""Custom operators: user-defined proposers of instructions, in addition to rewriting or instead of it.

Invariants: a proposer sees only training examples; its texts pass the gate and are scored like any rewrite;
the tokens that it makes the rewriter write are counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from pmpo_ray.config.import_paths import imported
from pmpo_ray.errors import ConfigError
from pmpo_ray.protocols import GenerateClient
from pmpo_ray.types import OPERATORS, Example, ScoredCandidate, SegmentImportance

REWRITE = "rewrite"
_KEY = "search.operators"


@dataclass(frozen=True, slots=True)
class ProposalContext:
    """The data that a proposer can use.

    `parent` holds the instruction, `parent.candidate.text`, and its losses on `examples`, the training
    examples, in their order. `hardest` are the examples that rewriting would choose, the hardest first.
    `importances` are those of the parent's segments, empty without masking. Texts longer than `max_chars`
    characters are refused. `seed` differs between rounds, parents and operators: if it is the only source of
    randomness, a continued run equals an undisturbed one.
    """

    description: str
    parent: ScoredCandidate
    examples: tuple[Example, ...]
    hardest: tuple[Example, ...]
    importances: tuple[SegmentImportance, ...]
    rewriter: GenerateClient
    max_chars: int
    round: int
    seed: int


@runtime_checkable
class Proposer(Protocol):
    """Proposes new instructions in place of a parent's, once a round for every parent."""

    async def propose(self, context: ProposalContext) -> Sequence[str]:
        """Return new instructions; one that equals the parent's is refused as a duplicate. An EngineError,
        which the rewriter raises for a request that it cannot answer, counts as one refused text."""
        ...


ProposerFunction: TypeAlias = Callable[[ProposalContext], Sequence[str] | Awaitable[Sequence[str]]]
"""The method of a Proposer as a function, asynchronous or not."""

OperatorLike: TypeAlias = str | type[Proposer] | ProposerFunction
"""An entry of `operators`: "rewrite", an import path, a class, or a function."""


@dataclass(frozen=True, slots=True)
class _Function:
    """A Proposer from a function."""

    function: ProposerFunction

    async def propose(self, context: ProposalContext) -> Sequence[str]:
        texts = self.function(context)
        return await texts if inspect.isawaitable(texts) else texts


def load_proposers(paths: Sequence[str]) -> dict[str, Proposer]:
    """The proposers at these import paths, each under the last part of its path: the operator name of its
    candidates.

    A class is called without arguments; an instance or a function is used as it is. Raises ConfigError for
    anything else and for a name that is taken.
    """
    proposers: dict[str, Proposer] = {}
    for path in paths:
        name = path.rpartition(":")[2].rpartition(".")[2]
        if name in OPERATORS or name in proposers:
            raise ConfigError(f"{_KEY}: {path}: the name {name} is taken; give the operator another name")
        target = imported(path, _KEY)
        proposer = target() if isinstance(target, type) else target
        if isinstance(proposer, Proposer):
            proposers[name] = proposer
        elif callable(proposer):
            proposers[name] = _Function(proposer)
        else:
            raise ConfigError(f"{_KEY}: {path} neither has a method propose nor is a function; see Proposer")
    return proposers


def check_texts(texts: Sequence[str], operator: str) -> Sequence[str]:
    """`texts`, the return value of a user's code. Raises ConfigError if they are not a list of texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{_KEY}: {operator} did not return a list of texts; see Proposer.propose")
    return texts
