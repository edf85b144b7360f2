"""The operator "compose": instructions put together from well-formed sentences, without a rewriter.

A small model rarely writes an instruction that a person would use. Here every candidate is one: a sentence
is added to the parent, put in the place of another, or left out, or a whole instruction is made of a sentence
for each place. As survivors are the parents of the next round, the sentences that lower the loss accumulate.

Invariants: a sentence of the library stands in an instruction once; everything depends on the seed of the
context alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from pmpo_ray.search.masking import rule_segments, without
from pmpo_ray.search.operators import Proposal, ProposalContext
from pmpo_ray.search.sense import tells_what_to_do
from pmpo_ray.search.sentences import Place, Sentences
from pmpo_ray.types import Task

COMPOSE = "compose"
"""The name of this operator."""
_TRIES = 6
"""Draws for each proposal: two may come to the same text, or to none."""
_SENTENCES = 40
"""Sentences of a parent that are told apart."""
_SHARE = 0.6
"""The chance that a whole instruction has a sentence about what to read, and one about how to decide."""


@dataclass(frozen=True, slots=True)
class Compose:
    """Proposes as many instructions for each parent as are wanted, made of `sentences`. In the first round
    the task's description is one of them."""

    sentences: Sentences
    description: str

    @classmethod
    def of(cls, task: Task) -> Compose:
        return cls(Sentences.of(task), task.description)

    async def propose(self, context: ProposalContext) -> list[Proposal]:
        """Other instructions for the parent's demonstrations; none for an instruction that is not English."""
        text = context.parent.candidate.text
        if not tells_what_to_do(text):
            return []
        moves = _Moves(text, self.sentences, Random(context.seed))
        every = [moves.whole, moves.add, moves.replace, moves.drop]
        found = dict.fromkeys([self.description] if context.round == 1 else [])
        for number in range(_TRIES * context.count):
            if len(found) >= context.count:
                break
            made = every[number % len(every)]()
            if made and made != text:
                found[made] = None
        return [Proposal(made) for made in found]


class _Moves:
    """The moves from the instruction `text` to others. Each returns the empty text if it comes to nothing."""

    def __init__(self, text: str, sentences: Sentences, rng: Random) -> None:
        self._text = text
        self._library = sentences.by_place
        self._rng = rng
        self._own = [(part, sentences.place(part.text)) for part in rule_segments(text, _SENTENCES)]

    def whole(self) -> str:
        """A sentence about the choices, and by chance one for each other place; the parent's own as likely as
        those of the library."""
        chosen: list[str] = []
        for place in Place:
            own = [part.text for part, where in self._own if where is place]
            known = list(dict.fromkeys((*self._library[place], *own)))
            if known and (place is Place.CHOICES or self._rng.random() < _SHARE):
                sentence = self._rng.choice(known)
                if not any(_says(other, sentence) for other in chosen):
                    chosen.append(sentence)
        return " ".join(chosen)

    def add(self) -> str:
        """A further sentence at its place; only about how to decide may there be several."""
        taken = {where for _, where in self._own if where is not Place.DECIDE}
        place = self._rng.choice([where for where in Place if where not in taken])
        sentence = self._new(place)
        behind = next((part.start for part, where in self._own if where > place), None)
        if behind is not None and sentence:
            return f"{self._text[:behind]}{sentence} {self._text[behind:]}"
        whole = self._text.rstrip()
        return f"{whole} {sentence}" if sentence and whole.endswith((".", "!", "?")) else ""

    def replace(self) -> str:
        """A sentence of the library in the place of one that says the same kind of thing. What the parent
        itself says about how to decide stays: the library has nothing for it."""
        known = self._library[Place.DECIDE]
        free = [(part, where) for part, where in self._own if where is not Place.DECIDE or part.text in known]
        if not free:
            return ""
        part, where = self._rng.choice(free)
        sentence = self._new(where)
        return f"{self._text[: part.start]}{sentence}{self._text[part.end :]}" if sentence else ""

    def drop(self) -> str:
        """The parent without one of its sentences."""
        return without(self._text, self._rng.choice(self._own)[0], mode="drop", mask_token="")

    def _new(self, place: Place) -> str:
        """A sentence of the library that the parent lacks; empty if it has all."""
        missing = [
            sentence
            for sentence in self._library[place]
            if not any(_says(part.text, sentence) for part, _ in self._own)
        ]
        return self._rng.choice(missing) if missing else ""


def _says(sentence: str, other: str) -> bool:
    """True if one of the two sentences begins with the other, up to its full stop."""
    return sentence.startswith(other.rstrip(".")) or other.startswith(sentence.rstrip("."))
