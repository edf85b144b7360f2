"""The sentences that the operator "compose" puts together: well-formed ones about any task, filled in from a
task's description and its answers.

Invariant: every sentence is English, complete, and true of its task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pmpo_ray.text import explained
from pmpo_ray.types import Kind, Task

_INPUT = re.compile(
    r"\b(?:each|every|the|an) input is (?P<article>an?|one) (?P<noun>[^.,:;]{3,80})(?=[.,:;]|$)",
    re.IGNORECASE,
)
_OUTPUT = re.compile(
    r"\bthe (?:output|answer) (?P<verb>is|tells|says|names|gives) (?P<what>[^.]{3,300})\.", re.IGNORECASE
)
_IMPERATIVES = {"is": "Answer with", "tells": "Tell", "says": "Say", "names": "Name", "gives": "Give"}
_TO_ITS_END = "Read the input to its end before you answer."
_MAX_LISTED = 300
"""Characters of a list of answers that a sentence may hold."""
_MAX_EXPLAINED = 600
"""Characters of a list of answers with their meanings."""
_READS = re.compile(
    r"(?:read|look at|consider|the input|each input|you (?:will|are|get)|here is)\b", re.IGNORECASE
)
_FORM = re.compile(r"(?:answer with|give|reply with|do not|write)\b", re.IGNORECASE)


class Place(IntEnum):
    """What a sentence says. The sentences of an instruction come in this order."""

    READ = 0
    DECIDE = 1
    CHOICES = 2
    FORM = 3


_DECIDE: Mapping[Kind, tuple[str, ...]] = {
    "labels": (
        "Think about what the input says as a whole.",
        "Judge by the main point of the input and not by single words.",
        "Look for the words of the input that tell most.",
        "Look at what the input is about and at what it is for.",
        "If more than one answer seems to fit, choose the one that fits best.",
    ),
    "options": (
        "Compare all the options before you choose.",
        "Check each option, and choose the one that must be right.",
        "Work it out step by step.",
        "Consider what is given and what is asked.",
    ),
    "text": (
        "Work it out step by step.",
        "Consider what is given and what is asked.",
        "Use only what the input says.",
        "Check the result before you give it.",
    ),
    "pairs": (
        "Answer every part of the request.",
        "Be correct and complete.",
        "Keep to what was asked.",
        "Use plain words.",
    ),
}


@dataclass(frozen=True, slots=True)
class Sentences:
    """The sentences for one task, by what they say. `labels` are its answers, if these are closed."""

    by_place: Mapping[Place, tuple[str, ...]]
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task) -> Sentences:
        """The sentences for a task."""
        described = _described(task.description)
        names_all = all(_holds(sentence, task.labels) for sentence in described)
        by_place = {
            Place.READ: _read(task.description),
            Place.DECIDE: _DECIDE[task.kind],
            Place.CHOICES: (*(described if names_all else ()), *_choices(task)),
            Place.FORM: (*(() if names_all else described), *_form(task)),
        }
        return cls(by_place, task.labels)

    def place(self, sentence: str) -> Place:
        """What a sentence says: a known one, or another one judged by its first words and its labels."""
        for place, known in self.by_place.items():
            if sentence in known:
                return place
        if self.labels and _holds(sentence, self.labels):
            return Place.CHOICES
        if _READS.match(sentence):
            return Place.READ
        return Place.FORM if _FORM.match(sentence) else Place.DECIDE


def _read(description: str) -> tuple[str, ...]:
    match = _INPUT.search(description)
    if match is None:
        return ("Read the input.", _TO_ITS_END)
    noun = match["noun"]
    article = "a" if match["article"].casefold() == "one" else match["article"]
    return (f"Read the {noun}.", f"The input is {article} {noun}.", _TO_ITS_END)


def _described(description: str) -> tuple[str, ...]:
    """The description's sentence about the output, as an imperative."""
    match = _OUTPUT.search(description)
    return () if match is None else (f"{_IMPERATIVES[match['verb'].casefold()]} {match['what']}.",)


def _choices(task: Task) -> tuple[str, ...]:
    if task.kind == "options":
        return ("Choose one of the options.", "Answer with the right option.")
    listed = ", ".join(task.labels)
    if len(task.labels) < 2 or len(listed) > _MAX_LISTED:
        return ()
    either = f"{', '.join(task.labels[:-1])} or {task.labels[-1]}"
    meant = ", ".join(explained(task.labels, task.meanings))
    return (
        *(
            (f"Choose one of these answers: {meant}.",)
            if task.meanings and len(meant) <= _MAX_EXPLAINED
            else ()
        ),
        f"Choose one of these answers: {listed}.",
        f"The possible answers are {either}.",
        f"Decide whether the input is {either}.",
        f"Classify the input as {either}.",
        f"{_only(task.labels).removesuffix('.')}: {either}.",
    )


def _form(task: Task) -> tuple[str, ...]:
    if task.kind == "options":
        return ("Give the right option and nothing else.", "Do not explain the answer.")
    if task.kind == "labels":
        return (_only(task.labels), "Give the answer and nothing else.", "Do not explain the answer.")
    # Anything else would contradict worked solutions.
    return ()


def _only(labels: Sequence[str]) -> str:
    words = all(label.isalpha() for label in labels)
    return "Answer with one word." if words else "Answer with the label only."


def _holds(sentence: str, labels: Sequence[str]) -> bool:
    """True if the sentence names all the labels."""
    lower = sentence.casefold()
    return all(label.casefold() in lower for label in labels)
