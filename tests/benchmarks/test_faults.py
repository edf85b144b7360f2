"""The faults' benchmark: its comparison notices what it is there to notice, and faults change nothing."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import passed, summary, table
from benchmarks.faults.campaign import QUICK, Row, simulated
from benchmarks.faults.comparison import Outcome, RoundWatch, compare, read_outcome
from benchmarks.faults.faults import DECK, DRIVER, EFFECT_SECONDS, START, Fault, Injector, plan
from benchmarks.faults.lives import Driver, Lines, Loss, Replica, process, units
from pmpo_ray.outcomes import TaskResult
from pmpo_ray.store import RunStore
from pmpo_ray.store.scores import pack
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    ExampleScore,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    Segment,
    SegmentImportance,
)

pytestmark = pytest.mark.slow

SCORE = ExampleScore(AnswerScore(-1.25, 3), (AnswerScore(-2.5, 2),), 40)
LOSS = 0.1 + 0.2
KILL = "kill -9 of a scorer"


def candidate(number: int, name: int, loss: float = LOSS) -> ScoredCandidate:
    made = Candidate(
        f"r{number:04d}-{name:04d}", f"Try {number} {name}.", None, "r0000-0000", "rewrite", number
    )
    return ScoredCandidate(made, (SCORE,), (loss,), loss)


def record(number: int) -> RoundRecord:
    """Two scored candidates, one refused, one segment."""
    scored = (candidate(number, 0), candidate(number, 1, 2 * LOSS))
    refused = Refusal(f"r{number:04d}-0002", "No.", "r0000-0000", "r0000-0000", "rewrite", "too short")
    segment = SegmentImportance(scored[0].candidate.id, 0, Segment(0, 3, "Try"), 0.25)
    return RoundRecord("t", number, scored, (scored[0].candidate.id,), (refused,), (segment,), 90, 10, 1.5)


def result(seconds: float) -> TaskResult:
    return TaskResult("t", 1, "rounds", "a", "b", 2.0, LOSS, None, None, 180, 20, seconds)


def write_run(
    folder: Path,
    seconds: float = 1.0,
    change: Callable[[RoundRecord], RoundRecord] = lambda record: record,
    parts: tuple[dict[bytes, ExampleScore], ...] = ({b"a" * 16: SCORE}, {b"b" * 16: SCORE}),
) -> Outcome:
    """A run of two rounds, of which the second is changed."""
    store = RunStore.create(str(folder), "seed: 0\n")
    records = [replace(record(0), seconds=seconds), replace(change(record(1)), seconds=seconds)]
    for each in records:
        store.write_round(each)
    store.write_best("t", records)
    store.write_task_result("t", result(seconds))
    store.write_summary([result(seconds)])
    for part in parts:
        store.write_scores({key: pack(score) for key, score in part.items()})
    return read_outcome(folder, ["t"])


def test_the_same_run_in_another_time_is_identical(tmp_path: Path) -> None:
    verdict = compare(write_run(tmp_path / "a"), write_run(tmp_path / "b", seconds=7.0), killed=False)
    assert verdict.identical
    assert (verdict.lost, verdict.counted_twice, verdict.differences) == ((), (), ())


def changed_loss(record: RoundRecord) -> RoundRecord:
    """The last bit of one loss."""
    first, *others = record.candidates
    return replace(record, candidates=(replace(first, losses=(0.3,)), *others))


def without_second(record: RoundRecord) -> RoundRecord:
    return replace(record, candidates=record.candidates[:1])


def without_refusal(record: RoundRecord) -> RoundRecord:
    return replace(record, refusals=())


def failed(record: RoundRecord) -> RoundRecord:
    lost = record.candidates[1].candidate
    refusal = Refusal(lost.id, lost.text, "r0000-0000", lost.lineage, "rewrite", "3 tries failed", "failed")
    return replace(record, candidates=record.candidates[:1], refusals=(refusal, *record.refusals))


def twice(record: RoundRecord) -> RoundRecord:
    return replace(record, candidates=(*record.candidates, record.candidates[1]))


def made_before(record: RoundRecord) -> RoundRecord:
    old = replace(record.refusals[0], id="r0000-0002")
    return replace(record, refusals=(*record.refusals, old))


@pytest.mark.parametrize(
    ("change", "lost", "counted_twice", "difference"),
    [
        (changed_loss, 0, 0, "t, round 1: candidates differ"),
        (without_second, 1, 0, "t, round 1: candidates differ"),
        (without_refusal, 1, 0, "t, round 1: refusals differ"),
        (failed, 1, 0, "t, round 1: refusals differ"),
        (twice, 0, 1, "t, round 1: candidates differ"),
        (made_before, 0, 1, "t, round 1: refusals differ"),
        (lambda record: replace(record, tokens_scored=91), 0, 0, "t, round 1: tokens_scored differ"),
        (lambda record: replace(record, segments=()), 0, 0, "t, round 1: segments differ"),
        (
            lambda record: replace(record, survivors=(record.candidates[1].candidate.id,)),
            0,
            0,
            "t: best.json differs",
        ),
    ],
)
def test_a_changed_round_is_noticed(
    change: Callable[[RoundRecord], RoundRecord],
    lost: int,
    counted_twice: int,
    difference: str,
    tmp_path: Path,
) -> None:
    assert LOSS != 0.3
    verdict = compare(write_run(tmp_path / "a"), write_run(tmp_path / "b", change=change), killed=True)
    assert (len(verdict.lost), len(verdict.counted_twice)) == (lost, counted_twice)
    assert difference in verdict.differences
    assert not verdict.identical


def test_a_missing_round_and_a_missing_result_are_noticed(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    for file in ("round-0001.parquet", "result.json"):
        (tmp_path / "b" / "tasks" / "t" / file).unlink()
    (tmp_path / "b" / "summary.parquet").unlink()
    verdict = compare(whole, read_outcome(tmp_path / "b", ["t"]), killed=True)
    assert len(verdict.lost) == 3
    assert set(verdict.differences) == {
        "t: 2 rounds undisturbed, 1 disturbed",
        "t: result.json differs",
        "summary.parquet differs",
    }


OTHER = replace(SCORE, target=AnswerScore(-1.2500000000000002, 3))


@pytest.mark.parametrize(
    ("parts", "lost", "counted_twice", "differences"),
    [
        (({b"a" * 16: SCORE, b"b" * 16: SCORE}, {b"b" * 16: SCORE}), 0, 1, 0),
        (({b"a" * 16: SCORE}, {b"b" * 16: OTHER}), 0, 0, 1),
        (({b"a" * 16: SCORE, b"b" * 16: SCORE}, {b"c" * 16: SCORE}), 0, 0, 1),
        (({b"a" * 16: SCORE},), 1, 0, 0),
    ],
)
def test_scores_that_stand_twice_differ_or_are_missing_are_noticed(
    parts: tuple[dict[bytes, ExampleScore], ...],
    lost: int,
    counted_twice: int,
    differences: int,
    tmp_path: Path,
) -> None:
    whole, other = write_run(tmp_path / "a"), write_run(tmp_path / "b", parts=parts)
    verdict = compare(whole, other, killed=False)
    found = (len(verdict.lost), len(verdict.counted_twice), len(verdict.differences))
    assert found == (lost, counted_twice, differences)
    # A killed driver's last scores are in its rounds alone.
    assert len(compare(whole, other, killed=True).lost) == 0


def test_a_round_that_is_written_again_is_noticed(tmp_path: Path) -> None:
    watch = RoundWatch(tmp_path)
    assert watch.look() == 0
    write_run(tmp_path)
    assert (watch.look(), watch.rewritten) == (2, [])
    file = tmp_path / "tasks" / "t" / "round-0001.parquet"
    (tmp_path / "new").write_bytes(file.read_bytes())
    (tmp_path / "new").replace(file)
    assert (watch.look(), watch.rewritten) == (2, ["t: round-0001.parquet was written again"])


def test_units_without_an_end_and_units_answered_twice_are_noticed() -> None:
    submitted = [
        {"unit": n, "state": "submitted", "method": "score", "what": what} for n, what in enumerate("aab")
    ]
    answered = [{"unit": n, "state": "answered", "method": "score", "retries": n} for n in (0, 1)]
    counted = units([*submitted, *answered])
    assert (counted.submitted, counted.resolved, counted.repeated, counted.retries) == (3, 2, 1, 1)


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "log")
    assert list(lines.new()) == []
    (tmp_path / "log").write_text('{"a": 1}\n{"a"')
    assert list(lines.new()) == [{"a": 1}]
    (tmp_path / "log").write_text('{"a": 1}\n{"a": 2}\n')
    assert list(lines.new()) == [{"a": 2}]


def test_a_process_is_signalled_only_while_it_is_the_one_that_was_meant() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = process(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert not replace(found, started=found.started + 1).signal(signal.SIGKILL)
        assert found.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert process(child.pid) is None
        assert not found.signal(signal.SIGKILL)


def test_the_plan_depends_on_the_seed_and_holds_every_kind_in_twenty() -> None:
    first = [kind for kind, _ in zip(plan(3), range(40), strict=False)]
    assert first == [kind for kind, _ in zip(plan(3), range(40), strict=False)]
    assert first != [kind for kind, _ in zip(plan(4), range(40), strict=False)]
    assert sum(DECK.values()) == 20
    assert Counter(first[:20]) == Counter(first[20:]) == Counter(DECK)


def test_a_fault_counts_only_when_it_shows_an_effect_and_a_loss_is_evidence_once(tmp_path: Path) -> None:
    driver, now = Driver(tmp_path / "config", tmp_path / "run", 1.0), time.monotonic()
    injector = Injector(driver, None, tmp_path, random.Random(0), plan(0))  # type: ignore[arg-type]
    victim, other = Replica(1, "scorer", 0, 100), Replica(1, "scorer", 1, 101)
    order = tmp_path / "start-1"
    order.touch()
    ordered = Fault(START, now, order=order, evidence=lambda loss: "ordered" in loss.reason)
    injector.pending += [ordered, Fault(KILL, now, victims=frozenset({victim}))]

    def lost(replica: Replica, reason: str) -> Counter[str]:
        driver.observed.losses.append(Loss(replica, reason))
        injector.observe()
        return injector.counts

    # Nobody has taken the order yet, and nobody was to kill this one.
    assert lost(other, "a failed start was ordered") == {}
    assert lost(victim, "it died") == {KILL: 1}
    order.unlink()
    assert lost(victim, "it died") == {KILL: 1}
    assert lost(other, "a failed start was ordered") == {KILL: 1, START: 1}
    assert lost(other, "a failed start was ordered") == {KILL: 1, START: 1}


def test_a_fault_without_effect_does_not_count(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "config", tmp_path / "run", 1.0)
    injector = Injector(driver, None, tmp_path, random.Random(0), plan(0))  # type: ignore[arg-type]
    order = tmp_path / "error-1"
    order.touch()
    injector.pending += [
        Fault("call that raises", time.monotonic() - 2 * EFFECT_SECONDS, order=order),
        Fault(KILL, time.monotonic(), victims=frozenset({Replica(1, "scorer", 0, 100)})),
    ]
    injector.observe()
    assert injector.missed == {"call that raises": 1}
    assert not order.exists()
    injector.give_up()
    assert injector.missed == {"call that raises": 1, KILL: 1}
    assert injector.effective == 0


KINDS = (KILL, "call that raises", START, "kill -9 of a rewriter", "node removed gracefully", DRIVER)


def test_faults_of_six_kinds_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    size = replace(QUICK, faults=len(KINDS), tasks=3, rounds=4)
    row = simulated(size, 0, tmp_path, itertools.cycle(KINDS))
    assert row.findings == ()
    assert (row.lost, row.counted_twice, row.identical) == (0, 0, True)
    assert row.by_kind == dict.fromkeys(sorted(KINDS), 1)
    assert row.driver_lives == 2
    assert row.units >= row.undisturbed_units > 0
    assert row.replicas_lost >= 3
    assert passed(row, len(KINDS))
    assert "| **identical** | yes |" in table(row)


def test_a_run_that_lost_something_or_had_too_few_faults_does_not_pass() -> None:
    row = Row("simulated", 0, 20, {}, {}, 100, 90, 0, 0, True, 5, 5, 2, 1.0, 2.0, 3.0, ())
    assert passed(row, 20)
    bad = [replace(row, lost=1), replace(row, counted_twice=1), replace(row, identical=False)]
    assert not any(passed(each, 20) for each in (*bad, replace(row, faults=19)))
    assert summary([row, *bad]) == {
        "faults": 80,
        "units": 400,
        "lost": 1,
        "counted_twice": 1,
        "identical": False,
        "seconds": 12.0,
    }
