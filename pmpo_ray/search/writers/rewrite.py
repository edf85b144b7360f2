"""The writer "rewrite": a better instruction for a hard case (BCA; paper: Algorithm 1, step 3)."""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.search.meta_prompts import (
    LEAD,
    Style,
    about_hard_case,
    about_instruction,
    about_task,
    block,
    hints,
    long_hints,
    short_form,
)
from pmpo_ray.search.writers.writer import Ask, WritingContext, size, spread, turn
from pmpo_ray.types import Example, SegmentImportance, Task

_ASK = "Say this instruction in better words."


class Rewrite:
    """Asks for a better instruction for each hard case: k requests of n samples in the paper."""

    def samples(self, count: int, hard_examples: int, cases: int) -> list[int]:
        return spread(count, hard_examples)[:cases]

    def requests(self, context: WritingContext) -> list[Ask]:
        counts = self.samples(context.count, context.hard_examples, len(context.hard_cases))
        return [
            self._ask(context, context.examples[index], samples)
            for index, samples in zip(context.hard_cases, counts, strict=False)
        ]

    def _ask(self, context: WritingContext, example: Example, samples: int) -> Ask:
        prompt = rewrite_prompt(
            context.style,
            description=context.task.description,
            instruction=context.parent.candidate.text,
            example=example,
            importances=context.importances,
            max_chars=context.max_chars,
        )
        return Ask(prompt, samples, (example.id,), (example.id,), example.id)

    def shots(self, style: Style) -> tuple[Example, ...]:
        return rewrite_shots(style)

    def longest(self, task: Task, examples: Sequence[Example], style: Style, max_chars: int) -> str:
        prompts = (
            rewrite_prompt(
                style,
                description=task.description,
                instruction="",
                example=example,
                importances=(),
                max_chars=max_chars,
            )
            for example in examples
        )
        return max(prompts, key=size)


def rewrite_prompt(
    style: Style,
    *,
    description: str,
    instruction: str,
    example: Example,
    importances: Sequence[SegmentImportance],
    max_chars: int,
) -> str:
    """The meta-prompt for one hard example, with the five parts of the method: task, current instruction,
    hard example, editing directions, and the mask analysis as a hint (Algorithm 1, step 3).

    `importances` are those of the segments of the instruction, possibly none; `max_chars` is the length of
    the longest instruction that the gate accepts. Long inputs and targets are shown without their middle.
    """
    if style == "long":
        return _long_form(description, instruction, example, importances, max_chars)
    keep, drop = hints(importances)
    return _short_form(description, example.input, example.target, instruction, keep, drop)


def rewrite_shots(style: Style) -> tuple[Example, ...]:
    """The turns in front of a rewriting request (`Writer.shots`)."""
    return _SHOTS if style == "short" else ()


def _long_form(
    description: str,
    instruction: str,
    example: Example,
    importances: Sequence[SegmentImportance],
    max_chars: int,
) -> str:
    parts = [
        LEAD,
        about_task(description, "infer it from the instruction and the example"),
        about_instruction(instruction),
        about_hard_case(example),
        block(
            "What happens when one part of the current instruction is left out (a hint only; you may change "
            "any part):",
            "parts",
            "\n".join(long_hints(importances)) or "Not available.",
        ),
        _directions(max_chars),
    ]
    return "\n\n".join(parts)


def _directions(max_chars: int) -> str:
    return f"""First diagnose, in three sentences at most: what in the current instruction, or missing from \
it, makes outputs of this kind unlikely? Then write the new instruction. You may
- say in other words what is stiff or unclear, and improve the flow,
- tighten what leaves too much open, and spell out what is only hinted at,
- cut what is redundant, and simplify what is complicated,
- merge rules that overlap.

The new instruction must serve every input of the task, not only inputs like this one. Do not quote the \
example or its answer, and do not mention it. Keep the form of the output as it is. Use at most {max_chars} \
characters.

Write the diagnosis, then the whole new instruction between <prompt> and </prompt>, and nothing after it."""


def _short_form(
    description: str, question: str, answer: str, instruction: str, keep: str = "", drop: str = ""
) -> str:
    lines = [
        ("Task", description),
        ("Input", question),
        ("Answer", answer),
        ("Keep", keep),
        ("Leave out", drop),
    ]
    return short_form(lines, instruction, _ASK)


def _shot(number: int, question: str, answer: str, instruction: str, better: str) -> Example:
    return turn(f"rewrite-{number}", _short_form("", question, answer, instruction), better)


# The last turn has the most influence, so it rewrites the start instruction that most tasks have.
_SHOTS = (
    _shot(
        1,
        "Wo ist der Bahnhof?",
        "German",
        "You are given a text. Name its language. The languages are English, German, Spanish.",
        "Read the text and find out which language it is written in. "
        "The possible answers are English, German, Spanish. Write only the language.",
    ),
    _shot(
        2,
        "A dull plot, but I left smiling.",
        "positive",
        "Decide whether the review is positive or negative. Answer with one word.",
        "Read the whole review and judge what its writer thinks of the film. "
        "Answer with one word: positive or negative.",
    ),
    _shot(
        3,
        "The team won the cup for the third time.",
        "sports",
        "Here is a headline. Choose its topic: politics, sports, science. Give the topic only.",
        "Read the headline and choose the topic that fits it best: politics, sports, science. "
        "Give the topic and nothing else.",
    ),
    _shot(
        4,
        "Ann has 3 apples and buys 4 more. How many has she now?",
        "7",
        "Solve the problem. Let's think step by step.",
        "Let's solve the problem step by step. "
        "Read all of it first, take one small step at a time, and give the final answer at the end.",
    ),
)
