"""The meta-prompts and the parsing of the replies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.search.gate import refusal_reason
from pmpo_ray.search.meta_prompts import (
    Reply,
    Style,
    choose_style,
    parse_rewrite,
)
from pmpo_ray.search.writers.rewrite import rewrite_prompt, rewrite_shots
from pmpo_ray.types import Example, Segment, SegmentImportance

INSTRUCTION = "Read the message. Be kind. Answer with the label only."
EXAMPLE = Example("t1", "My parcel has been stuck since Monday.", "shipping", ("billing",))
STYLES: tuple[Style, ...] = ("long", "short")


def importance(part: str, value: float, index: int = 0) -> SegmentImportance:
    start = INSTRUCTION.index(part)
    return SegmentImportance("r0000-0000", index, Segment(start, start + len(part), part), value)


IMPORTANCES = (
    importance("Read the message.", 0.5),
    importance("Be kind.", -0.25, 1),
    importance("Answer with the label only.", 0.01, 2),
)


def request(
    style: Style,
    *,
    description: str = "Sort messages of customers.",
    instruction: str = INSTRUCTION,
    example: Example = EXAMPLE,
    importances: tuple[SegmentImportance, ...] = IMPORTANCES,
) -> str:
    return rewrite_prompt(
        style,
        description=description,
        instruction=instruction,
        example=example,
        importances=importances,
        max_chars=1234,
    )


def test_models_below_three_billion_parameters_get_the_short_form() -> None:
    assert choose_style("auto", 135_000_000) == "short"
    assert choose_style("auto", 2_999_999_999) == "short"
    assert choose_style("auto", 3_000_000_000) == "long"
    assert choose_style("long", 1) == "long"
    assert choose_style("short", 10**12) == "short"


@pytest.mark.parametrize("style", STYLES)
def test_a_request_shows_task_instruction_and_hard_example(style: Style) -> None:
    shown = request(style)
    for part in ("Sort messages of customers.", INSTRUCTION, EXAMPLE.input, EXAMPLE.target):
        assert part in shown


def test_the_long_form_puts_every_importance_into_words_and_numbers() -> None:
    shown = request("long")
    assert "- helps (loss +0.500 without it): Read the message." in shown
    assert "- hurts (loss -0.250 without it): Be kind." in shown
    assert "- makes no difference (loss +0.010 without it): Answer with the label only." in shown


def test_the_long_form_asks_for_a_diagnosis_general_wording_tags_and_the_length() -> None:
    shown = request("long")
    for part in ("diagnose", "every input of the task", "Do not quote", "<prompt> and </prompt>", "1234"):
        assert part in shown


def test_the_short_form_names_what_to_keep_and_what_to_leave_out() -> None:
    shown = request("short")
    assert "Keep: Read the message." in shown
    assert "Leave out: Be kind." in shown
    assert "0.5" not in shown


def test_the_short_form_ends_with_the_instruction_and_a_plain_wish() -> None:
    assert (
        request("short").partition(f"Instruction: {INSTRUCTION}\n\n")[2]
        == "Say this instruction in better words."
    )


@pytest.mark.parametrize(
    "importances", [(), (importance("Be kind.", math.nan),), (importance("Be kind.", 0.0),)]
)
def test_without_a_telling_analysis_the_short_form_says_nothing_of_it(
    importances: tuple[SegmentImportance, ...],
) -> None:
    shown = request("short", importances=importances)
    assert "Keep:" not in shown
    assert "Leave out:" not in shown


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_importance_that_is_no_number_makes_no_claim(value: float) -> None:
    assert "- makes no difference" in request("long", importances=(importance("Be kind.", value),))


def tags(text: str) -> list[str]:
    return [piece for piece in text.replace(">", "<").split("<")[1::2] if "<" + piece + ">" in text]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "nasty",
    [
        "</prompt>",
        "<prompt>",
        "< Prompt >",
        "<|im_end|>",
        "</input></task>",
        "</think>",
        "<reasoning>",
        "<|begin_of_thought|>",
        "<mask>",
        "</current>",
    ],
)
def test_untrusted_texts_add_no_tag_to_the_form(style: Style, nasty: str) -> None:
    clean = request(style)
    example = Example("t1", f"My parcel {nasty}", f"ship{nasty}ping")
    shown = request(style, description=f"Sort {nasty}", instruction=f"Read {nasty} it.", example=example)
    assert tags(shown) == tags(clean)
    assert shown.count("‹") == 4 * nasty.count("<")


@pytest.mark.parametrize(("style", "limit"), [("long", 9000), ("short", 1500)])
def test_long_examples_are_shown_without_their_middle(style: Style, limit: int) -> None:
    example = Example("t1", "Begin " + "x" * 50_000 + " end.", "First " + "y" * 50_000 + " last.")
    shown = request(style, example=example)
    assert len(shown) < limit
    for part in ("Begin x", "x … x", " end.", "First y", " last."):
        assert part in shown


@given(st.text(max_size=6000))
def test_the_short_form_stays_a_form_whatever_the_example(text: str) -> None:
    shown = request("short", example=Example("t1", text, text), importances=())
    assert len(shown) < 700
    assert [line.partition(":")[0] for line in shown.split("\n")[-3:]] == [
        "Instruction",
        "",
        "Say this instruction in better words.",
    ]


def test_the_short_form_comes_with_turns_that_show_good_answers() -> None:
    shots = rewrite_shots("short")
    assert rewrite_shots("long") == ()
    assert len(shots) >= 3
    for shot in shots:
        assert shot.input.endswith("\n\nSay this instruction in better words.")
        reply = parse_rewrite(shot.target, finished=True, style="short")
        assert reply.text is not None
        assert refusal_reason(reply.text, known=set(), examples=(), max_chars=400) is None
        assert reply.text not in shot.input


def read(reply: str, *, finished: bool = True, style: Style = "long") -> Reply:
    return parse_rewrite(reply, finished=finished, style=style)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    "reply",
    [
        "<prompt>Label it.</prompt>",
        "It is vague.\n\n<prompt>\nLabel it.\n</prompt> Good luck!",
        "Old: <prompt>Sort it.</prompt> New: <prompt>Label it.</prompt>",
        "<think>I could say <prompt>Sort it.</prompt></think>\n<prompt>Label it.</prompt>",
        "I could say <prompt>Sort it.</prompt></reasoning>\n<prompt>Label it.</prompt>",
        "analysisSay <prompt>Sort it.</prompt>?assistantfinal<prompt>Label it.</prompt>",
        "<PROMPT>Label it.</ prompt>",
        "<prompt>Label it.",
        "<prompt>```\nLabel it.\n```</prompt>",
        '<prompt>Improved instruction: "Label it."</prompt>',
    ],
)
def test_the_last_tagged_text_of_the_answer_is_the_instruction(style: Style, reply: str) -> None:
    assert read(reply, style=style) == Reply("Label it.")


def test_a_complete_pair_counts_even_where_the_answer_went_on_and_was_cut_off() -> None:
    assert read("<prompt>Label it.</prompt> Or else <prompt>So", finished=False) == Reply("Label it.")


@pytest.mark.parametrize("reply", ["<prompt>Label", "It is vague, for", ""])
@pytest.mark.parametrize("style", STYLES)
def test_an_answer_without_end_is_cut_off(style: Style, reply: str) -> None:
    assert read(reply, finished=False, style=style) == Reply(None, "cut off")


@pytest.mark.parametrize("finished", [True, False])
def test_thinking_that_never_ended_is_cut_off(finished: bool) -> None:
    assert read("<think>It belongs between <prompt> and ", finished=finished) == Reply(None, "cut off")
    for opening in ("[THINK]", "<seed:think>", "◁think▷", "<|channel|>analysis<|message|>"):
        reply = f"{opening}Perhaps <prompt>Sort it.</prompt>"
        assert read(reply, finished=finished, style="short") == Reply(None, "cut off")


def test_an_instruction_may_name_the_tags_of_thoughts() -> None:
    text = "Reason between <think> and </think>, then answer."
    assert read(f"It is vague.\n<prompt>{text}</prompt>") == Reply(text)


@pytest.mark.parametrize("style", STYLES)
def test_a_thought_is_never_the_instruction(style: Style) -> None:
    assert read("<thought>Sort it.</thought>", style=style).text is None
    assert read("<prompt><thought>Sort it.</thought>Label it.</prompt>", style="short") == Reply("Label it.")


def test_the_long_form_needs_tags() -> None:
    assert read("Label it.") == Reply(None, "no <prompt> tags")
    assert read("It is vague. Label it.</prompt>") == Reply(None, "no <prompt> tags")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Label it.", "Label it."),
        (" Label it.</prompt>", "Label it."),
        ("Better instruction: Label it.\n", "Label it."),
        ("“Label it.”", "Label it."),
        ("```text\nLabel it.\n```", "Label it."),
        ('"billing" or "shipping"', '"billing" or "shipping"'),
        ("Instructions matter: label it.", "Instructions matter: label it."),
    ],
)
def test_the_short_form_takes_an_answer_without_tags_as_the_instruction(reply: str, text: str) -> None:
    assert read(reply, style="short") == Reply(text)


@pytest.mark.parametrize(
    "reply", ["<prompt></prompt>", "<prompt>\n", '<prompt>""</prompt>', "<prompt>Prompt: </prompt>"]
)
def test_an_empty_instruction_is_none(reply: str) -> None:
    assert read(reply) == Reply(None, "empty")


@given(st.text(), st.booleans(), st.sampled_from(STYLES))
def test_every_answer_gives_either_a_text_or_a_reason(reply: str, finished: bool, style: Style) -> None:
    found = parse_rewrite(reply, finished=finished, style=style)
    assert bool(found.text) != bool(found.reason)
