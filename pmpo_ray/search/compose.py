"""The operator "compose": instructions put together from well-formed sentences, without a rewriter.

A small model rarely writes an instruction that a person would use. Here every candidate is one: a sentence
is added to the parent, put in the place of another, left out, or taken over from another good instruction, or
a whole instruction is made of a sentence for each place. As survivors are the parents of the next round, the
sentences that lower the loss accumulate.

Invariants: a sentence of the library stands in an instruction once; everything depends on the seed of the
context alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from pmpo_ray.search.masking import rule_segments, without
from pmpo_ray.search.operators import Proposal, ProposalContext
from pmpo_ray.search.sense import tells_what_to_do
from pmpo_ray.search.sentences import Place, Sentences
from pmpo_ray.types import Segment, Task

COMPOSE = "compose"
"""The name of this operator."""
_TRIES = 6
"""Draws for each proposal: two may come to the same text, or to none."""
_SENTENCES = 40
"""Sentences of a parent that are told apart."""
_RIVALS = 3
"""Other instructions whose sentences a parent may take over."""
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
        moves = _Moves(text, _rivals(context), self.sentences, Random(context.seed))
        every = [moves.whole, moves.add, moves.replace, moves.drop, moves.merge]
        found = dict.fromkeys([self.description] if context.round == 1 else [])
        for number in range(_TRIES * context.count):
            if len(found) >= context.count:
                break
            made = every[number % len(every)]()
            if made and made != text:
                found[made] = None
        return [Proposal(made) for made in found]


def _rivals(context: ProposalContext) -> list[str]:
    """The other instructions of the lowest values so far, the best first."""
    parent = context.parent.candidate.text
    scored = [one for record in context.history for one in record.candidates if not one.left]
    best = sorted(scored, key=lambda one: (one.value, one.candidate.id))
    texts = dict.fromkeys(one.candidate.text for one in best if math.isfinite(one.value))
    return [text for text in texts if text != parent][:_RIVALS]


class _Moves:
    """The moves from the instruction `text` to others. Each returns the empty text if it comes to nothing."""

    def __init__(self, text: str, rivals: Sequence[str], sentences: Sentences, rng: Random) -> None:
        self._text = text
        self._sentences = sentences
        self._library = sentences.by_place
        self._rng = rng
        self._own = self._parts(text)
        self._others = [part.text for rival in rivals for part, _ in self._parts(rival)]

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
        return self._with(self._new(place), place)

    def merge(self) -> str:
        """The parent with a sentence of another good instruction: in the place of its own one that says the
        same kind of thing, or as a further one."""
        missing = [sentence for sentence in dict.fromkeys(self._others) if not self._has(sentence)]
        if not missing:
            return ""
        sentence = self._rng.choice(missing)
        place = self._sentences.place(sentence)
        same = [part for part, where in self._own if where is place is not Place.DECIDE]
        return self._instead(same[0], sentence) if same else self._with(sentence, place)

    def replace(self) -> str:
        """A sentence of the library in the place of one that says the same kind of thing. What the parent
        itself says about how to decide stays: the library has nothing for it."""
        known = self._library[Place.DECIDE]
        free = [(part, where) for part, where in self._own if where is not Place.DECIDE or part.text in known]
        if not free:
            return ""
        part, where = self._rng.choice(free)
        sentence = self._new(where)
        return self._instead(part, sentence) if sentence else ""

    def drop(self) -> str:
        """The parent without one of its sentences."""
        return without(self._text, self._rng.choice(self._own)[0], mode="drop", mask_token="")

    def _new(self, place: Place) -> str:
        """A sentence of the library that the parent lacks; empty if it has all."""
        missing = [sentence for sentence in self._library[place] if not self._has(sentence)]
        return self._rng.choice(missing) if missing else ""

    def _has(self, sentence: str) -> bool:
        return any(_says(part.text, sentence) for part, _ in self._own)

    def _instead(self, part: Segment, sentence: str) -> str:
        return f"{self._text[: part.start]}{sentence}{self._text[part.end :]}"

    def _with(self, sentence: str, place: Place) -> str:
        """The parent with the sentence in front of the first one that has a later place."""
        behind = next((part.start for part, where in self._own if where > place), None)
        if behind is not None and sentence:
            return f"{self._text[:behind]}{sentence} {self._text[behind:]}"
        whole = self._text.rstrip()
        return f"{whole} {sentence}" if sentence and whole.endswith((".", "!", "?")) else ""

    def _parts(self, text: str) -> list[tuple[Segment, Place]]:
        parts = rule_segments(text, _SENTENCES)
        return [(part, self._sentences.place(part.text)) for part in parts]


def _says(sentence: str, other: str) -> bool:
    """True if one of the two sentences begins with the other, up to its full stop."""
    return sentence.startswith(other.rstrip(".")) or other.startswith(sentence.rstrip("."))
