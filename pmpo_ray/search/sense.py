"""The gate for sense: which texts are instructions at all, judged by their words alone.

A small model that is asked for an instruction often continues the prompt: it answers, repeats itself, fills
in a form, or writes about something else. Such a text can lower the loss, because it shifts the model's bias,
and nobody would deploy it. `python -m benchmarks.sense` measures how many texts are judged rightly.

Invariants: a passage of the current instruction is never a reason; the same text always gets the same
verdict.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pmpo_ray.search.gate import adds
from pmpo_ray.search.meta_prompts import Style
from pmpo_ray.search.writers import shots_of
from pmpo_ray.types import Example, Task

_FORM = re.compile(
    r"(?:^|[.!?:;]\s|\n)\W*(?:the\s|your\s)?(?:input|output|answer|question|response|reply|user|assistant|choices)\s*:",
    re.IGNORECASE,
)
_REPLY = re.compile(
    r"\W*(?:(?:sure|okay|ok|certainly|of course|yes|no|great)\s*[,.!]|thank(?:s| you)\b)", re.IGNORECASE
)
_FIRST_PERSON = re.compile(r"\bI\b(?!\.\w)")
_DIRECTIVE = re.compile(
    r"\b(?:answer|apply|assign|assess|categori[sz]e|check|choose|classify|compare|complete|compute|consider|count"
    r"|decide|detect|determine|evaluate|examine|explain|extract|find|follow|give|identify|infer|judge|label|look"
    r"|mark|match|name|output|pick|predict|provide|rate|read|recogni[sz]e|reply|report|respond|return|say|select"
    r"|solve|sort|state|study|summari[sz]e|tell|think|translate|use|weigh|work|write)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"[^.!?\n]+")
_RUN = 3
_REPEATED = 3
"""A run of this many words that occurs this often is a repetition."""
_COPIED = 8
"""Words in a row that only a copy of a demonstration of the meta-prompt has."""
_WHOLE_INPUT = 4
"""An input of fewer words may stand in an instruction by chance."""
_CONTENT = 4
"""Letters of a word that can tell what a text is about."""
_VOCABULARY = 5
"""With fewer such words about the task, nothing is judged by them."""
# fmt: off
_GENERIC = frozenset(
    (
        "answer", "answers", "choose", "each", "else", "exactly", "explain", "following", "from", "give",
        "given", "input", "inputs", "instruction", "label", "labels", "more", "nothing", "only",
        "option", "options", "output", "outputs", "read", "text", "that", "this", "these", "those",
        "with", "word", "words", "write", "your",
    )
)
# fmt: on
"""Words of instructions for any task: a text with no other word is about none."""


@dataclass(frozen=True)
class SenseGate:
    """The gate for one task. `topic` are texts about the task: its description and its start instructions.
    `demonstrations` are the texts that the meta-prompt shows."""

    labels: tuple[str, ...]
    topic: tuple[str, ...]
    examples: tuple[Example, ...]
    demonstrations: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        task: Task,
        examples: tuple[Example, ...],
        style: Style,
        operators: Sequence[str] = ("rewrite",),
    ) -> SenseGate:
        """The gate for a task with these training examples, and a search with these operators, whose
        meta-prompts are in `style`."""
        demonstrations = tuple(shot.target for shot in shots_of(operators, style))
        return cls(task.labels, (task.description, *task.instructions), examples, demonstrations)

    def reason(self, text: str, allowed: str = "") -> str | None:
        """The reason why this text is no instruction for the task, a short stable phrase; None if it may be
        one. `allowed` is the current instruction."""
        words, current = _words(text), _words(allowed)
        if any(words == _words(label) for label in self.labels):
            return "answers instead of instructing"
        if adds(_FORM, text, allowed):
            return "holds lines of a form"
        if _REPLY.match(text) and not _REPLY.match(allowed):
            return "replies instead of instructing"
        if _FIRST_PERSON.search(text) and not _FIRST_PERSON.search(allowed):
            return "speaks of itself"
        if _repeats(text, words) and not _repeats(allowed, current):
            return "repeats itself"
        if self._names_some_labels(words) and not self._names_some_labels(current):
            return "names some labels and not the others"
        if (_runs(words, _COPIED) & self._shown) - _runs(current, _COPIED):
            return "copies a demonstration of the request"
        if (copied := self._copied_input(words, current)) is not None:
            return f"copies example {copied}"
        # The verbs are English.
        if text.isascii() and tells_what_to_do(allowed) and not tells_what_to_do(text):
            return "tells nobody what to do"
        return "is not about the task" if self._is_off_topic(text, words) else None

    def _is_off_topic(self, text: str, words: Sequence[str]) -> bool:
        """True if the text shares no word with the texts about the task and does not name all labels. Only a
        task with labels is judged: a hint such as "take a deep breath" serves a task whose answers are
        reasoned out. Words of other scripts, which may stand without blanks, are not compared."""
        if not self.labels or not text.isascii() or len(self._vocabulary) < _VOCABULARY:
            return False
        return self._vocabulary.isdisjoint(words) and self._labels_named(words) < len(self.labels)

    def _names_some_labels(self, words: Sequence[str]) -> bool:
        """True if the text names some labels, and fewer than all. Labels of one character are left out: they
        may be words."""
        if len(self.labels) < 2 or any(len(label) < 2 for label in self.labels):
            return False
        return 0 < self._labels_named(words) < len(self.labels)

    def _labels_named(self, words: Sequence[str]) -> int:
        line = f" {' '.join(words)} "
        return sum(f" {' '.join(_words(label))} " in line for label in self.labels)

    def _copied_input(self, words: Sequence[str], current: Sequence[str]) -> str | None:
        """The id of the first example whose whole input stands in the text."""
        line, before = f" {' '.join(words)} ", f" {' '.join(current)} "
        for name, content in self._inputs:
            if content in line and content not in before:
                return name
        return None

    @cached_property
    def _inputs(self) -> tuple[tuple[str, str], ...]:
        """The id and the words of every input that is long enough to be copied."""
        lists = [(example.id, _words(example.input)) for example in self.examples]
        return tuple((name, f" {' '.join(words)} ") for name, words in lists if len(words) >= _WHOLE_INPUT)

    @cached_property
    def _shown(self) -> frozenset[tuple[str, ...]]:
        return frozenset(run for text in self.demonstrations for run in _runs(_words(text), _COPIED))

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        texts = (*self.topic, *self.labels)
        words = {word for text in texts for word in _words(text) if len(word) >= _CONTENT}
        return frozenset(words - _GENERIC)


def tells_what_to_do(text: str) -> bool:
    """True if the text holds one of the English verbs that instructions use."""
    return _DIRECTIVE.search(text) is not None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(words: Sequence[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def _repeats(text: str, words: Sequence[str]) -> bool:
    """True if a run of words, or a sentence, occurs too often."""
    runs = Counter(tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1))
    if max(runs.values(), default=0) >= _REPEATED:
        return True
    sentences = Counter(tuple(_words(sentence)) for sentence in _SENTENCE.findall(text))
    return any(count > 1 and len(sentence) >= _RUN for sentence, count in sentences.items())
