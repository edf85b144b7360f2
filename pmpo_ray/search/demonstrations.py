"""The operator "demonstrate": training examples as demonstrations behind an instruction (paper: Table 3 has
random ones; here they are part of a candidate and chosen by its loss).

A parent without demonstrations gets draws that are balanced over the answers. One that has some also gets the
moves of a local search: one swapped for another example, one left out, one more, another order.

Invariants: an instruction's text is kept; at most `most` demonstrations are shown, no input twice; everything
depends on the seed of the context alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pmpo_ray.search.operators import Proposal, ProposalContext
from pmpo_ray.types import Example

DEMONSTRATE = "demonstrate"
"""The name of this operator."""
_TRIES = 4
"""Draws for each proposal: two moves may come to the same demonstrations."""


@dataclass(frozen=True, slots=True)
class Demonstrate:
    """Proposes as many sets of at most `most` demonstrations for each parent as are wanted."""

    most: int

    async def propose(self, context: ProposalContext) -> list[Proposal]:
        """The parent's instruction with other demonstrations."""
        candidate = context.parent.candidate
        rows = {example.id: example for example in context.examples}
        own = tuple(rows[name] for name in candidate.shots)
        # One example is left, to be scored behind all demonstrations.
        most = min(self.most, len(context.examples) - 1)
        moves = _Moves(own, context.examples, most, Random(context.seed))
        every = [moves.swap, moves.draw, moves.add, moves.drop, moves.reorder] if own else [moves.draw]
        found: dict[tuple[str, ...], None] = {}
        for number in range(_TRIES * context.count):
            if len(found) == context.count:
                break
            names = tuple(shot.id for shot in every[number % len(every)]())
            if names and names != candidate.shots:
                found[names] = None
        return [Proposal(candidate.text, names) for names in found]


@dataclass(frozen=True, slots=True)
class _Moves:
    """The moves from the demonstrations `own` to others among `examples`, `most` at most."""

    own: tuple[Example, ...]
    examples: tuple[Example, ...]
    most: int
    rng: Random

    def draw(self) -> tuple[Example, ...]:
        """Examples at random, as many of one answer as of another."""
        chosen: list[Example] = []
        while len(chosen) < self.most and (more := self._one_more(chosen)) is not None:
            chosen.append(more)
        return self._shuffled(chosen)

    def swap(self) -> tuple[Example, ...]:
        """Another example in the place of one, with the same answer where there is one."""
        place = self.rng.randrange(len(self.own))
        new = self._not_in(self.own)
        alike = [example for example in new if example.target == self.own[place].target] or new
        return (*self.own[:place], self.rng.choice(alike), *self.own[place + 1 :]) if alike else self.own

    def add(self) -> tuple[Example, ...]:
        """One more example, of an answer that is shown least, at a random place."""
        more = self._one_more(self.own) if len(self.own) < self.most else None
        place = self.rng.randint(0, len(self.own))
        return self.own if more is None else (*self.own[:place], more, *self.own[place:])

    def drop(self) -> tuple[Example, ...]:
        place = self.rng.randrange(len(self.own))
        return (*self.own[:place], *self.own[place + 1 :])

    def reorder(self) -> tuple[Example, ...]:
        return self._shuffled(self.own)

    def _one_more(self, chosen: Sequence[Example]) -> Example | None:
        """A random example of an answer that is shown least; None if every input is shown."""
        shown = Counter(example.target for example in chosen)
        by_answer: dict[str, list[Example]] = {}
        for example in self._not_in(chosen):
            by_answer.setdefault(example.target, []).append(example)
        fewest = min((shown[answer] for answer in by_answer), default=0)
        # The answer is drawn first: one that many examples have is not shown more often.
        answers = [answer for answer in by_answer if shown[answer] == fewest]
        return self.rng.choice(by_answer[self.rng.choice(answers)]) if answers else None

    def _not_in(self, chosen: Sequence[Example]) -> list[Example]:
        shown = {example.input for example in chosen}
        return [example for example in self.examples if example.input not in shown]

    def _shuffled(self, chosen: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(self.rng.sample(chosen, len(chosen)))
