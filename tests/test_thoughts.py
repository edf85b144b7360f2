"""Thoughts in replies: in every notation, opened by the prompt, never closed, or only mentioned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.thoughts import Parts, behind_thoughts, parts

NOTATIONS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<Thought>", "</Thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ('<THINK lang="en" depth="3">', "</THINK >"),
    ("< think >", "</ think >"),
    ("<seed:think>", "</seed:think>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("[THINK]", "[/THINK]"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|think|>", "<|/think|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),
    ("<|channel>thought\n", "<channel|>"),
]
TAGS = [tag for pair in NOTATIONS for tag in pair]


@pytest.mark.parametrize(("opening", "closing"), NOTATIONS)
def test_every_notation(opening: str, closing: str) -> None:
    thought = "Maybe 5. The answer is 5, and `5` it is.\n\n\n5"
    assert behind_thoughts(f"{opening}{thought}{closing}18") == "18"
    assert behind_thoughts(f"{opening}{thought}") is None
    assert behind_thoughts(f"{thought}{closing}18") == "18", "the prompt opened the thought"
    assert behind_thoughts(f"{opening}{opening} a {closing} b {closing}18") == "18"
    assert behind_thoughts(f"{opening}{closing}18") == "18"


@pytest.mark.parametrize(
    ("reply", "behind"),
    [
        ("18", "18"),
        ("<think>5</think>6<think>7</think>18", "18"),
        ("<think>5</think>18<think>No", None),
        ("<think>5</thinking>18", "18"),
        ("<|channel|>commentary<|message|>5<|end|><|channel|>final<|message|>18<|return|>", "18"),
        ("<|channel|>final <|constrain|>json<|message|>18<|return|>", "18"),
        ("analysis5 jarsassistantcommentary6 jarsassistantfinal18", "18"),
        ("final18", "18"),
        ("Here is my thought process:\nIt is 5.\n\nHere is my response:18", "18"),
        ("```\n<think>5</think>\n18\n```", "\n18\n```"),
        ("<answer><think>5</think>18</answer>", "18</answer>"),
        ("<think>```py\n5\n</think>18", "18"),
        ("<think>He said '5'</think>'18'", "'18'"),
        ("<think>I'd close with `</think>`, so 5</think>18", "18"),
    ],
)  # fmt: skip
def test_what_stands_behind_the_last_closed_thought_counts(reply: str, behind: str | None) -> None:
    assert behind_thoughts(reply) == behind


@pytest.mark.parametrize(
    "reply",
    [
        "Write `<think>` first. 18",
        "Write `<think>...</think>` first. 18",
        "Put it between <think> and </think>. 18",
        "Put it into <think>...</think>. 18",
        "Leave out the <reasoning> tag. 18",
        "The “</think>” is missing. 18",
        "18\n```xml\n<reasoning>\nBecause.\n</reasoning>\n```\n",
        "<answer>Use <think>, not </think>.</answer>",
        "<prompt>Reason within <think></think>, then answer.</prompt>",
        "Analysis: 18",
        "analysis of the jars: 18",
        "final answer: 18",
        "finally, 18",
        "Here is my thought process: 9 + 9 = 18",
        "I think [thinking] 18 <thinker>",
        "He was lost in thought. Reasoning: 18",
    ],
)
def test_a_tag_that_is_only_mentioned_is_text(reply: str) -> None:
    assert behind_thoughts(reply) == reply


def test_the_part_before_the_first_thought() -> None:
    assert parts("18 <think>5</think> so <think>6</think>7") == Parts("18 ", "7")
    assert parts("5</think>6<think>7</think>18") == Parts("", "18")
    assert parts("18 <think>5") == Parts("18 ", None)
    assert parts("18") == Parts("", "18")


@given(
    st.lists(
        st.sampled_from([*TAGS, "5", "\n```\n", "<answer>", "</answer>", "`", " "])
    )
)  # fmt: skip
def test_what_is_behind_is_the_end_of_the_reply(pieces: list[str]) -> None:
    reply = "".join(pieces)
    found = parts(reply)
    assert found.behind is None or found.behind in reply
    assert reply.startswith(found.before)


@pytest.mark.parametrize(
    "piece",
    [
        *TAGS,
        "<think ",
        "<",
        "◁",
        "\n```",
        "<answer>",
        "<answer></answer>",
        "`<think>`",
        "a_",
        "<a_",
        "<think> and ",
    ],
)
def test_long_replies_come_to_an_end(piece: str) -> None:
    parts(piece * (100_000 // len(piece)))
