"""Negatives: never empty, never the target, never another right answer, and the same for the same seed."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.bbh import DESCRIPTIONS
from pmpo_ray.tasks.corruptions import (
    answer_key,
    changed_brackets,
    changed_numbers,
    final_answer,
    form_of,
    meaning_key,
)
from pmpo_ray.tasks.negatives import (
    HARD_NEGATIVES,
    hard_negatives,
    negatives_of,
    task_answers,
    with_hard_negatives,
)
from pmpo_ray.tasks.rows import Row
from pmpo_ray.types import Example, Task

_CLOSERS = {"(": ")", "[": "]", "{": "}", "<": ">"}


def _closes(opening: str, rest: str) -> bool:
    """Check if the whole sequence is balanced."""
    open_brackets: list[str] = []
    for bracket in (opening + rest).replace(" ", ""):
        if bracket in _CLOSERS:
            open_brackets.append(_CLOSERS[bracket])
        elif not open_brackets or open_brackets.pop() != bracket:
            return False
    return not open_brackets


def _loaded(name: str, folder: Path, seed: int = 0) -> Task:
    """A task with hard negatives for all examples that are free text."""
    task = load_task(TaskConfig(name=name), str(folder), seed)
    return replace(
        task,
        examples=with_hard_negatives(task, task.examples, seed),
        test_examples=with_hard_negatives(task, task.test_examples, seed),
    )


def _hard(target: str, *others: str, text: str = "x") -> tuple[str, ...]:
    """The hard negatives of a target in a task that has these other targets."""
    answers = task_answers([target, *others])
    return hard_negatives(Example("1", text, target), answers, Random(0))


def _is_right(subtask: str, example: Example, answer: str) -> bool:
    """An independent judgement, from the input alone where the subtask can be computed."""
    if subtask == "dyck_languages":
        return _closes(example.input.partition("Input:")[2], answer)
    if subtask == "multistep_arithmetic_two":
        assert re.fullmatch(r"[-+*() 0-9]+=", example.input)
        return int(eval(example.input.rstrip("= "))) == int(answer)  # noqa: S307 - digits and signs alone
    if subtask == "boolean_expressions":
        words = example.input.removesuffix(" is")
        assert set(re.findall(r"\w+", words)) <= {"True", "False", "and", "or", "not"}
        return str(eval(words)) == answer  # noqa: S307 - constants and connectives alone
    if subtask == "word_sorting":
        return answer.split() == sorted(example.input.partition("List:")[2].split())
    return answer == example.target


def _has_form(subtask: str, example: Example, answer: str) -> bool:
    if subtask == "dyck_languages":
        return re.fullmatch(r"[])}>]( [])}>])*", answer) is not None
    if subtask in ("multistep_arithmetic_two", "object_counting"):
        return re.fullmatch("-?[0-9]+", answer) is not None
    if re.fullmatch(r"\([A-Z]\)", example.target):
        one_option = example.input.endswith("(A) The NB")
        return re.fullmatch(r"\([A-Z]\)", answer) is not None and (
            one_option or f"\n{answer} " in example.input
        )
    if example.target.lower() in ("yes", "no", "true", "false", "valid", "invalid"):
        return answer in {"Yes", "No", "yes", "no", "True", "False", "valid", "invalid"} and (
            answer.istitle() == example.target.istitle()
        )
    return not re.fullmatch(r"\(?[A-Z]\)?", answer)


@pytest.mark.parametrize("subtask", sorted(DESCRIPTIONS))
def test_every_bbh_row_has_sound_negatives(subtask: str, data_dir: Path) -> None:
    task = _loaded(f"bbh/{subtask}", data_dir)
    assert len(task.examples) in (146, 178, 187, 250)
    for example in task.examples:
        assert example.negatives, example
        assert _is_right(subtask, example, example.target), example
        assert len({answer_key(n) for n in (example.target, *example.negatives)}) == 1 + len(
            example.negatives
        )
        for negative in example.negatives:
            assert negative.strip(), example
            assert not _is_right(subtask, example, negative), (example, negative)
            assert _has_form(subtask, example, negative), (example, negative)


def test_free_text_gets_four_negatives_on_every_bbh_row(data_dir: Path) -> None:
    for subtask in ("dyck_languages", "multistep_arithmetic_two", "object_counting", "word_sorting"):
        task = _loaded(f"bbh/{subtask}", data_dir, seed=3)
        assert {len(example.negatives) for example in task.examples} == {HARD_NEGATIVES}


def test_a_sorting_negative_is_often_the_same_words_in_a_wrong_order(data_dir: Path) -> None:
    task = _loaded("bbh/word_sorting", data_dir)
    for example in task.examples:
        words = sorted(example.target.split())
        assert any(sorted(negative.split()) == words for negative in example.negatives), example


def test_the_bbh_rows_whose_options_were_cut_at_commas_get_whole_titles(data_dir: Path) -> None:
    by_target = {
        example.target: example.negatives
        for subtask in ("movie_recommendation", "ruin_names")
        for example in load_task(TaskConfig(name=f"bbh/{subtask}"), str(data_dir), seed=0).examples
    }
    assert by_target["Monsters, Inc"] == (
        "Children of the Night",
        "The Incredible Shrinking Man",
        "Town & Country",
    )
    assert by_target["dearth, wind, & fire"] == (
        "eareth, wind, & fire",
        "earth, bind, & fire",
        "earthm wind, & fire",
    )
    assert "rita, sue and box too" in by_target["rita, sue and bob poo"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gsm8k", "aqua"])
def test_no_negative_of_a_worked_solution_comes_to_the_right_result(name: str, data_dir: Path) -> None:
    task = _loaded(name, data_dir)
    for example in (*task.examples, *task.test_examples):
        right = final_answer(example.target)
        assert right is not None
        assert len(example.negatives) == HARD_NEGATIVES
        assert all(final_answer(negative) not in (None, right) for negative in example.negatives), example


def test_negatives_depend_on_the_seed_but_not_on_the_order_of_the_rows(tmp_path: Path) -> None:
    lines = [f'{{"input": "question {n}", "target": "the answer has {n} parts"}}\n' for n in range(30)]
    (tmp_path / "ahead.jsonl").write_text("".join(lines))
    (tmp_path / "back.jsonl").write_text("".join(reversed(lines)))

    def negatives(file: str, seed: int) -> dict[str, tuple[str, ...]]:
        task = load_task(TaskConfig(name="own", path=str(tmp_path / file)), None, seed)
        examples = with_hard_negatives(task, task.examples, seed)
        assert examples[3:5] == with_hard_negatives(task, task.examples[3:5], seed)
        return {example.id: example.negatives for example in examples}

    assert negatives("ahead.jsonl", 1) == negatives("back.jsonl", 1)
    assert negatives("ahead.jsonl", 1) != negatives("ahead.jsonl", 2)


@given(
    targets=st.lists(
        st.text(alphabet="ab1.5 ,()[]\n#", min_size=1, max_size=12).map(str.strip).filter(bool), min_size=1
    ),
    seed=st.integers(min_value=0, max_value=99),
)
def test_hard_negatives_are_distinct_answers_for_any_texts(targets: list[str], seed: int) -> None:
    answers = task_answers(targets)
    for target in targets:
        example = Example("1", "x", target, also_right=("a1", "b"))
        found = hard_negatives(example, answers, Random(seed))
        assert found == hard_negatives(example, answers, Random(seed))
        assert not {answer_key("a1"), answer_key("b")} & {answer_key(text) for text in found}
        keys = [answer_key(text) for text in (target, *found)]
        assert len(found) <= HARD_NEGATIVES
        assert len(set(keys)) == len(keys)
        assert all(text.strip() for text in found)


@given(
    value=st.integers(min_value=-(10**9), max_value=10**9),
    places=st.integers(min_value=0, max_value=3),
    commas=st.booleans(),
    currency=st.booleans(),
)
def test_a_changed_number_differs_in_value_and_keeps_its_writing(
    value: int, places: int, commas: bool, currency: bool
) -> None:
    digits = str(abs(value)).rjust(places + 1, "0")
    whole = f"{int(digits[: len(digits) - places]):{',' if commas else ''}}"
    number = ("-" if value < 0 else "") + ("$" if currency else "") + whole
    number += f".{digits[len(digits) - places :]}" if places else ""
    changed = changed_numbers(number, Random(0))
    assert len(changed) >= HARD_NEGATIVES
    for other in changed:
        assert form_of(other) == "number"
        assert answer_key(other) != answer_key(number)
        assert other.partition(".")[2].isdigit() == bool(places)
        assert len(other.partition(".")[2]) == places
        assert ("$" in other) == currency
        assert value < 0 or Fraction(re.sub(r"[$,]", "", other)) >= 0


@given(opening=st.text(alphabet="([{<", min_size=1, max_size=12), spaced=st.booleans())
def test_a_changed_closing_sequence_never_closes(opening: str, spaced: bool) -> None:
    right = (" " if spaced else "").join(_CLOSERS[bracket] for bracket in reversed(opening))
    changed = changed_brackets(right, Random(0))
    assert changed
    assert _closes(opening, right)
    assert not any(_closes(opening, other) for other in changed)


def test_answers_are_compared_as_numbers_and_without_spaces_and_case() -> None:
    assert answer_key("1,080") == answer_key("1080.0")
    assert answer_key(") ]") == answer_key(")]")
    assert answer_key("Yes ") == answer_key("yes")
    assert answer_key("$5") != answer_key("5%")
    assert answer_key("-3") != answer_key("3")


@pytest.mark.parametrize(
    ("target", "other"), [("True", "False"), ("no", "yes"), ("Valid", "Invalid"), ("NO", "YES")]
)
def test_a_truth_value_on_its_own_gets_its_opposite_in_the_same_case(target: str, other: str) -> None:
    assert _hard(target) == (other,)


def test_labels_get_the_other_labels_in_the_order_of_the_set() -> None:
    answers = task_answers([], ("low", "mid", "high"))
    assert negatives_of(Row("x", "mid", "here"), "labels", answers) == ("low", "high")
    with pytest.raises(DataError, match=r"^here: target 'top' is none of the labels low, mid, high;"):
        negatives_of(Row("x", "top", "here"), "labels", answers)


def test_a_pair_keeps_its_own_negatives_and_needs_one() -> None:
    answers = task_answers([])
    row = Row("x", "good", "here", negatives=("bad", "Good ", "bad", "worse"))
    assert negatives_of(row, "pairs", answers) == ("bad", "worse")
    with pytest.raises(DataError, match=r"^data line 7: no negative that differs"):
        negatives_of(Row("x", "good", "data line 7", negatives=("GOOD",)), "pairs", answers)


@pytest.mark.parametrize(
    ("target", "same"),
    [
        ("dogs and cats", "cats and dogs"),
        ("red, green, blue", "blue, red and green"),
        ("tea or coffee", "coffee or tea"),
        ("3 + 4", "4 + 3"),
        ("the sum is 1,000", "the sum is 1,000"),
        ("0.5", "0.50"),
    ],
)
def test_an_answer_that_may_mean_the_same_is_no_negative(target: str, same: str) -> None:
    found = _hard(target, same, "a bird in a tree", "12")
    assert same not in found
    assert meaning_key(target) not in map(meaning_key, found)


def test_words_change_places_only_where_their_order_is_the_answer() -> None:
    target = "ant bee cow"
    asked = _hard(target, text="Sort the words: List: cow ant bee")
    assert asked
    assert all(sorted(other.split()) == target.split() for other in asked)
    assert _hard(target, text="What is in the picture: cow ant bee") == ()
    assert _hard("the answer is plain") == ()


def test_other_right_answers_are_no_negatives() -> None:
    example = Example("1", "x", "Paris", also_right=("Lyon",))
    found = hard_negatives(example, task_answers(["Paris", "Lyon", "lyon ", "Rome", "Oslo"]), Random(0))
    assert sorted(found) == ["Oslo", "Rome"]


def test_examples_with_negatives_keep_them() -> None:
    task = Task("t", "text", "", "x", (Example("1", "a", "b", ("c",)), Example("2", "d", "e")))
    assert [example.negatives for example in with_hard_negatives(task, task.examples, 0)] == [("c",), ("b",)]
