"""Untrusted texts: one set of characters that are neither shown nor adopted, one way to shorten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.text import error_line, excerpt, in_line, is_hidden, shortened, shortened_name, visible

HIDDEN = "\x00\x07\x1b\x7f\x85\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u202e\u2066\ufeff\ud800\U000e0041"


@pytest.mark.parametrize("character", HIDDEN)
def test_hidden_characters(character: str) -> None:
    assert is_hidden(character)
    assert visible(f"a{character}b").isascii()


@pytest.mark.parametrize("character", "\n\t\u200c\u200dé答 ")
def test_what_readers_see_or_scripts_need_is_not_hidden(character: str) -> None:
    assert not is_hidden(character)


@given(st.text(st.characters()))
def test_visible_texts_hold_nothing_hidden(text: str) -> None:
    assert not any(map(is_hidden, visible(text)))
    assert "\n" not in in_line(text)


@given(st.text(min_size=1), st.integers(4, 40), st.floats(0, 0.7))
def test_shortened_texts_fit_and_keep_beginning_and_end(text: str, width: int, tail: float) -> None:
    short = shortened(text, width, tail)
    assert len(short) == min(len(text), width)
    assert short[0] == text[0]
    kept = int(width * tail)
    assert kept == 0 or short[-min(kept, len(text)) :] == text[-min(kept, len(text)) :]


def test_a_name_keeps_its_end_and_an_excerpt_its_beginning() -> None:
    assert shortened_name("bbh/logical_deduction_five_objects", 12) == "bbh…_objects"
    assert excerpt("one\ntwo  three four", 10) == "one two t…"
    assert excerpt("x" * 1000, 10) == "xxxxxxxxx…"


def test_an_error_is_one_line() -> None:
    assert error_line(ValueError("two\n lines")) == "two lines"
    assert error_line(KeyError()) == "KeyError"
    assert error_line("x" * 400, 10) == "xxxxxxxxx…"
