"""The writer "contrast": an instruction that tells the right answer from the one that the model prefers.

The request shows the error itself, not only that there is one, so the model can criticise what led to it, as
in ProTeGi (Pryzant et al., 2023, arXiv 2305.03495). Which answer the model prefers is in the parent's scores,
so to know it takes no further tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pmpo_ray.search.meta_prompts import (
    LEAD,
    LONG_CHARS,
    Style,
    about_instruction,
    about_task,
    block,
    closing,
    line,
    plain,
    short_form,
    shortened,
)
from pmpo_ray.search.writers.writer import Ask, WritingContext, size, spread, turn
from pmpo_ray.types import AnswerScore, Example, Task

_ASK = "Say this instruction so that it leads to the right answer."


@dataclass(frozen=True, slots=True)
class Rival:
    """The likeliest wrong answer of an example; `chosen` if it is likelier than the right one."""

    text: str
    chosen: bool


class Contrast:
    """Asks for an instruction that leads to the right answer and not to its strongest rival, for each hard
    case that has wrong answers."""

    def samples(self, count: int, hard_examples: int, cases: int) -> list[int]:
        return spread(count, hard_examples)[:cases]

    def requests(self, context: WritingContext) -> list[Ask]:
        cases = list(_cases(context))
        counts = self.samples(context.count, context.hard_examples, len(cases))
        return [
            Ask(
                contrast_prompt(
                    context.style,
                    description=context.task.description,
                    instruction=context.parent.candidate.text,
                    example=example,
                    rival=rival,
                    max_chars=context.max_chars,
                ),
                samples,
                ("contrast", example.id),
                (example.id,),
                example.id,
            )
            for (example, rival), samples in zip(cases, counts, strict=False)
        ]

    def shots(self, style: Style) -> tuple[Example, ...]:
        return _SHOTS if style == "short" else ()

    def longest(self, task: Task, examples: Sequence[Example], style: Style, max_chars: int) -> str:
        def shown(text: str) -> int:
            return size(line(text) if style == "short" else plain(shortened(text, LONG_CHARS)))

        prompts = (
            contrast_prompt(
                style,
                description=task.description,
                instruction="",
                example=example,
                rival=Rival(wrong, chosen),
                max_chars=max_chars,
            )
            for example in examples
            for wrong in (max(example.negatives, key=shown, default=""),)
            for chosen in (True, False)
        )
        return max(prompts, key=size)


def _cases(context: WritingContext) -> Iterator[tuple[Example, Rival]]:
    """The hard cases that have wrong answers, each with the likeliest of these under the parent. The scores
    are calibrated where the losses are."""
    for index in context.hard_cases:
        example, score = context.examples[index], context.parent.scores[index]
        if example.negatives:
            values = [_value(answer, context.per_token) for answer in score.negatives]
            place = max(range(len(values)), key=values.__getitem__)
            chosen = values[place] > _value(score.target, context.per_token)
            yield example, Rival(example.negatives[place], chosen)


def _value(answer: AnswerScore, per_token: bool) -> float:
    value = answer.logprob / max(1, answer.tokens) if per_token else answer.logprob
    return -math.inf if math.isnan(value) else value


def contrast_prompt(
    style: Style, *, description: str, instruction: str, example: Example, rival: Rival, max_chars: int
) -> str:
    """The meta-prompt that shows an example with its right answer and the strongest wrong one. Long inputs
    and answers are shown without their middle."""
    if style == "short":
        return _short_form(description, example.input, example.target, rival, instruction)
    if rival.chosen:
        input_is, other_is = (
            "on which the model is wrong",
            "The output that the model prefers, which is wrong:",
        )
    else:
        input_is, other_is = "on which the model is right, but not by much", "A wrong output, nearly chosen:"
    parts = [
        LEAD,
        about_task(description, "infer it from the instruction and the example"),
        about_instruction(instruction),
        block(
            f"An input {input_is} under this instruction:",
            "input",
            plain(shortened(example.input, LONG_CHARS)),
        ),
        block(other_is, "output", plain(shortened(rival.text, LONG_CHARS))),
        block("The output that is right:", "output", plain(shortened(example.target, LONG_CHARS))),
        "First diagnose, in three sentences at most: what in an input like this one decides for the right "
        "output and against the other one, and what in the current instruction, or missing from it, leads to "
        "the other one? Then write a new instruction that tells such inputs apart. You may add a rule, make "
        "a vague one exact, and cut one that misleads.",
        closing(max_chars),
    ]
    return "\n\n".join(parts)


def _short_form(description: str, question: str, answer: str, rival: Rival, instruction: str) -> str:
    lines = [
        ("Task", description),
        ("Input", question),
        ("Chosen by mistake" if rival.chosen else "Nearly chosen", rival.text),
        ("Right answer", answer),
    ]
    return short_form(lines, instruction, _ASK)


def _shot(number: int, question: str, wrong: Rival, right: str, instruction: str, better: str) -> Example:
    form = _short_form("", question, right, wrong, instruction)
    return turn(f"contrast-{number}", form, better)


_SHOTS = (
    _shot(
        1,
        "Wo ist der Bahnhof?",
        Rival("English", chosen=True),
        "German",
        "You are given a text. Name its language. The languages are English, German, Spanish.",
        "Name the language that the words of the text are from, whatever the text speaks of. "
        "The languages are English, German, Spanish. Write only the language.",
    ),
    _shot(
        2,
        "A dull plot, but I left smiling.",
        Rival("negative", chosen=True),
        "positive",
        "Decide whether the review is positive or negative. Answer with one word.",
        "Decide how the writer feels about the whole film, not about a part of it. "
        "Answer with one word: positive or negative.",
    ),
    _shot(
        3,
        "The team won the cup for the third time.",
        Rival("politics", chosen=False),
        "sports",
        "Here is a headline. Choose its topic: politics, sports, science. Give the topic only.",
        "Choose the topic of the headline by who acts in it: politics for governments, sports for players, "
        "science for researchers. Give the topic only.",
    ),
    _shot(
        4,
        "Ann has 3 apples and buys 4 more. How many has she now?",
        Rival("4", chosen=True),
        "7",
        "Solve the problem. Let's think step by step.",
        "Solve the problem step by step. Use every number that it gives, "
        "and check that the answer is what the question asks for.",
    ),
)
