"""Segments of an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.search.masking import mask_prompt, parse_masked, rule_segments, without
from pmpo_ray.types import Segment


def units(text: str, limit: int = 20) -> list[str]:
    return [segment.text for segment in rule_segments(text, limit)]


def segment(text: str, part: str) -> Segment:
    start = text.index(part)
    return Segment(start, start + len(part), part)


def test_one_unit_gives_one_segment_and_blank_text_none() -> None:
    assert units("Let's think step by step.") == ["Let's think step by step."]
    assert units(" \n\t ") == []


def test_sentences_are_units() -> None:
    text = "Read the message. Which label fits? Answer with the label only!"
    assert units(text) == ["Read the message.", "Which label fits?", "Answer with the label only!"]


@pytest.mark.parametrize(
    "text",
    [
        "Give a reason, e.g. The price is too high, and a label.",
        "Use the metric system, i.e. Metres and litres.",
        "Round 3.14 to one place and version 2.0 too.",
        "Ask Dr. Smith or Mrs. Jones about it.",
        "See Fig. 3 and No. 5 for it.",
        "The novel by George W. Bush is long.",
        "Wait... then answer.",
        "In the U.S. English is spoken.",
        'Say "Stop! Who are you?" to the visitor.',
        "Say “Hello. Please wait.” to them",
        "Answer with a label (in doubt, take the first. Never take two) for it",
        "Is it true? no or yes",
    ],
)
def test_what_only_looks_like_an_end_does_not_split(text: str) -> None:
    assert units(text) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer yes or no. Then explain.", ["Answer yes or no.", "Then explain."]),
        ("Choose A or B. Explain it.", ["Choose A or B.", "Explain it."]),
        ("The answer is 42. Stop there.", ["The answer is 42.", "Stop there."]),
        ('Say "Stop." Then go on.', ['Say "Stop."', "Then go on."]),
        ("Wait… Now answer.", ["Wait…", "Now answer."]),
        ("1. Read. 2. Think. 3. Answer.", ["1. Read.", "2. Think.", "3. Answer."]),
        ("读题。只回答字母。", ["读题。", "只回答字母。"]),
    ],
)
def test_what_is_an_end_splits(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_list_items_stay_whole_with_their_continuation_lines() -> None:
    text = "Do this:\n1. Read the text. Twice.\n   Then rest.\n2) Think\n- Write\n* Check\n(a) Stop"
    assert units(text) == [
        "Do this:",
        "1. Read the text. Twice.\n   Then rest.",
        "2) Think",
        "- Write",
        "* Check",
        "(a) Stop",
    ]


def test_lines_and_paragraphs_are_units_but_wrapped_lines_go_on() -> None:
    text = "You are a helper that\nanswers questions.\nBe brief\n\nno jokes"
    assert units(text) == ["You are a helper that\nanswers questions.", "Be brief", "no jokes"]


def test_too_many_units_are_merged_into_as_many_as_allowed_and_evenly() -> None:
    text = "One. Two. Three. Four. This is the longest sentence of them all. Five."
    assert units(text, 3) == ["One. Two. Three. Four.", "This is the longest sentence of them all.", "Five."]
    assert units(text, 1) == [text]


texts = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["Read it.", "1. ", "- ", "e.g. ", "\n", "\n\n", " ", '"', "(", "…", "No! ", "a", "。", "\t"]
        ),
        max_size=40,
    ).map("".join),
)


def sound(segments: tuple[Segment, ...], text: str, limit: int) -> bool:
    ends = [0, *(found.end for found in segments)]
    return (
        len(segments) <= limit
        and all(found.text == text[found.start : found.end] and found.text.strip() for found in segments)
        and all(end <= found.start for end, found in zip(ends, segments, strict=False))
    )


@given(texts, st.integers(1, 6))
def test_segments_are_ordered_apart_and_cover_all_but_white_space(text: str, limit: int) -> None:
    segments = rule_segments(text, limit)
    assert sound(segments, text, limit)
    rest = text
    for found in reversed(segments):
        rest = rest[: found.start] + rest[found.end :]
    assert not rest.strip()


def wrapped(text: str, segments: tuple[Segment, ...]) -> str:
    for found in reversed(segments):
        text = f"{text[: found.start]}<mask>{found.text}</mask>{text[found.end :]}"
    return f"Sure.\n<prompt>\n{text}\n</prompt>\n"


@pytest.mark.slow
@given(texts.filter(lambda text: text.strip() and "<" not in text), st.integers(1, 6))
def test_a_faithful_segmentation_round_trips(text: str, limit: int) -> None:
    segments = rule_segments(text, limit)
    assert parse_masked(wrapped(text, segments), text, limit) == segments


pieces = st.lists(
    st.sampled_from(["<mask>", "</mask>", "<prompt>", "</prompt>", "</think>", "A. ", "B.", " ", "\n", "C"]),
    max_size=14,
)


@given(pieces)
def test_whatever_a_model_answers_only_sound_segments_come_back(reply: list[str]) -> None:
    segments = parse_masked("".join(reply), "A. B. C", 2)
    assert segments is None or (segments and sound(segments, "A. B. C", 2))


TEXT = "Read it. Think. Answer."
MASK = "[MASK]"


def test_white_space_around_and_inside_the_marks_is_left_out() -> None:
    marked = "<prompt>\n\n<mask>Read it. </mask>Think.<mask> Answer.</mask>\n</prompt>"
    reply = f"<think><prompt>no</prompt></think>Here: {marked}"
    assert parse_masked(reply, f"  {TEXT}\n", 5) == (Segment(2, 10, "Read it."), Segment(18, 25, "Answer."))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "<mask>Read it.</mask> Think. Answer.",
        "<prompt><mask>Read it.</mask> Think. Answer.",
        f"<prompt>{TEXT}</prompt>",
        "<prompt><mask>Read it.</mask> Think. Reply.</prompt>",
        "<prompt><mask>Read it.</mask>  Think. Answer.</prompt>",
        "<prompt><mask>Read <mask>it.</mask></mask> Think. Answer.</prompt>",
        "<prompt><mask>Read it. Think. Answer.</prompt>",
        "<prompt>Read it.</mask> Think. <mask>Answer.</mask></prompt>",
        "<prompt><mask>Read it.</mask><mask> </mask>Think. Answer.</prompt>",
        '<prompt><mask id="1">Read it.</mask> Think. Answer.</prompt>',
        "<prompt><mask>Read it.</mask> <mask>Think.</mask> <mask>Answer.</mask></prompt>",
    ],
    ids=[
        "empty",
        "no prompt tags",
        "cut off",
        "no marks",
        "changed word",
        "changed space",
        "nested",
        "not closed",
        "closed before opened",
        "blank part",
        "unknown tag",
        "too many",
    ],
)
def test_an_unsound_answer_gives_nothing(reply: str) -> None:
    assert parse_masked(reply, TEXT, 2) is None


@pytest.mark.parametrize("text", ["Fill in the <mask>. Answer.", "Write <prompt> first. Answer."])
def test_an_instruction_that_holds_our_tags_is_not_segmented_by_a_model(text: str) -> None:
    assert parse_masked(f"<prompt>{text[:-7]}<mask>Answer.</mask></prompt>", text, 5) is None


def test_the_request_shows_the_instruction_and_the_limit() -> None:
    request = mask_prompt(TEXT, 4)
    assert TEXT in request
    assert "at most 4 parts" in request
    assert "<mask>" in request
    assert "<prompt>" in request


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        ("Read it. Think. Answer.", "Think.", "Read it. Answer."),
        ("Read it. Think. Answer.", "Read it.", "Think. Answer."),
        ("Read it. Think. Answer.", "Answer.", "Read it. Think."),
        ("Read it.\n\nThink.\n\nAnswer.", "Think.", "Read it.\n\nAnswer."),
        ("Do:\n1. Read\n2. Think\n3. Answer", "2. Think", "Do:\n1. Read\n3. Answer"),
        ("Do:\n  - Read\n  - Think\n\nAnswer.", "- Think", "Do:\n  - Read\n\nAnswer."),
        ("Do:\n  Read. Think.", "Read.", "Do:\n  Think."),
        ("Answer briefly, in French, please.", " in French,", "Answer briefly, please."),
        ("Answer in French, please.", "in French", "Answer, please."),
        ("Only this.", "Only this.", ""),
        ("  Only this.\n", "Only this.", ""),
    ],
)
def test_dropping_a_segment_tidies_the_seam(text: str, part: str, expected: str) -> None:
    assert without(text, segment(text, part), mode="drop", mask_token=MASK) == expected


def test_the_mask_token_takes_the_place_of_the_segment() -> None:
    assert without(TEXT, segment(TEXT, "Think."), mode="token", mask_token=MASK) == "Read it. [MASK] Answer."


def test_a_segment_of_another_text_is_refused() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        without("Something else.", segment(TEXT, "Think."), mode="drop", mask_token=MASK)


@given(texts.filter(str.strip))
def test_dropping_never_joins_nor_alters_what_stays(text: str) -> None:
    for found in rule_segments(text):
        left = without(text, found, mode="drop", mask_token=MASK)
        assert "".join(left.split()) == "".join((text[: found.start] + text[found.end :]).split())
        before, after = text[: found.start].split(), text[found.end :].split()
        spaced = text[found.start - 1 : found.start].isspace() or text[found.end : found.end + 1].isspace()
        if before and after and spaced and after[0][0] not in ",.;:!?)":
            assert left.split() == before + after
