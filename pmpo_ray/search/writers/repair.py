"""The writer "repair": an instruction that avoids what made earlier attempts fail.

The request shows texts that were refused, with the reason, and texts that raised the loss, by how much: a
model that sees earlier attempts with their scores does not try them again (OPRO, Yang et al., 2023, arXiv
2309.03409).

Invariant: only finished rounds are looked at, so a continued search asks as an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

from pmpo_ray.search.budget import SECONDS, TOKENS
from pmpo_ray.search.gate import DUPLICATE, EMPTY, HIDDEN
from pmpo_ray.search.meta_prompts import (
    CUT_OFF,
    LEAD,
    NO_TAGS,
    Style,
    about_hard_case,
    about_instruction,
    about_task,
    block,
    closing,
    filled,
    line,
    plain,
)
from pmpo_ray.search.writers.writer import Ask, WritingContext, size, spread, turn
from pmpo_ray.text import normalise
from pmpo_ray.types import WRITING_OPERATORS, Candidate, Example, Refusal, RoundRecord, Task

SHOWN = 3
"""Failed attempts that a request shows, at most."""
_ROUNDS = 3
"""The last rounds in which attempts are looked for."""
_ASK = "Say this instruction in better words than those that failed."
_LONG_TEXT, _SHORT_TEXT = 600, 160
"""Characters of a failed attempt in the long and in the short form."""
_REASON = 80
"""Characters of a reason."""
_WORSE = "made the right answers less likely"
_SAYS_NOTHING = frozenset((EMPTY, CUT_OFF, NO_TAGS, DUPLICATE, HIDDEN, TOKENS, SECONDS))
"""Reasons that say nothing about an instruction."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A text that failed, and why: a reason of the gate, or that it was worse. `rise` is by how much it
    raised the loss, in nats; None where that was not measured on all examples."""

    text: str
    reason: str
    rise: float | None = None


_Attempt: TypeAlias = tuple[Candidate | Refusal, Failure]
"""A text of an earlier round with its origin, and how it failed."""


class Repair:
    """Asks, for each hard case, for an instruction that avoids what made up to three attempts of the last
    rounds fail."""

    def samples(self, count: int, hard_examples: int, cases: int) -> list[int]:
        return spread(count, hard_examples)[:cases]

    def requests(self, context: WritingContext) -> list[Ask]:
        failed = list(_failures(context))
        if not failed:
            return []
        counts = self.samples(context.count, context.hard_examples, len(context.hard_cases))
        return [
            self._ask(context, context.examples[index], failed, samples)
            for index, samples in zip(context.hard_cases, counts, strict=False)
        ]

    def _ask(
        self,
        context: WritingContext,
        example: Example,
        failed: Sequence[_Attempt],
        samples: int,
    ) -> Ask:
        parent = context.parent.candidate
        # Stable: within each kind the newest come first.
        nearest = sorted(failed, key=lambda one: (one[0].hard_case != example.id, one[0].parent != parent.id))
        prompt = repair_prompt(
            context.style,
            description=context.task.description,
            instruction=parent.text,
            example=example,
            failures=[failure for _, failure in nearest[:SHOWN]],
            max_chars=context.max_chars,
        )
        return Ask(prompt, samples, ("repair", example.id), (example.id,), example.id)

    def shots(self, style: Style) -> tuple[Example, ...]:
        return _SHOTS if style == "short" else ()

    def longest(self, task: Task, examples: Sequence[Example], style: Style, max_chars: int) -> str:
        # Texts with as many bytes for each character as those that the attempts are written after.
        like = max(
            (text for text in (task.instruction, task.description) if text),
            key=lambda text: size(text) / len(text),
            default="x",
        )
        filling = " ".join([like] * (1 + 2 * _LONG_TEXT // len(like)))
        prompts = (
            repair_prompt(
                style,
                description=task.description,
                instruction="",
                example=example,
                failures=[Failure(filling, filling, math.pi)] * SHOWN,
                max_chars=max_chars,
            )
            for example in examples
        )
        return max(prompts, key=size)


def _failures(context: WritingContext) -> Iterator[_Attempt]:
    """The failed attempts of the last rounds, each text once, the newest round first. A survivor did not
    fail."""
    seen = {normalise(one.candidate.text) for one in (context.parent, *context.survivors)}
    for record in reversed(context.history[-_ROUNDS:]):
        for one, failure in chain(_worse(record), _refused(record)):
            key = normalise(failure.text)
            if key not in seen:
                seen.add(key)
                yield one, failure


def _refused(record: RoundRecord) -> Iterator[_Attempt]:
    for one in record.refusals:
        if one.operator in WRITING_OPERATORS and one.status == "refused" and one.reason not in _SAYS_NOTHING:
            yield one, Failure(one.text, one.reason)


def _worse(record: RoundRecord) -> Iterator[_Attempt]:
    """The written texts of a round that are worse than their parents. One that left the race is worse on the
    examples that it was scored on."""
    losses = {one.candidate.id: one.loss for one in record.candidates if not one.left}
    for one in record.candidates:
        candidate = one.candidate
        if candidate.round != record.round or candidate.operator not in WRITING_OPERATORS:
            continue
        if one.left:
            yield candidate, Failure(candidate.text, _WORSE)
        elif (rise := one.loss - losses[candidate.parent or ""]) > 0:
            yield candidate, Failure(candidate.text, _WORSE, rise if math.isfinite(rise) else None)


def repair_prompt(
    style: Style,
    *,
    description: str,
    instruction: str,
    example: Example,
    failures: Sequence[Failure],
    max_chars: int,
) -> str:
    """The meta-prompt that shows an example and failed attempts, and asks for an instruction that avoids
    what failed. Long texts are shown without their middle."""
    if style == "short":
        return _short_form(description, example.input, example.target, failures, instruction)
    attempts = "\n".join(f"- {_why(one)}: {line(one.text, _LONG_TEXT)}" for one in failures)
    parts = [
        LEAD,
        about_task(description, "infer it from the instruction and the example"),
        about_instruction(instruction),
        about_hard_case(example),
        block("Attempts at a better instruction that failed, each with the reason:", "parts", attempts),
        "First diagnose, in three sentences at most: what made these attempts fail, and what in the current "
        "instruction still has to change? Then write a new instruction that avoids what failed and makes "
        "outputs of this kind likelier. It must not be one of the attempts in other words.",
        closing(max_chars),
    ]
    return "\n\n".join(parts)


def _why(failure: Failure) -> str:
    reason = line(failure.reason, _REASON)
    return reason if failure.rise is None else f"{reason} (loss {failure.rise:+.3f})"


def _short_form(
    description: str, question: str, answer: str, failures: Sequence[Failure], instruction: str
) -> str:
    lines = [("Task", description), ("Input", question), ("Answer", answer)]
    attempts = [f"Failed: {line(one.text, _SHORT_TEXT)} ({line(one.reason, _REASON)})" for one in failures]
    return "\n".join([*filled(lines), *attempts, f"Instruction: {plain(instruction)}", "", _ASK])


def _shot(
    number: int, question: str, answer: str, failures: Sequence[Failure], instruction: str, better: str
) -> Example:
    return turn(f"repair-{number}", _short_form("", question, answer, failures, instruction), better)


_SHOTS = (
    _shot(
        1,
        "Wo ist der Bahnhof?",
        "German",
        [Failure("Is the text German?", "tells nobody what to do")],
        "You are given a text. Name its language. The languages are English, German, Spanish.",
        "Look at the words of the text and name the language that they belong to: English, German, Spanish. "
        "Write only the language.",
    ),
    _shot(
        2,
        "A dull plot, but I left smiling.",
        "positive",
        [
            Failure("Say whether the review is positive.", "names some labels and not the others"),
            Failure("Count the good and the bad words of the review.", _WORSE),
        ],
        "Decide whether the review is positive or negative. Answer with one word.",
        "Judge the opinion that the writer has of the film in the end. "
        "Answer with one word: positive or negative.",
    ),
    _shot(
        3,
        "Ann has 3 apples and buys 4 more. How many has she now?",
        "7",
        [Failure("Add the apples that Ann has and those that she buys.", "copies example 1")],
        "Solve the problem. Let's think step by step.",
        "Write down what the problem gives and what it asks for. "
        "Then work it out one step after another, and end with the answer.",
    ),
)
