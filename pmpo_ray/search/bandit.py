"""How many of a round's proposals each operator makes: more for an operator whose texts lowered the loss by
more per token.

A bandit that matches proposals to what came of them. The rate of an operator is its gain, in nats, over the
tokens that its texts took, both summed over the finished rounds with weights that fade; every operator starts
with one round of average cost and average gain. The shares are in proportion to the rates, apart from a part
that every operator gets, so that none is given up for good.

Invariant: everything is derived from the records of the finished rounds, without chance; so a continued
search shares out as an undisturbed one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pmpo_ray.types import RoundRecord, ScoredCandidate

_FADING = 0.8
"""The weight of a round is this, to the power of its age in rounds."""
_FLOOR = 0.25
"""The part of the proposals that all operators share evenly."""
_SILENT = frozenset(("compose", "demonstrate", "mask_drop", "seed"))
"""The origins of texts for which the rewriter writes nothing."""


@dataclass(frozen=True, slots=True)
class Yield:
    """What the texts of one operator brought in one round: by how much the best of them lowered the value
    that candidates are ranked by (without `search.readability` the loss) below that of the best parent (nats,
    0 if by nothing), and the tokens that they took."""

    gain: float
    tokens: float


def yields(record: RoundRecord, before: float) -> dict[str, Yield]:
    """The yields of a round by operator. `record` is whole; `before` is the value of the best parent.

    The rewriter's tokens count for the operators that may use it, in proportion to their texts.
    """
    children = [one for one in record.candidates if one.candidate.round == record.round]
    texts = Counter(one.candidate.operator for one in children)
    texts.update(refusal.operator for refusal in record.refusals)
    per_row = _tokens_per_row(record.candidates)
    read = dict.fromkeys(texts, 0.0)
    best: dict[str, float] = {}
    for one in children:
        operator = one.candidate.operator
        read[operator] += _tokens(one, per_row)
        if not one.left and one.value < best.get(operator, before):
            best[operator] = one.value
    writers = sum(number for operator, number in texts.items() if operator not in _SILENT)
    written = record.tokens_prompted + record.tokens_generated
    return {
        operator: Yield(
            # From a start that could not be rated nothing can be gained.
            before - best.get(operator, before) if math.isfinite(before) else 0.0,
            read[operator] + (0 if operator in _SILENT else written * number / writers),
        )
        for operator, number in texts.items()
    }


def shares(rounds: Sequence[Mapping[str, Yield]], operators: Sequence[str]) -> dict[str, float]:
    """The share of the next proposals for each of the operators; they sum to 1. `rounds` are the yields of
    the finished rounds, the oldest first."""
    gains, tokens = dict.fromkeys(operators, 0.0), dict.fromkeys(operators, 0.0)
    seen = 0.0
    for age, found in enumerate(reversed(rounds)):
        weight = _FADING**age
        seen += weight
        for operator in operators:
            if (one := found.get(operator)) is not None:
                gains[operator] += weight * one.gain
                tokens[operator] += weight * one.tokens
    # One that had nothing to propose, such as sentences for an instruction in another language, waits.
    working = [one for one in operators if any(one in found for found in rounds)] or operators
    all_gains = sum(gains.values())
    rounds_seen = len(working) * seen
    usual = sum(tokens.values()) / rounds_seen if seen else 0.0
    rates = dict.fromkeys(operators, 0.0) | dict.fromkeys(working, 1.0)
    if all_gains and usual:
        # In units of all gains, and of the tokens that one operator usually takes in a round.
        rates |= {
            operator: (gains[operator] / all_gains + 1 / rounds_seen) / (tokens[operator] / usual + 1)
            for operator in working
        }
    total = sum(rates.values())
    return {
        operator: _FLOOR / len(operators) + (1 - _FLOOR) * rate / total for operator, rate in rates.items()
    }


def most_proposals(each: int, operators: int) -> int:
    """The most proposals for a parent that one of so many operators makes, if `each` are made per operator on
    average."""
    share = _FLOOR / operators + 1 - _FLOOR
    return min(each * operators, math.floor(each * operators * share) + 1)


def counts(total: int, parts: Mapping[str, float]) -> dict[str, int]:
    """`total` proposals by their shares, each rounded down or up; where too few are left for all, the largest
    fractions come first."""
    exact = {name: total * part for name, part in parts.items()}
    found = {name: math.floor(one + 1e-9) for name, one in exact.items()}
    # Stable: of equal fractions the first named comes first.
    by_fraction = sorted(parts, key=lambda name: found[name] - exact[name])
    for name in by_fraction[: total - sum(found.values())]:
        found[name] += 1
    return found


def _tokens(one: ScoredCandidate, per_row: float) -> float:
    """The tokens that a candidate took; of one that left the race they are estimated."""
    return one.left * per_row if one.left else sum(score.tokens for score in one.scores)


def _tokens_per_row(candidates: Sequence[ScoredCandidate]) -> float:
    counted = [score.tokens for one in candidates for score in one.scores]
    return sum(counted) / len(counted) if counted else 0.0
