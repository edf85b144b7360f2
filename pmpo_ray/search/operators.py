"""Operators: proposers of instructions and demonstrations, beside the writers or instead of them.

Invariants: a proposer sees only training examples; its proposals pass the gate and are scored like any
rewrite; the tokens that it makes the rewriter write are counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from pmpo_ray.config.import_paths import imported
from pmpo_ray.errors import ConfigError
from pmpo_ray.protocols import GenerateClient
from pmpo_ray.types import (
    OPERATORS,
    WRITING_OPERATORS,
    Example,
    RoundRecord,
    ScoredCandidate,
    SegmentImportance,
)

_KEY = "search.operators"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate that an operator proposes: an instruction, and the ids of the training examples that are
    shown as its demonstrations, in their order (None: those of the parent). `hard_case` is the id of the
    training example that it is written for, if any. With a `fault` it is refused for that reason before it
    meets the gate."""

    text: str
    shots: tuple[str, ...] | None = None
    fault: str = ""
    hard_case: str | None = None


@dataclass(frozen=True, slots=True)
class ProposalContext:
    """The data that a proposer can use.

    `parent` holds the instruction, `parent.candidate.text`, and its losses on `examples`, the training
    examples, in their order. `hardest` are the examples that rewriting would choose, the hardest first.
    `importances` are those of the parent's segments, empty without masking. Texts longer than `max_chars`
    characters are refused. `seed` differs between rounds, parents and operators: if it is the only source of
    randomness, a continued run equals an undisturbed one. About `count` proposals are wanted; all that are
    returned are used. `survivors` are all parents of the round, the best first. `history` are the finished
    rounds, with what was tried, its loss, and what was refused and why; of earlier rounds than the last it
    has no losses of single examples.
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
    count: int
    survivors: tuple[ScoredCandidate, ...]
    history: tuple[RoundRecord, ...]


@runtime_checkable
class Proposer(Protocol):
    """Proposes new instructions in place of a parent's, once a round for every parent."""

    async def propose(self, context: ProposalContext) -> Sequence[str | Proposal]:
        """Return new instructions, as texts or with their demonstrations; what equals a known candidate in
        both is refused as a duplicate. An EngineError, which the rewriter raises for a request that it cannot
        answer, counts as one refused text."""
        ...


Proposals: TypeAlias = Sequence[str | Proposal]

ProposerFunction: TypeAlias = Callable[[ProposalContext], Proposals | Awaitable[Proposals]]
"""The method of a Proposer as a function, asynchronous or not."""

OperatorLike: TypeAlias = str | type[Proposer] | ProposerFunction
"""An entry of `operators`: a built-in name such as "rewrite", an import path, a class, or a function."""


@dataclass(frozen=True, slots=True)
class _Function:
    """A Proposer from a function."""

    function: ProposerFunction

    async def propose(self, context: ProposalContext) -> Proposals:
        proposals = self.function(context)
        return await proposals if inspect.isawaitable(proposals) else proposals


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


def operator_names(chosen: Sequence[str], proposers: Mapping[str, Proposer]) -> list[str]:
    """The names of all operators of a search: the writers that `search.operators` has, and the proposers."""
    return [*(name for name in WRITING_OPERATORS if name in chosen), *proposers]


def checked(proposals: Proposals, operator: str, examples: Sequence[Example]) -> list[Proposal]:
    """`proposals`, the return value of a user's code, of a search on the training examples `examples`. Raises
    ConfigError if they are not a list of texts and Proposals whose demonstrations are training examples."""
    listed = isinstance(proposals, Sequence) and not isinstance(proposals, str)
    odd = [one for one in proposals if not isinstance(one, str | Proposal)] if listed else [proposals]
    if odd:
        raise ConfigError(
            f"{_KEY}: the operator {operator!r} should return a list of texts or Proposals; it returned "
            f"{odd[0]!r:.80}{' in a list' if listed else ''}"
        )
    found = [Proposal(one) if isinstance(one, str) else one for one in proposals]
    known = {example.id for example in examples}
    for shots in (one.shots or () for one in found):
        if not known.issuperset(shots) or len(set(shots)) < len(shots):
            raise ConfigError(
                f"{_KEY}: {operator} proposed the demonstrations {list(shots)!r:.80}; name ids of training "
                "examples, each once"
            )
    for one in found:
        if one.hard_case is not None and one.hard_case not in known:
            raise ConfigError(
                f"{_KEY}: {operator} names the hard case {one.hard_case!r:.80}; name the id of a training "
                "example, or None"
            )
    return found
