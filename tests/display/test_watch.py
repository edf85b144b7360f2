"""The sign of life of a log: a line after every 30 s in which nothing has changed."""

from __future__ import annotations

import errno
import io
import logging
import threading
from dataclasses import replace

import pytest

from pmpo_ray.cli.progress_log import JsonProgress
from pmpo_ray.display.live import PlainLog
from pmpo_ray.display.watch import Watch, beating
from pmpo_ray.outcomes import Progress

NEWS = Progress("news", "scoring", 1, 3)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_without_a_terminal_says_what_goes_on_for_how_long_and_how_far() -> None:
    clock, stream = Clock(), io.StringIO()
    log = PlainLog(stream, clock)

    def lines_at(second: float) -> list[str]:
        clock.now = second
        log.beat()
        written = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return written

    assert lines_at(29) == []
    assert lines_at(31) == ["[    31s] preparing the tasks for 31 s"]
    log(Progress("news", "waiting", 0, 3))
    log(Progress("topics", "waiting", 0, 3))
    assert len(lines_at(32)) == 2
    assert lines_at(62) == ["[    62s] starting Ray and the models for 31 s"]
    assert lines_at(91) == []
    assert lines_at(92) == ["[    92s] starting Ray and the models for 61 s"]
    log(NEWS)
    clock.now = 100
    log(replace(NEWS, task="topics", state="rewriting"))
    log(replace(NEWS, done=640, asked=1000))  # no change that gets a line
    assert len(lines_at(101)) == 2
    shown = "[   131s] news  round 1/3  scoring for 39 s: 640 of 1,000 examples done  (and 1 more at work)"
    assert lines_at(131) == [shown]
    log(replace(NEWS, state="done"))
    assert len(lines_at(140)) == 1
    assert lines_at(170) == ["[   170s] topics  round 1/3  rewriting for 70 s"]
    log(replace(NEWS, task="topics", state="failed"))
    assert len(lines_at(171)) == 1
    assert lines_at(1000) == []


def test_an_evaluation_counts_conditions_not_rounds() -> None:
    stream = io.StringIO()
    PlainLog(stream)(Progress("news", "evaluating", 1, 3, unit="condition"))
    assert "news  condition 1/3  evaluating" in stream.getvalue()


def test_the_sign_of_life_is_an_object_in_json(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pmpo_ray.progress")
    clock = Clock()
    log = JsonProgress(clock)
    log(replace(NEWS, unit="condition", done=2, asked=5))
    clock.now = 45
    log.beat()
    log.beat()
    first, sign = (record.__dict__["fields"] for record in caplog.records)
    assert (first["condition"], first["conditions"]) == (1, 3)
    assert "round" not in first
    assert sign == {"phase": "scoring", "seconds": 45, "task": "news", "others": 0, "done": 2, "asked": 5}
    assert caplog.messages[1] == "still at work"


class Full(io.StringIO):
    tries = 0

    def write(self, _: str, /) -> int:
        self.tries += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_that_cannot_be_written_silences_the_log() -> None:
    clock, full = Clock(), Full()
    log = PlainLog(full, clock)
    log(NEWS)
    clock.now = 60
    log.beat()
    assert full.tries == 1


def test_beats_come_from_a_thread_until_the_block_ends() -> None:
    came = threading.Event()
    with beating(came.set, every=0.01):
        assert came.wait(10)
    came.clear()
    assert not came.wait(0.05)


def test_a_watch_can_be_asked_for_any_silence() -> None:
    clock = Clock()
    watch = Watch(clock, silence=5)
    clock.now = 5
    assert watch.overdue() is not None
