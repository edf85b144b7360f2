"""Callbacks of a run: the order of events, and callbacks that fail or are slow."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pmpo_ray import optimize
from pmpo_ray.callbacks.dispatch import Callback, RunStart, dispatching
from pmpo_ray.config.run import RunConfig
from pmpo_ray.outcomes import Progress, TaskFailure, TaskResult
from pmpo_ray.runs.optimize import RunResult
from pmpo_ray.store import RunStore
from pmpo_ray.types import EngineInfo, RoundRecord
from tests.run_folders import simulated_config, write_run

ENGINE = EngineInfo("simulated", "simulated", "", 0, 8192, "system", "float32", "cpu")
START = RunStart("id", "run", RunConfig(), ("a",), ENGINE, ENGINE, {})
END = RunResult((), "run")


def record(number: int, task: str = "a") -> RoundRecord:
    return RoundRecord(task, number, (), ())


@dataclass
class Recording(Callback):
    """Records every call."""

    starts: list[RunStart] = field(default_factory=list)
    calls: list[tuple[str, object]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def on_run_start(self, run: RunStart) -> None:
        self.starts.append(run)
        self._note("start", run.id)

    def on_round(self, record: RoundRecord) -> None:
        self._note(record.task, record.round)

    def on_task_end(self, result: TaskResult) -> None:
        self._note(result.task, "end")

    def on_task_failed(self, failure: TaskFailure) -> None:
        self._note(failure.task, "failed")

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        self._note("finished" if finished else "stopped", tuple(task.task for task in result.tasks))

    def _note(self, name: str, value: object) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append((name, value))


class Failing(Callback):
    """Raises at the second round."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.rounds: list[int] = []

    def on_round(self, record: RoundRecord) -> None:
        self.rounds.append(record.round)
        if record.round == 1:
            raise self.error


class Stuck(Callback):
    """Returns from a round only when it is released."""

    def __init__(self) -> None:
        self.reached, self.free = threading.Event(), threading.Event()
        self.ended = False

    def on_round(self, record: RoundRecord) -> None:
        self.reached.set()
        assert self.free.wait(60)

    def on_run_end(self, result: RunResult, finished: bool) -> None:
        self.ended = True


def test_events_come_in_order_in_one_other_thread() -> None:
    recording = Recording()
    with dispatching([recording]) as callbacks:
        callbacks.on_run_start(START)
        for number in range(50):
            callbacks.on_round(record(number, "ab"[number % 2]))
        callbacks.on_task_failed(TaskFailure("b", "why"))
        callbacks.on_run_end(END, True)
    rounds = [("ab"[number % 2], number) for number in range(50)]
    assert recording.calls == [("start", "id"), *rounds, ("b", "failed"), ("finished", ())]
    assert len(recording.threads) == 1
    assert threading.get_ident() not in recording.threads


@pytest.mark.parametrize("error", [ValueError("broken\nhere"), SystemExit(3)], ids=["error", "exit"])
def test_a_callback_that_raises_is_named_once_and_left_out(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    failing, recording = Failing(error), Recording()
    with dispatching([failing, recording]) as callbacks:
        for number in range(4):
            callbacks.on_round(record(number))
    assert failing.rounds == [0, 1]
    assert recording.calls == [("a", number) for number in range(4)]
    [warning] = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    kind = type(error).__name__
    expected = f"callback Failing is not called any more: on_round raised {kind}: {error}"
    assert warning.getMessage() == expected


def test_a_slow_callback_does_not_delay_the_run_and_a_warning_names_what_it_missed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck = Stuck()
    with dispatching([stuck], patience=0.01) as callbacks:
        callbacks.on_run_start(START)
        for number in range(3):
            callbacks.on_round(record(number))
        assert stuck.reached.wait(60)
        callbacks.on_run_end(END, True)
    stuck.free.set()
    assert "callback Stuck: on_round was still running" in caplog.text
    assert "on_round (3), on_run_end (1)" in caplog.text
    assert not stuck.ended


def test_the_end_waits_for_all_calls(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    with dispatching([stuck]) as callbacks:
        callbacks.on_run_start(START)
        callbacks.on_round(record(0))
        callbacks.on_run_end(END, False)
        assert stuck.reached.wait(60)
        stuck.free.set()
    assert stuck.ended
    assert not caplog.records


def test_a_run_that_never_began_has_no_end() -> None:
    recording = Recording()
    with dispatching([recording]) as callbacks:
        callbacks.on_run_end(END, False)
    assert recording.calls == []


def test_scores_by_example_are_not_kept_waiting(tmp_path: Path) -> None:
    stored = write_run(tmp_path / "run").read_rounds("tickets")
    seen: list[RoundRecord] = []

    class Keeping(Callback):
        def on_round(self, record: RoundRecord) -> None:
            seen.append(record)

    with dispatching([Keeping()]) as callbacks:
        for one in stored:
            callbacks.on_round(one)
    assert stored[0].candidates[0].scores
    assert seen == [one.slim() for one in stored]


@pytest.mark.usefixtures("running_ray")
def test_callbacks_see_a_run_up_to_its_interruption_and_its_continuation(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    rows = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    (tmp_path / "own.csv").write_text("input,target\n" + rows)
    config = simulated_config(
        tasks=["tickets", {"name": "own", "path": str(tmp_path / "own.csv")}],
        search={"rounds": 4},
        evaluation={"limit": 20},
    )

    reached = iter([True])

    def interrupt(progress: Progress) -> None:
        at = (progress.task, progress.round, progress.state)
        # A second signal would leave the work of this process where it stands.
        if at == ("tickets", 2, "rewriting") and next(reached, False):
            signal.raise_signal(signal.SIGINT)

    first, failing = Recording(), Failing(ValueError("broken"))
    with pytest.raises(KeyboardInterrupt, match="run"):
        optimize(config, run_dir=folder, observer=interrupt, callbacks=[failing, first])
    assert failing.rounds[-1] == 1
    name, unfinished = first.calls[-1]
    assert name == "stopped"
    assert unfinished in ((), ("own",))
    stored = {task: RunStore.open(folder).count_rounds(task) for task in ("tickets", "own")}
    assert stored["tickets"] >= 2
    for task, count in stored.items():
        rounds = [number for name, number in first.calls if name == task and isinstance(number, int)]
        # The interruption may come after a round is stored and before it is reported.
        assert rounds in (list(range(count)), list(range(count - 1)))

    second = Recording()
    result = optimize(run_dir=folder, observer=lambda _: None, callbacks=[second])
    [start], [again] = first.starts, second.starts
    assert start.id == again.id != ""
    assert (start.run_dir, start.tasks) == (folder, ("tickets", "own"))
    assert start.config == config.model_copy(update={"run_dir": folder})
    assert start.scorer.engine == start.rewriter.engine == "simulated"
    assert start.resumed == {}
    assert again.resumed == {task: count for task, count in stored.items() if count}
    for task, count in stored.items():
        assert [value for name, value in second.calls if name == task] == [*range(count, 5), "end"]
    assert second.calls[0] == ("start", again.id)
    assert second.calls[-1] == ("finished", tuple(task.task for task in result.tasks))
