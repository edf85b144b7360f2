"""Keys by which inputs and labels count as the same, and how such texts are shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.tasks.keys import input_key, label_key, quoted_apart


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("plainte", "Plainte"),
        ("ham", "ham."),
        ("ham", "ham\u200b"),
        ("ham", "\ufeffham"),
        ("ham", "h\u00adam"),
        ("ham", "ham\ufe0f"),
        ("réponse", unicodedata.normalize("NFD", "réponse")),
        ("bug report", "bug\u00a0report"),
        ("bug report", " Bug  report. "),
        ("yes", "ｙｅｓ"),
        ("はい", "はい。"),
        ("straße", "STRASSE"),
        ("iade", "\u0130ADE"),
    ],
)
def test_spellings_of_one_label_have_one_key(one: str, other: str) -> None:
    assert label_key(one) == label_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "01"), ("1", "001"), ("1", "1.0"), ("bug", "bug report"), (".", ".."), ("-1", "1"), ("C", "C++")],
)
def test_other_labels_have_other_keys(one: str, other: str) -> None:
    assert label_key(one) != label_key(other)


@given(st.text(max_size=30))
def test_invisible_characters_never_count(text: str) -> None:
    assert label_key("\u200b".join(text)) == label_key(f"\ufeff{text}\u00ad") == label_key(text)


def test_inputs_are_compared_without_white_space_and_case() -> None:
    assert input_key("Where is\n my  parcel?") == input_key("where is my parcel? ")
    assert input_key("ham") != input_key("ham.")


def test_code_points_are_shown_where_the_difference_cannot_be_seen() -> None:
    assert quoted_apart("ham\u200b", "ham") == "'ham' (with U+200B)"
    assert quoted_apart("ham", "ham\u200b") == "'ham'"
    assert quoted_apart("re\u0301ponse", "réponse") == "'re\u0301ponse' (with U+0065 U+0301)"
    assert quoted_apart("réponse", "re\u0301ponse") == "'réponse' (with U+00E9)"
    assert quoted_apart("a\u00a0b", "a b") == "'a b' (with U+00A0)"
    assert quoted_apart("Ham.", "ham") == "'Ham.'"
