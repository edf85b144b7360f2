"""Options listed in an input, and the wrong ones among them."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.tasks.options import condensed, letter_of, parse_options, wrong_options

_WORDS = st.text(alphabet="abcdefgh ,.'", min_size=1, max_size=20).map(str.strip).filter(bool)
_LISTS = st.lists(_WORDS, min_size=2, max_size=20, unique_by=condensed)
_QUESTIONS = st.text(alphabet="abc ?\n(A)-", max_size=40)


def _lettered(texts: list[str]) -> str:
    return "\n".join(f"({letter}) {text}" for letter, text in zip(ascii_uppercase, texts, strict=False))


@given(question=_QUESTIONS, texts=_LISTS)
def test_lettered_options_are_read_back(question: str, texts: list[str]) -> None:
    options = parse_options(f"{question}\nOptions:\n{_lettered(texts)}")
    assert options is not None
    assert options.texts == tuple(texts)
    assert options.letters == tuple(ascii_uppercase[: len(texts)])


@given(question=_QUESTIONS, texts=_LISTS)
def test_bulleted_options_are_read_back_without_trailing_blanks(question: str, texts: list[str]) -> None:
    options = parse_options(f"{question}\nOptions:\n" + "\n".join(f"- {text} " for text in texts))
    assert options is not None
    assert options.texts == tuple(texts)
    assert options.letters == ()


@given(texts=_LISTS, index=st.integers(min_value=0, max_value=19))
def test_a_letter_target_gets_all_other_letters(texts: list[str], index: int) -> None:
    letter = ascii_uppercase[index % len(texts)]
    wrong = wrong_options(f"Which?\nOptions:\n{_lettered(texts)}", f"({letter})", ())
    assert {f"({letter})", *wrong} == {f"({other})" for other in ascii_uppercase[: len(texts)]}
    assert f"({letter})" not in wrong


@given(texts=_LISTS, index=st.integers(min_value=0, max_value=19), bulleted=st.booleans())
def test_a_text_target_gets_all_other_texts(texts: list[str], index: int, bulleted: bool) -> None:
    target = texts[index % len(texts)]
    listed = "\n".join(f"- {text}" for text in texts) if bulleted else _lettered(texts)
    assert set(wrong_options(f"Which?\nOptions:\n{listed}", target, ())) == set(texts) - {target}


def test_text_after_the_list_is_no_option() -> None:
    options = parse_options("Options: of old\nWhich?\nOptions:\n(A) one\n(B) two\nAnswer with a letter.")
    assert options is not None
    assert options.texts == ("one", "two")


def test_an_input_without_a_list_has_no_options() -> None:
    assert parse_options("Is (A) right?\n- Yes") is None
    assert parse_options("Options:\nnone of these") is None


def test_a_letter_is_recognised_in_its_usual_forms_only() -> None:
    assert [letter_of(target) for target in ("(B)", "B", "B.", "B)")] == ["B"] * 4
    assert [letter_of(target) for target in ("Bo", "(b)", "", "(A) one")] == [None] * 4


def test_the_right_option_under_another_letter_is_not_wrong() -> None:
    text = "Which?\nOptions:\n(A) one\n(B) two\n(C) One "
    assert wrong_options(text, "(A)", ("A", "B", "C")) == ("(B)",)


def test_where_only_one_option_is_listed_the_other_letters_of_the_task_stand_in() -> None:
    assert wrong_options("Which?\nOptions:\n(A) one", "(A)", ("A", "B")) == ("(B)",)


def test_options_cut_at_their_commas_are_joined_again() -> None:
    text = "Which is a joke?\nOptions:\n(A) earth\n(B) bind\n(C) & fire\n(D) dearth\n(E) wind\n(F) & fire"
    assert wrong_options(text, "dearth, wind, & fire", ("A",)) == ("earth, bind, & fire",)


def test_pieces_unlike_the_target_stand_for_themselves() -> None:
    text = "Which is alike?\nOptions:\n(A) Monsters\n(B) Inc\n(C) Children of the Night\n(D) Town & Country"
    assert wrong_options(text, "Monsters, Inc", ("A",)) == ("Children of the Night", "Town & Country")


@pytest.mark.parametrize(
    "heading",
    [
        "Choices:",
        "Answer choices:",
        "Answer Choices",
        "OPTIONS",
        "**Options:**",
        "### Options",
        "Options (choose one):",
        "Possible answers:",
        "Alternatives :",
        "Here are the choices\uff1a",
        "",
    ],
)
@pytest.mark.parametrize("style", ["({}) ", "{}) ", "{}. "])
@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_a_list_is_seen_under_every_usual_heading_and_without_one(heading: str, style: str, gap: str) -> None:
    listed = gap.join(
        style.format(letter) + text for letter, text in zip("ABC", ("one", "two", "three"), strict=True)
    )
    for end in ("", "\n\nAnswer:", "\nAnswer with a letter alone."):
        options = parse_options(f"Which is it?\n{heading}\n{listed}{end}")
        assert options is not None
        assert (options.letters, options.texts) == (("A", "B", "C"), ("one", "two", "three"))


@pytest.mark.parametrize("marks", ["123", "abc"])
@pytest.mark.parametrize("heading", ["", "Choices:\n"])
def test_options_behind_numbers_are_known_by_their_texts(marks: str, heading: str) -> None:
    listed = "\n".join(f"{mark}. {text}" for mark, text in zip(marks, ("x", "y", "z"), strict=True))
    options = parse_options(f"Which is it?\n{heading}{listed}")
    assert options is not None
    assert (options.letters, options.texts) == ((), ("x", "y", "z"))
    assert options.hold("y")
    assert wrong_options(f"Which is it?\n{heading}{listed}", "y", ()) == ("x", "z")


@pytest.mark.parametrize(
    "text",
    [
        "A. Smith wrote this.",
        "A. one\nC. three",
        "B. two\nC. three",
        "A: Hello.\nB: Hi.",
        "See A. one\nand B. two",
        "A. one\nB. two\n\nThe first is true.\nThe second is not.\nWhy?",
        "- one\n- two",
        "A. one\nB. two\n" + "long " * 60,
        "1. Mix it.\n2. Bake it.\nThen let it cool.\nHow long does it take?",
        "1. one\n2. two\nWhich are true? (A) both (B) none",
        "A.\nB.\nC.",
        "Her choices: to stay or to go.\nWhich is it?",
        "A) one\nB. two",
    ],
)
def test_an_ordinary_list_is_no_list_of_options(text: str) -> None:
    assert parse_options(text) is None


def test_a_later_heading_without_a_list_hides_none() -> None:
    options = parse_options("Options:\n(A) one\n(B) two\nWrite your choices: one letter.")
    assert options is not None
    assert options.letters == ("A", "B")


def test_an_option_may_have_several_lines() -> None:
    options = parse_options("Options:\n(A) x = 1\ny = 2\n\n(B) x = 2\n(C) none")
    assert options is not None
    assert options.texts == ("x = 1\ny = 2", "x = 2", "none")


def test_options_may_stand_on_one_line() -> None:
    for line in ("(A) one, (B) two (C) three", "A) one; B) two C) three", "A. one B. two, C. three"):
        options = parse_options(f"Which? Options: {line}\nAnswer:")
        assert options is not None
        assert (options.letters, options.texts) == (("A", "B", "C"), ("one", "two", "three"))


@given(text=st.text(alphabet="ABC()12.:-ab \nOptions", max_size=60))
def test_any_text_has_options_or_none(text: str) -> None:
    options = parse_options(text)
    assert options is None or (options.texts and len(options.letters) in (0, len(options.texts)))
