"""What a run came to, in Python: the instruction, its history, tables, and how a notebook shows it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from pmpo_ray import RunResult, load_run
from pmpo_ray.display.live import LiveTable, PlainLog
from pmpo_ray.display.notebook import NotebookTable
from pmpo_ray.display.progress import progress_display
from pmpo_ray.display.run_json import task_json
from pmpo_ray.errors import RunFolderError
from pmpo_ray.evaluation.summary import summarise
from pmpo_ray.outcomes import Progress, TaskFailure
from pmpo_ray.runs.evaluate import EvaluationResult
from tests.run_folders import write_run

TWO = {"grid": {"short": {"rounds": 1}, "long": {"rounds": 3}}}
HOSTILE = "<script>alert(1)</script> '\"><img src=x> \u202e & \x1b[2J"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of one task."""
    folder = tmp_path_factory.mktemp("one") / "run"
    write_run(folder)
    return load_run(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run of two tasks."""
    folder = tmp_path_factory.mktemp("two") / "run"
    write_run(folder, **TWO)
    return load_run(folder)


def test_a_run_of_one_task_has_a_best_instruction(one: RunResult) -> None:
    assert one.best == one["tickets"].best == one.tasks[0].best
    assert one.best != one["tickets"].start


def test_a_result_is_shown_in_one_short_line(one: RunResult) -> None:
    assert repr(one).startswith("<RunResult: task 'tickets', loss ")
    assert "accuracy 30.0% to 37.5%, in " in repr(one)
    assert one.run_dir in repr(one)
    several = replace(one, tasks=one.tasks * 2, failed=(TaskFailure("own", "too long"),))
    assert repr(several).startswith("<RunResult: 2 tasks, mean loss ")
    assert "mean accuracy 30.0% to 37.5%, 1 failed, in " in repr(several)
    assert repr(replace(one, tasks=())) == f"<RunResult: 0 tasks, in {one.run_dir!r}>"


def test_an_evaluation_is_shown_in_one_short_line(one: RunResult) -> None:
    results = one.history.evaluation
    found = EvaluationResult(summarise(results, {"start"}), results, "runs/x")
    assert repr(found).startswith("<EvaluationResult: 1 task, 3 instructions, 1 model, accuracy start 3")
    assert repr(found).endswith(", in 'runs/x'>")
    assert len(repr(found)) < 200
    assert repr(EvaluationResult(summarise((), ()), (), "runs/x")).endswith("0 models, in 'runs/x'>")


def test_json_needs_no_terminal_library(one: RunResult) -> None:
    script = """
import sys
import pmpo_ray.display.comparison_json, pmpo_ray.display.run_json, pmpo_ray.display.summary_json
from pmpo_ray import load_run
print(load_run(sys.argv[1]).to_dict()["tasks"][0]["task"], "rich" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, one.run_dir], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["tickets", "False"]


@pytest.mark.slow
def test_a_run_of_several_tasks_asks_which(two: RunResult) -> None:
    assert two["tickets.long"].rounds == 3
    with pytest.raises(ValueError, match=r"result\[TASK\]\.best.*tickets\.short, tickets\.long"):
        _ = two.best
    with pytest.raises(RunFolderError, match="name one of"):
        two.losses()
    assert len(two.losses("tickets.short")) == 2


def test_a_task_without_a_result_is_a_key_error_that_says_why(one: RunResult) -> None:
    failed = replace(one, failed=(TaskFailure("own", "too long"),))
    with pytest.raises(KeyError, match="task 'own' failed: too long"):
        failed["own"]
    with pytest.raises(KeyError, match="there are results of: tickets"):
        failed["navigate"]
    with pytest.raises(ValueError, match="not one task"):
        _ = failed.best


def test_the_history_is_read_once_and_kept(one: RunResult) -> None:
    assert one.history is one.history
    assert one.history.tasks[0].best.candidate.text == one.best
    assert one.losses() == one.history.tasks[0].losses
    assert min(one.losses()) == one["tickets"].loss_after


def test_every_candidate_but_the_start_has_a_parent_among_them(one: RunResult) -> None:
    parents = one.parents()
    assert list(parents) == [scored.candidate.id for scored in one.candidates()] == sorted(parents)
    [start] = [name for name, parent in parents.items() if parent is None]
    assert {parent for parent in parents.values() if parent} <= parents.keys()
    assert start == one.candidates()[0].candidate.id


def test_what_was_read_is_in_the_run_folder_the_table_and_the_json(tmp_path: Path) -> None:
    write_run(tmp_path / "run", search={"rounds": 1, "readability": 0.5})
    result = load_run(tmp_path / "run")
    [task] = result.history.tasks
    for one in task.candidates.values():
        assert one.surprisal is not None
        assert one.penalty == 0.5 * one.surprisal
        assert one.value == one.loss + one.penalty
    frame = result.to_pandas()
    scored = frame[frame["status"].isin(["survivor", "dropped"])]
    assert list(scored["surprisal"]) == [one.surprisal for one in task.candidates.values()]
    [*_, last] = task_json(result.history, task)["lineage"]  # type: ignore[misc]
    assert (last["loss"], last["surprisal"]) == (task.best.loss, task.best.surprisal)


def test_the_table_has_a_row_for_every_text_refused_ones_included(two: RunResult) -> None:
    frame = two.to_pandas()
    assert list(frame.columns) == [
        *("task", "round", "id", "parent", "lineage", "operator", "status", "reason", "loss"),
        "surprisal",
        "text",
        "shots",
        "hard_case",
        "request",
    ]
    assert frame["surprisal"].isna().all()
    for task in two.history.tasks:
        rows = frame[frame["task"] == task.task]
        assert list(rows["id"]) == sorted({*task.candidates, *(one.id for _, one in task.refusals)})
        assert set(rows[rows["status"] == "survivor"]["id"]) == task.survived
        best = rows[rows["id"] == task.best_id]
        assert (best["text"].item(), best["loss"].item()) == (task.best.candidate.text, task.best.loss)
    refused = frame[frame["status"] == "refused"]
    assert len(refused) > 0
    assert refused["loss"].isna().all()
    assert refused["reason"].str.len().gt(0).all()
    written = frame[frame["operator"] == "rewrite"]
    for task in two.history.tasks:
        assert set(written[written["task"] == task.task]["request"]) <= task.requests.keys()
    assert frame[frame["operator"] != "rewrite"]["request"].isna().all()
    assert frame["loss"].dtype == "float64"


def test_the_dictionary_is_json_and_the_same_for_a_loaded_run(one: RunResult) -> None:
    document = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert document["run_dir"] == one.run_dir
    assert document["tasks"][0]["best"] == one.best
    assert load_run(one.run_dir) == one


def test_an_unfinished_run_has_the_tasks_that_are_done(tmp_path: Path) -> None:
    write_run(tmp_path / "run", **TWO)
    (tmp_path / "run" / "tasks" / "tickets.long" / "result.json").unlink()
    result = load_run(tmp_path / "run")
    assert [task.task for task in result.tasks] == ["tickets.short"]
    assert len(result.losses("tickets.long")) == 4
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_run(tmp_path)


def test_rich_prints_what_the_command_prints(two: RunResult) -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(two)
    shown = stream.getvalue()
    assert "instruction before" in shown
    assert "tickets.short" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "".join(shown.partition("run folder: ")[2].split()) == "".join(two.run_dir.split())


class Reader(HTMLParser):
    """Notes every tag and all text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_texts_and_never_interprets_them(one: RunResult) -> None:
    hostile = replace(
        one,
        tasks=(replace(one.tasks[0], task=HOSTILE, start=HOSTILE, best=f"better {HOSTILE}"),),
        failed=(TaskFailure(HOSTILE, HOSTILE),),
        run_dir=HOSTILE,
    )
    page = Reader(hostile._repr_html_())
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "div", "code", "i"}
    assert page.text.count("<script>alert(1)</script> '\"><img src=x>") == 6
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    assert "30.0% [24.1, 36.7] → 37.5% [31.1, 44.4]" in page.text


def test_the_display_suits_where_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display(Console(force_jupyter=True)) as below:
        assert isinstance(below, NotebookTable)
    with progress_display(Console(force_terminal=True, force_jupyter=False, file=io.StringIO())) as live:
        assert isinstance(live, LiveTable)
    with progress_display(Console(force_terminal=False, force_jupyter=False)) as plain:
        assert isinstance(plain, PlainLog)


def test_a_notebook_sees_the_last_state_of_every_task() -> None:
    pages: list[str] = []
    with NotebookTable(pages.append) as table:
        table(Progress("tickets", "scoring", 0, 3))
        table(Progress(HOSTILE, "failed", 1, 3, losses=(2.5,), note=HOSTILE))
        table(Progress("tickets", "done", 3, 3, losses=(2.0, 1.5)))
    page = Reader(pages[-1])
    assert page.tags <= {"pre", "span"}
    assert "done" in page.text
    assert "1.500" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text


def test_a_notebook_without_any_progress_shows_nothing() -> None:
    pages: list[str] = []
    with NotebookTable(pages.append):
        pass
    assert pages == []
