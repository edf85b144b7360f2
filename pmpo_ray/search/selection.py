"""The decisions of a round: which candidates survive, and when the search stops.

Candidates are ranked by their value: the loss, or, with `search.readability`, the loss and the penalty.

Invariants: everything is pure and seeded; the best survivor is never worse than the best parent; a child
replaces a parent only with a strictly lower value; nothing depends on a clock or on the order in which
children arrive.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from pmpo_ray.search.budget import SECONDS, TOKENS
from pmpo_ray.search.gate import identity
from pmpo_ray.types import ScoredCandidate

_ID_LIMIT = 10_000


def candidate_id(round: int, index: int) -> str:  # noqa: A002
    """The id of a candidate, such as "r0003-0012" for number 12 of round 3; ids sort by age.

    Raises ValueError for numbers above 9999, whose ids would not.
    """
    if not (0 <= round < _ID_LIMIT and 0 <= index < _ID_LIMIT):
        raise ValueError(f"no candidate id for round {round}, index {index}: at most {_ID_LIMIT - 1}")
    return f"r{round:04d}-{index:04d}"


def sibling_cap(size: int, max_siblings: int | None) -> int:
    """The maximum number of survivors that share a parent: half of `size`, rounded up, if it is None."""
    return max_siblings if max_siblings is not None else math.ceil(size / 2)


def select_survivors(
    parents: Sequence[ScoredCandidate],
    children: Sequence[ScoredCandidate],
    *,
    size: int,
    max_siblings: int | None = None,
) -> tuple[ScoredCandidate, ...]:
    """The 1 to `size` candidates of lowest value, best first (Algorithm 1's selection for size 1).

    Ties go to parents, then to the older id. Of candidates with the same demonstrations whose texts differ
    only in white space and case, only the oldest counts. At most `max_siblings` survivors share a parent,
    which itself does not count; None means half of `size`, rounded up. The cap may leave fewer than `size`.
    Candidates whose value is not finite survive only if no value is finite. Raises ValueError if there are no
    candidates at all.
    """
    if not parents and not children:
        raise ValueError("there is no candidate to select from")
    cap = sibling_cap(size, max_siblings)
    pool = _distinct([*_by_age(parents), *_by_age(children)])
    finite = [scored for scored in pool if math.isfinite(scored.value)]
    # Stable: among equal values the pool's order, parents first and then by age, decides.
    ranked = sorted(finite, key=lambda scored: scored.value) or pool
    siblings: Counter[str] = Counter()
    survivors: list[ScoredCandidate] = []
    for scored in ranked:
        parent = scored.candidate.parent
        if len(survivors) == size:
            break
        if parent is not None:
            if siblings[parent] >= cap:
                continue
            siblings[parent] += 1
        survivors.append(scored)
    return tuple(survivors)


def _by_age(candidates: Iterable[ScoredCandidate]) -> list[ScoredCandidate]:
    return sorted(candidates, key=lambda scored: scored.candidate.id)


def _distinct(candidates: Iterable[ScoredCandidate]) -> list[ScoredCandidate]:
    first: dict[str, ScoredCandidate] = {}
    for scored in candidates:
        first.setdefault(identity(scored.candidate.text, scored.candidate.shots), scored)
    return list(first.values())


def stop_reason(
    losses_by_round: Sequence[float],
    values_by_round: Sequence[float],
    *,
    rounds: int,
    patience: int | None,
    target_loss: float | None,
    tokens: int,
    max_tokens: int | None,
    seconds: float,
    max_seconds: float | None,
) -> str | None:
    """The reason why a search ends now, None if it continues.

    `losses_by_round` holds the loss of the best candidate after each finished round, from round 0, which
    scores only the start instructions, and `values_by_round` its value. A search ends after `patience` rounds
    in a row without a strictly lower value: with a penalty the loss may rise while the search gets on. A
    target is one for the loss. `tokens` and `seconds` were spent so far.
    """
    finished = len(losses_by_round) - 1
    if losses_by_round and target_loss is not None and losses_by_round[-1] <= target_loss:
        return "target loss"
    if finished >= rounds:
        return "rounds"
    if patience is not None and finished >= patience:
        before = values_by_round[finished - patience]
        if not any(value < before for value in values_by_round[finished - patience + 1 :]):
            return "patience"
    if max_tokens is not None and tokens >= max_tokens:
        return TOKENS
    if max_seconds is not None and seconds >= max_seconds:
        return SECONDS
    return None
