"""What can be told from a task's history."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.display.run_json import task_json
from pmpo_ray.history.run_history import TaskHistory, load_history
from pmpo_ray.history.task_facts import (
    Cost,
    HardExample,
    Piece,
    analysed,
    cost_of,
    hard_examples,
    operator_counts,
    refusal_counts,
    state_of,
    steps,
    word_diff,
)
from pmpo_ray.report.lineage import lineage_tree
from pmpo_ray.report.page import render
from pmpo_ray.store import hold
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    Example,
    ExampleScore,
    Operator,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    Segment,
    SegmentImportance,
)
from tests.run_folders import write_run

WORDS = st.lists(
    st.sampled_from(
        ["Read", "the", "ticket", "twice", ".", "-", "don't", "分類", "é", "\ud800", "\x1b[2J", "a|b"]
    )
)
SPACES = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\u2028", ""])


@st.composite
def texts(draw: st.DrawFn) -> str:
    words = draw(WORDS)
    return draw(SPACES) + "".join(word + draw(SPACES) for word in words)


def joined(pieces: Sequence[Piece], *kinds: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind in kinds)


def shown(pieces: Sequence[Piece]) -> str:
    signs = {"same": "{}", "deleted": "[-{}-]", "inserted": "{{+{}+}}"}
    return "".join(signs[piece.kind].format(piece.text) for piece in pieces)


@given(texts() | st.text(), texts() | st.text())
def test_the_pieces_of_a_diff_join_to_both_texts(before: str, after: str) -> None:
    pieces = word_diff(before, after)
    assert joined(pieces, "same", "deleted") == before
    assert joined(pieces, "same", "inserted") == after
    assert all(piece.text for piece in pieces)
    assert all(one.kind != other.kind for one, other in pairwise(pieces))


@given(texts())
def test_a_text_does_not_differ_from_itself(text: str) -> None:
    assert word_diff(text, text) == ((Piece("same", text),) if text else ())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Read the ticket.", "Read the whole ticket.", "Read the {+whole +}ticket."),
        ("Read the ticket.", "Read the mail.", "Read the [-ticket-]{+mail+}."),
        ("one two four", "one three four", "one [-two-]{+three+} four"),
        ("Answer", "Answer, then stop", "Answer{+, then stop+}"),
        ("first second", "first  second", "first[- -]{+  +}second"),
        ("a b", "b", "[-a -]b"),
        ("请仔细阅读问题", "请阅读问题", "请[-仔细-]阅读问题"),
        ("", "new", "{+new+}"),
        ("old", "", "[-old-]"),
        ("  old", "old", "[-  -]old"),
    ],
)
def test_a_diff_goes_by_words(before: str, after: str, expected: str) -> None:
    assert shown(word_diff(before, after)) == expected


def test_frequent_words_of_long_texts_take_part() -> None:
    before = "the cat and the dog " * 200
    pieces = word_diff(before, before + "and the bird")
    assert joined(pieces, "same") == before


def test_texts_that_repeat_themselves_too_much_are_compared_by_lines() -> None:
    babble = "yes no " * 1500 + "\n"
    pieces = word_diff("Begin.\n" + babble + "Old end.", "Begin.\n" + babble + "New end.")
    assert shown(pieces) == "Begin.\n" + babble + "[-Old end.-]{+New end.+}"


def test_where_lines_repeat_too_much_as_well_texts_are_compared_as_wholes() -> None:
    before, after = "yes\nno\n" * 2500, "no\nyes\n" * 2500
    assert word_diff(before, after) == (Piece("deleted", before), Piece("inserted", after))


def scored(
    name: str, parent: str | None, operator: Operator, loss: float, losses: tuple[float, ...] = ()
) -> ScoredCandidate:
    score = ExampleScore(AnswerScore(-1.0, 1), (), 3)
    candidate = Candidate(name, f"text of {name}", parent, "r0000-0000", operator, int(name[1:5]))
    return ScoredCandidate(candidate, (score,) * len(losses), losses, loss)


def importance(name: str, index: int) -> SegmentImportance:
    return SegmentImportance(name, index, Segment(index * 5, index * 5 + 4, "text"), 0.5 - index)


START = scored("r0000-0000", None, "seed", 2.0, (1.0, 3.0, 2.0, 2.0))
FIRST = scored("r0001-0000", "r0000-0000", "rewrite", 1.5)
SECOND = scored("r0002-0000", "r0001-0000", "rewrite", 1.0, (0.5, 0.7, math.inf, 0.6))
DROPPED = scored("r0001-0001", "r0000-0000", "mask_drop", 2.5)
HISTORY = TaskHistory(
    task="made",
    records=(
        RoundRecord("made", 0, (START,), ("r0000-0000",)),
        RoundRecord(
            "made",
            1,
            (START, FIRST, DROPPED),
            ("r0001-0000",),
            refusals=(
                Refusal("r0001-0002", "", "r0000-0000", "r0000-0000", "rewrite", "empty"),
                Refusal("r0001-0003", "x", "r0000-0000", "r0000-0000", "rewrite", "duplicate"),
                Refusal("r0001-0004", "y", "r0000-0000", "r0000-0000", "rewrite", "duplicate"),
                Refusal("r0001-0005", "z", "r0000-0000", "r0000-0000", "mask_drop", "too long", "failed"),
            ),
            segments=(importance("r0000-0000", 1), importance("r0000-0000", 0)),
        ),
        RoundRecord("made", 2, (FIRST, SECOND), ("r0002-0000",)),
    ),
    best_id="r0002-0000",
    result=None,
    examples=tuple(Example(str(number), f"input {number}", "yes") for number in range(4)),
)


def test_the_way_to_the_best_has_every_change() -> None:
    found = steps(HISTORY, HISTORY.best_id)
    assert [(step.scored.candidate.id, step.change) for step in found] == [
        ("r0000-0000", None),
        ("r0001-0000", -0.5),
        ("r0002-0000", -0.5),
    ]


def test_hard_examples_are_the_hardest_of_before_and_after() -> None:
    examples = HISTORY.examples
    assert hard_examples(HISTORY, 1) == (
        HardExample(examples[2], 2.0, math.inf),
        HardExample(examples[1], 3.0, 0.7),
    )
    assert [hard.example.id for hard in hard_examples(HISTORY, 10)] == ["2", "1", "3", "0"]


def test_there_are_no_hard_examples_where_none_were_kept() -> None:
    assert hard_examples(replace(HISTORY, examples=()), 3) == ()
    assert hard_examples(replace(HISTORY, examples=HISTORY.examples[:2]), 3) == ()


def test_the_nearest_analysed_ancestor_stands_in_for_the_best() -> None:
    found = analysed(HISTORY)
    assert found is not None
    assert found[0] == START
    assert [row.index for row in found[1]] == [0, 1]
    assert analysed(replace(HISTORY, records=HISTORY.records[:1], best_id="r0000-0000")) is None


def test_operators_and_refusals_are_counted() -> None:
    counts = {count.operator: count for count in operator_counts(HISTORY)}
    assert list(counts) == ["seed", "rewrite", "mask_drop"]
    rewrite, dropped = counts["rewrite"], counts["mask_drop"]
    assert (rewrite.scored, rewrite.survived, rewrite.refused, rewrite.failed) == (2, 2, 3, 0)
    assert (dropped.scored, dropped.survived, dropped.refused, dropped.failed) == (1, 0, 0, 1)
    assert refusal_counts(HISTORY) == (("duplicate", 2), ("empty", 1), ("too long", 1))


def test_what_a_budget_did_not_suffice_for_is_told_apart_from_refused_texts() -> None:
    records = tuple(
        replace(record, refusals=tuple(replace(one, reason="token budget") for one in record.refusals))
        for record in HISTORY.records
    )
    counts = {count.operator: count for count in operator_counts(replace(HISTORY, records=records))}
    rewrite, dropped = counts["rewrite"], counts["mask_drop"]
    assert (rewrite.refused, rewrite.failed, rewrite.unpaid) == (0, 0, 3)
    assert (dropped.refused, dropped.failed, dropped.unpaid) == (0, 0, 1)


def test_a_task_is_done_once_it_has_a_result_for_its_last_round(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run")
    done = load_history(str(tmp_path / "run"))
    result = done.task().result
    assert result is not None
    assert done.results == (result,)
    store.write_task_result("tickets", replace(result, rounds=1))
    continued = load_history(str(tmp_path / "run"))
    assert continued.results == ()
    for at_work, otherwise in ((True, "running"), (False, "unfinished")):
        assert state_of(replace(done, at_work=at_work), done.task()) == "done"
        assert state_of(replace(continued, at_work=at_work), continued.task()) == otherwise


def test_a_run_is_at_work_while_a_driver_holds_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    folder = str(tmp_path / "run")
    assert not load_history(folder).at_work
    with hold(folder):
        assert load_history(folder).at_work
        lease = (tmp_path / "run" / "lease.json").read_bytes()
    assert not load_history(folder).at_work
    # A driver that was killed leaves its lease behind.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "run" / "lease.json").write_text(json.dumps(json.loads(lease) | {"pid": gone.pid}))
    assert not load_history(folder).at_work


def test_a_task_costs_its_rounds_and_once_done_what_its_result_says(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    task = load_history(str(tmp_path / "run")).task()
    assert task.result is not None
    picked = replace(task.result, tokens_scored=task.result.tokens_scored + 7)
    at_work = cost_of(replace(task, result=None))
    assert at_work == Cost(
        sum(record.tokens_scored for record in task.records),
        sum(record.tokens_prompted for record in task.records),
        sum(record.tokens_generated for record in task.records),
        sum(record.seconds for record in task.records),
    )
    assert cost_of(replace(task, result=picked)) == replace(at_work, tokens_scored=at_work.tokens_scored + 7)


@pytest.mark.parametrize("rounds", [0, 2])
def test_the_steps_to_the_best_begin_with_its_own_start(tmp_path: Path, rounds: int) -> None:
    best = "Check each message carefully, compare the options step by step, and give exactly one of them."
    starts = ["Which desk?", "Name the desk.", best]
    write_run(tmp_path / "run", tasks=[{"name": "tickets", "instruction": starts}], search={"rounds": rounds})
    history = load_history(str(tmp_path / "run"))
    task = history.task()
    assert (task.start.candidate.text, task.start.candidate.id) == ("Which desk?", "r0000-0000")
    first = steps(task, task.best_id)[0]
    assert (first.scored.candidate.text, first.change) == (best, None)
    assert len(hard_examples(task, 3)) >= 3
    [root] = lineage_tree(task)
    assert root.scored.candidate.id == "r0000-0002"
    assert task.result is not None
    assert task.result.start == "Which desk?"
    for shown in (render(history), str(task_json(history, task))):
        assert "Which desk?" in shown
        assert best in shown


def test_a_real_search_can_be_told_about(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    task = load_history(str(tmp_path / "run")).task()
    assert steps(task, task.best_id)[-1].scored == task.best
    assert 3 <= len(hard_examples(task, 3)) <= 6
    found = analysed(task)
    assert found is not None
    assert all(row.segment.text in found[0].candidate.text for row in found[1])
    assert sum(count.scored for count in operator_counts(task)) == len(task.candidates)
