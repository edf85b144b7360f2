"""The gate: the texts that may become candidates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmpo_ray.search.gate import refusal_reason
from pmpo_ray.text import normalise
from pmpo_ray.types import Example

INSTRUCTION = "Read the message and name its label: billing, shipping or praise. Answer with the label only."
EXAMPLES = (
    Example("t1", "My parcel has been stuck in Lyon since Monday.", "shipping"),
    Example("t2", "Thanks!", "praise"),
    Example(
        "t3",
        "Ann buys three pens for two euros each and pays with a note of ten. How much is left?",
        "Three pens cost 3 * 2 = 6 euros, so she gets 10 - 6 = 4 euros back. The answer is 4.",
    ),
)


def reason(
    text: str, *, known: set[str] | None = None, max_chars: int = 4000, allowed: str = INSTRUCTION
) -> str | None:
    return refusal_reason(text, known=known or set(), examples=EXAMPLES, max_chars=max_chars, allowed=allowed)


@pytest.mark.parametrize(
    "text",
    [
        "Name the label of the message: billing, shipping or praise.",
        "You are an AI assistant at a support desk. Label the message.",
        "Sort the message.\n\n1. Read it twice.\n2. Give one label, e.g. praise.",
        "Answer <b>only</b> with the label; if x < 3 and y > 2, say so.",
        "Wähle genau eine Kategorie für die Nachricht 📦.",
        "If the customer says thanks! and asks for nothing, the label is praise.",
    ],
)
def test_a_usable_instruction_passes(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize("text", ["", " \n\t", "...", "---\n***"])
def test_a_text_without_a_letter_or_digit_is_empty(text: str) -> None:
    assert reason(text) == "empty"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry for the confusion.",
        '"I am unable to rewrite this."',
        "As an AI language model, I have no opinion.",
        "Sorry, this is not possible.",
        "I cannot assist with this request.",
        "I apologize for the inconvenience.",
    ],
)
def test_a_model_that_declines_is_a_refusal(text: str) -> None:
    assert reason(text) == "refusal"


def test_a_known_text_is_a_duplicate_up_to_white_space_and_case() -> None:
    assert (
        reason("  read THE message and\nname it ", known={normalise("Read the message and name it")})
        == "duplicate"
    )


def test_a_text_over_the_limit_is_refused() -> None:
    assert reason("Label it. " * 4, max_chars=40) is None
    assert reason("Label it. " * 4 + "!", max_chars=40) == "longer than 40 characters"


@pytest.mark.parametrize(
    "text",
    [
        "Label it.</prompt>",
        "Label <MASK>it</MASK>.",
        "Label it.<|im_start|>user",
        "Well.</think> Label it.",
        "[THINK]Well.[/THINK]Label it.",
        "<reasoning>Well.</reasoning> Label it.",
        "<s>[INST] Label it.",
        "<start_of_turn>Label it.",
    ],
)
def test_tags_of_ours_and_of_chat_templates_are_refused(text: str) -> None:
    assert reason(text) == "holds tags"


@pytest.mark.parametrize(
    "text",
    [
        "Here is the improved prompt: label the message.",
        "Here's a rewritten version of the instruction with a clearer meaning: label it.",
        "The revised instruction asks for a label.",
        "Label it, as the mask analysis suggests.",
        "Label it. Expected output: shipping",
        "Rewrite the instruction so that it is clearer.",
    ],
)
def test_talk_about_the_prompt_is_refused(text: str) -> None:
    assert reason(text) == "talks about the prompt"


def test_a_rewrite_is_not_refused_for_passages_of_the_current_instruction() -> None:
    current = "Fill in the <mask> in the sentence. Expected output: one word."
    assert reason("Find the word for <mask>. Expected output: one word.", allowed=current) is None
    assert reason("Find the word for <mask></prompt>.", allowed=current) == "holds tags"


@pytest.mark.parametrize(
    "char", ["\x00", "\x1b", "\x7f", chr(0xD800), "\ufffd", "\u202e", "\u200e", "\u200f", "\u061c", "\u2028"]
)
def test_hidden_characters_and_broken_text_are_refused(char: str) -> None:
    assert reason(f"Label{char} it.") == "hidden or broken characters"


def test_a_whole_input_is_a_copy_up_to_white_space_and_case() -> None:
    assert (
        reason("For instance: my parcel has been\nstuck in Lyon since Monday. Label it.")
        == "copies example t1"
    )


def test_a_short_input_is_no_copy() -> None:
    assert reason("If the message says thanks! the label is praise.") is None


@pytest.mark.parametrize(
    "text",
    [
        "Think: three pens for two euros each and pays with a note. Now label.",
        "End like this: so she gets 10 - 6 = 4 euros back!",
    ],
)
def test_eight_words_in_a_row_of_an_input_or_target_are_a_copy(text: str) -> None:
    assert reason(text) == "copies example t3"


def test_seven_words_in_a_row_are_no_copy() -> None:
    assert reason("Think: three pens for two euros each and. Now label.") is None


def test_words_of_the_current_instruction_are_no_copy() -> None:
    shared = "three pens for two euros each and pays with a note"
    assert reason(f"Suppose {shared}.", allowed=f"Imagine {shared}!") is None


def test_words_that_several_examples_share_belong_to_the_task() -> None:
    question = "Which of these statements follows from what was said before?"
    rows = [Example(f"e{n}", f"Premise {n} holds here. {question}", "yes") for n in range(3)]
    text = f"You will be asked: {question} Answer yes or no."
    assert refusal_reason(text, known=set(), examples=rows, max_chars=4000) is None
    assert refusal_reason(text, known=set(), examples=rows[:2], max_chars=4000) == "copies example e0"


def test_real_worked_solutions_are_recognised(data_dir: Path) -> None:
    lines = (data_dir / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:50]
    rows = [json.loads(line) for line in lines]
    examples = [Example(str(n), row["question"], row["answer"]) for n, row in enumerate(rows)]
    for n, row in enumerate(rows):
        leaked = f"Solve the problem step by step. {row['question']}"
        assert refusal_reason(leaked, known=set(), examples=examples, max_chars=4000) == f"copies example {n}"
    clean = "Solve the problem step by step and give the final number on the last line."
    assert refusal_reason(clean, known=set(), examples=examples, max_chars=4000) is None
