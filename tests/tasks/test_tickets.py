"""The built-in ticket data: balanced, free of repeats and of contact data, not solvable by label words."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from pmpo_ray.tasks import tickets

ROWS = tickets.load_rows()
MESSAGES = [message for message, _ in ROWS]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe inside a word belongs to it."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def test_has_at_least_480_rows() -> None:
    assert len(ROWS) >= 480


def test_every_label_is_used_equally_often() -> None:
    counts = Counter(target for _, target in ROWS)
    assert set(counts) == set(tickets.LABELS)
    assert len(set(counts.values())) == 1


def test_rows_come_shuffled_so_that_every_quarter_holds_every_label() -> None:
    quarter = len(ROWS) // 4
    for start in range(0, 4 * quarter, quarter):
        assert {target for _, target in ROWS[start : start + quarter]} == set(tickets.LABELS)


def test_loading_twice_gives_the_same_rows_in_the_same_order() -> None:
    assert tickets.load_rows() == ROWS


def test_no_message_occurs_twice_up_to_case_and_white_space() -> None:
    assert len({" ".join(message.lower().split()) for message in MESSAGES}) == len(MESSAGES)


def test_no_two_messages_share_their_first_four_words() -> None:
    openings = Counter(tuple(words(message)[:4]) for message in MESSAGES)
    assert [opening for opening, count in openings.items() if count > 1] == []


def test_no_two_messages_share_two_fifths_of_their_vocabulary() -> None:
    vocabularies = [frozenset(words(message)) for message in MESSAGES]
    close = [(a, b) for a, b in combinations(vocabularies, 2) if len(a & b) >= 0.4 * len(a | b)]
    assert close == []


def test_messages_have_between_5_and_45_words() -> None:
    assert [message for message in MESSAGES if not 5 <= len(message.split()) <= 45] == []


def test_messages_are_single_trimmed_lines() -> None:
    assert [message for message in MESSAGES if message != message.strip() or "\n" in message] == []


@pytest.mark.parametrize("label", tickets.LABELS)
def test_at_most_a_quarter_of_a_class_names_its_own_label(label: str) -> None:
    messages = [message for message, target in ROWS if target == label]
    naming = [message for message in messages if set(label.split()) & set(words(message))]
    assert len(naming) <= len(messages) / 4


@pytest.mark.parametrize(
    ("pattern", "sample"),
    [
        pytest.param(r"[\w.+-]+@(?!example\.com\b)[\w-]+\.\w+", "write to me@shop.test", id="email address"),
        pytest.param(
            r"https?://(?!example\.com\b)|\bwww\.|\b(?!example\.com\b)[\w-]+\.(?:com|net|org|io|eu)\b",
            "see shop.net for more",
            id="web address",
        ),
        pytest.param(r"\+\d|\d(?:[\s().-]*\d){6,}", "call (555) 010-0199", id="phone number"),
    ],
)
def test_no_message_holds_contact_data(pattern: str, sample: str) -> None:
    assert re.search(pattern, sample, re.IGNORECASE)
    assert [message for message in MESSAGES if re.search(pattern, message, re.IGNORECASE)] == []


def test_start_instruction_is_short_and_names_every_label() -> None:
    assert 35 <= len(tickets.INSTRUCTION.split()) <= 60
    assert [label for label in tickets.LABELS if label not in tickets.INSTRUCTION] == []


def test_description_names_every_label() -> None:
    assert [label for label in tickets.LABELS if label not in tickets.DESCRIPTION] == []
