"""Options listed in an input, and the wrong ones among them."""

from __future__ import annotations

from string import ascii_uppercase

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
