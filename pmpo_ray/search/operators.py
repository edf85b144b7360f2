"""Operators of the user's own: what proposes instructions beside rewriting.

Invariants: a proposer sees training examples alone; what it proposes goes through the gate and is scored like
any rewrite; what it asks of the rewriter is counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from pmpo_ray.config.import_paths import imported
from pmpo_ray.errors import ConfigError, DataError, EngineError
from pmpo_ray.protocols import GenerateClient
from pmpo_ray.types import OPERATORS, Example, ScoredCandidate, SegmentImportance

REWRITE = "rewrite"
_KEY = "search.operators"


@dataclass(frozen=True, slots=True)
class ProposalContext:
    """What a proposer may go by. `parent` holds the instruction, `parent.candidate.text`, with its losses on
    `examples`, the training examples, in their order; `hardest` are those that rewriting would take, the
    hardest first; `importances` are those of the parent's segments, none without masking. Texts longer than
    `max_chars` are refused. `seed` differs between rounds, parents and operators: with it alone as the source
    of chance a run can be continued as if it had never stopped."""

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
        """The texts, at best different from the parent's. An EngineError, which the rewriter raises for a
        request that it cannot answer, counts as one refused text."""
        ...


ProposerFunction: TypeAlias = Callable[[ProposalContext], Sequence[str] | Awaitable[Sequence[str]]]
"""A Proposer's method alone, which need not be asynchronous."""

OperatorLike: TypeAlias = str | type[Proposer] | ProposerFunction
"""What may stand in `operators`: "rewrite", an import path, a class, or a function."""


@dataclass(frozen=True, slots=True)
class _Function:
    """A Proposer from a function."""

    function: ProposerFunction

    async def propose(self, context: ProposalContext) -> Sequence[str]:
        texts = self.function(context)
        return await texts if inspect.isawaitable(texts) else texts


def load_proposers(paths: Sequence[str]) -> dict[str, Proposer]:
    """The proposers that import paths name, by the names that their candidates bear as operator: a class is
    called without arguments, an instance or a function is taken as it is. Raises ConfigError for what is
    neither, and for names that are taken."""
    found: dict[str, Proposer] = {}
    for path in paths:
        name = path.rpartition(":")[2].rpartition(".")[2]
        if name in OPERATORS or name in found:
            raise ConfigError(f"{_KEY}: {path}: the name {name} is taken; give the operator another")
        thing = imported(path, _KEY)
        made = thing() if isinstance(thing, type) else thing
        if isinstance(made, Proposer):
            found[name] = made
        elif callable(made):
            found[name] = _Function(made)
        else:
            raise ConfigError(f"{_KEY}: {path} neither has a method propose nor is a function; see Proposer")
    return found


async def proposed(name: str, proposer: Proposer, context: ProposalContext) -> list[tuple[str, str]]:
    """What a proposer proposes, each as (text, ""); where it could not, ("", reason). Raises ConfigError for
    what is no text."""
    try:
        texts = await proposer.propose(context)
    except (EngineError, DataError) as error:
        return [("", str(error))]
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{_KEY}: {name} gave something else than a list of texts; see Proposer.propose")
    return [(text, "") for text in texts]
