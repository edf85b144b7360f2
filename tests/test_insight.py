"""What a task's history shows at a closer look."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.history import load_history
from pmpo_ray.insight import Piece, analysed, hard_examples, word_diff
from tests.runs import write_run

TEXTS = st.text(st.sampled_from("ab .\n,é\u202e"), max_size=30)


@given(TEXTS, TEXTS)
def test_a_difference_gives_both_texts_back(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert "".join(piece.text for piece in pieces if piece.kind != "inserted") == before
    assert "".join(piece.text for piece in pieces if piece.kind != "deleted") == after
    assert all(piece.text for piece in pieces)


def test_a_difference_is_in_whole_words() -> None:
    assert word_diff("Answer with care.", "Answer with caution.") == (
        Piece("same", "Answer with "),
        Piece("deleted", "care"),
        Piece("inserted", "caution"),
        Piece("same", "."),
    )


def test_a_phrase_in_place_of_another_is_one_change() -> None:
    assert word_diff("Say with the label only.", "Say account access only.") == (
        Piece("same", "Say "),
        Piece("deleted", "with the label"),
        Piece("inserted", "account access"),
        Piece("same", " only."),
    )


def test_equal_texts_have_no_difference() -> None:
    assert word_diff("the same", "the same") == (Piece("same", "the same"),)
    assert word_diff("", "") == ()


def test_long_texts_are_compared_whole() -> None:
    before = " ".join(f"word{n}" for n in range(3000))
    pieces = word_diff(before, before.replace("word1500", "other"))
    assert [piece.text for piece in pieces if piece.kind != "same"] == ["word1500", "other"]


def test_the_hardest_examples_are_those_of_now_and_of_then(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    task = load_history(str(tmp_path / "run")).task()
    found = hard_examples(task, 4)
    losses = [hard.loss_after for hard in found]
    assert len(found) == 4
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == max(task.best.losses)
    assert max(hard.loss_before for hard in found) == max(task.start.losses)
    assert len(hard_examples(task, 1000)) == len(task.examples)


@pytest.mark.parametrize("masking", ["rules", "off"])
def test_parts_are_those_of_the_best_or_of_its_nearest_ancestor(tmp_path: Path, masking: str) -> None:
    write_run(tmp_path / "run", search={"rounds": 3, "masking": masking})
    task = load_history(str(tmp_path / "run")).task()
    found = analysed(task)
    if masking == "off":
        assert found is None
        return
    assert found is not None
    scored, segments = found
    assert scored.candidate.id in {step.candidate.id for step in task.lineage(task.best_id)}
    assert all(row.segment.text in scored.candidate.text for row in segments)
