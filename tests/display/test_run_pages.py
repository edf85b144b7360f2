"""What `pmpo show` tells of a run folder: real runs over the simulated engine, and hostile texts."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs
from rich.console import Console

from pmpo_ray.config.loading import dump_config
from pmpo_ray.display.run_json import overview_json, task_json
from pmpo_ray.display.run_pages import show_overview, show_task
from pmpo_ray.history.run_history import RunHistory, load_history
from pmpo_ray.store import RunStore, hold, task_folder
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    Example,
    ExampleScore,
    Operator,
    RoundRecord,
    ScoredCandidate,
    Segment,
    SegmentImportance,
)
from tests.run_folders import simulated_config, write_run

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "[bold red]x[/bold red] [link=http://x]y[/link] :smile: \x1b[2J\x1b]0;title\x07 \u202eabc\x9b31m {0}"
)
DANGEROUS = "\x1b\x07\x9b\u202e"


def pmpo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def overview(history: RunHistory, width: int = 120) -> list[str]:
    stream = io.StringIO()
    show_overview(history, Console(file=stream, width=width))
    return stream.getvalue().splitlines()


def page(history: RunHistory, task: str | None = None, width: int = 120, *, colours: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colours, color_system="standard" if colours else None
    )
    show_task(history, history.task(task), console)
    return stream.getvalue()


def own_task(folder: Path, name: str = "second") -> dict[str, str]:
    path = folder / f"{name}.csv"
    rows = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    path.write_text("input,target\n" + rows)
    return {"name": name, "path": str(path)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "run", tasks=["tickets", own_task(folder)])
    return folder / "run"


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """A run whose first task has no result yet, and whose second has not begun; no driver works on it."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "tasks" / task_folder("tickets") / "result.json").unlink()
    shutil.rmtree(run / "tasks" / task_folder("second"))
    (run / "evaluation.parquet").unlink()
    return run


@pytest.fixture
def at_work(stopped: Path) -> Iterator[Path]:
    """The same while a driver works on it."""
    with hold(str(stopped)):
        yield stopped


def hostile_run(folder: Path) -> str:
    """A run whose every text would steer a terminal."""
    task = {**own_task(folder), "name": f"odd {HOSTILE}"}
    config = simulated_config(tasks=[task])
    store = RunStore.create(str(folder / "run"), dump_config(config))
    name = config.tasks[0].name
    score = ExampleScore(AnswerScore(-1.0, 1), (), 3)

    def scored(number: int, text: str, loss: float) -> ScoredCandidate:
        parent = None if number == 0 else "r0000-0000"
        operator: Operator = "seed" if number == 0 else "rewrite"
        candidate = Candidate(f"r000{number}-0000", text, parent, "r0000-0000", operator, number)
        return ScoredCandidate(candidate, (score,), (loss,), loss)

    start, best = scored(0, f"start {HOSTILE}", 2.0), scored(1, f"best {HOSTILE} end", 1.0)
    part = SegmentImportance("r0000-0000", 0, Segment(0, len(f"start {HOSTILE}"), f"start {HOSTILE}"), -0.5)
    records = [
        RoundRecord(name, 0, (start,), ("r0000-0000",)),
        RoundRecord(name, 1, (start, best), ("r0001-0000",), segments=(part,)),
    ]
    for record in records:
        store.write_round(record)
    store.write_best(name, records)
    store.write_training(name, [Example("1", f"input {HOSTILE}", f"target {HOSTILE}")])
    return store.location


@pytest.mark.slow
def test_a_run_of_many_tasks_has_a_line_a_task(finished: Path) -> None:
    history = load_history(str(finished))
    lines = overview(history)
    first, second = lines[1], lines[2]
    best = history.task("tickets").best
    assert first.startswith("tickets done")
    assert f"{history.task('tickets').start.loss:.3f} {best.loss:.3f}" in first
    # What `pmpo evaluate` measured counts; before it, what the run measured at its end.
    assert "37.7 62.8 [58,67] *" in first
    assert "30.0 37.5 [31,44] *" in overview(replace(history, evaluation=()))[1]
    assert best.candidate.text[:20] in first
    assert second.startswith("second  done")


def test_a_run_at_work_is_shown_as_far_as_it_is(at_work: Path) -> None:
    history = load_history(str(at_work))
    lines = overview(history)
    assert lines[1].startswith("tickets running     3")
    assert "37.5" not in lines[1]
    assert lines[2].split() == ["second", "waiting", *"–––––––"]
    shown = page(history, "tickets")
    assert "running: 3 rounds of 3 are finished" in shown
    assert "not evaluated" in shown
    assert "not yet compared with free baselines" in shown


def test_a_run_that_stopped_short_says_how_to_go_on(stopped: Path) -> None:
    history = load_history(str(stopped))
    lines = overview(history)
    assert lines[1].split()[:3] == ["tickets", "unfinished", "3"]
    shown = page(history, "tickets")
    advice = f"continue with: pmpo optimize --run-dir {stopped}"
    assert f"unfinished: 3 rounds of 3 are finished; {advice}" in shown


def test_27_tasks_fit_80_columns(finished: Path) -> None:
    history = load_history(str(finished))
    names = [f"bbh/quite_a_long_name_of_a_task_{number}" for number in range(27)]
    task = history.task("tickets")
    assert task.result is not None
    results = tuple(replace(task.result, task=name) for name in names)
    many = replace(
        history,
        config=simulated_config(tasks=names),
        tasks=tuple(replace(task, task=result.task, result=result) for result in results),
        results=results,
        evaluation=(),
    )
    lines = overview(many, width=80)
    rows = [line for line in lines if " done " in line]
    assert len(rows) == 27
    assert max(map(len, lines[:28])) <= 80
    assert all("37.5 [31,44]" in row and "You work" in row for row in rows)


@pytest.mark.slow
def test_a_page_tells_how_the_best_came_about(finished: Path) -> None:
    history = load_history(str(finished))
    shown = " ".join(page(history, "tickets").split())
    task = history.task("tickets")
    assert "done after 3 rounds (stopped by: rounds)" in shown
    assert task.best.candidate.text[:60] in shown
    assert "[-Choose one of these labels" in shown
    assert "mask_drop 0.608 -0.119" in shown
    assert "importance of" in shown
    assert "+0." in shown
    assert "hardest training examples under the best" in shown
    assert "this task: " in shown
    assert "scorer: replicas lost 1, calls retried 3" in shown
    assert "tickets: simulated, 0 shots, chosen by likelihood" in shown


def test_a_page_shows_the_surprisal_of_texts_that_were_read(tmp_path: Path) -> None:
    shown = {}
    for name, weight in (("without", {}), ("with", {"readability": 0.3})):
        store = write_run(tmp_path / name, search={"rounds": 2, **weight})
        shown[name] = page(load_history(store.location))
    assert "surprisal" not in shown["without"]
    header = next(line for line in shown["with"].splitlines() if "made by" in line)
    assert header.split()[-2:] == ["surprisal", "instruction"]


def test_a_page_lists_several_start_instructions_with_their_losses(finished: Path, tmp_path: Path) -> None:
    starts = ["Sort the message.", "Which label fits the message?"]
    store = write_run(tmp_path / "run", tasks=[{"name": "tickets", "instruction": starts}])
    lines = page(load_history(store.location)).splitlines()
    heading = lines.index("start instructions")
    named = [line.split() for line in lines[heading + 2 : heading + 4]]
    assert [line[0] for line in named] == ["start", "start_2"]
    assert all(float(line[1]) > 0 for line in named)
    assert "start instructions" not in page(load_history(str(finished)), "tickets")


def test_what_helps_and_what_hurts_can_be_told_without_colours(tmp_path: Path) -> None:
    shown = page(load_history(hostile_run(tmp_path)))
    assert "the parts of its ancestor r0000-0000: + helps, - hurts" in shown
    assert "-0.500 ████████████████" in shown


@pytest.mark.slow
def test_a_diff_has_colours_only_where_the_terminal_has(finished: Path) -> None:
    history = load_history(str(finished))
    assert "\x1b" not in page(history, "tickets")
    assert "\x1b[31m[-Choose" in page(history, "tickets", colours=True)


def test_an_unchanged_instruction_is_called_so(finished: Path) -> None:
    assert "the search found nothing better than the start" in page(load_history(str(finished)), "second")


@pytest.mark.slow
def test_a_folder_without_its_training_examples_says_so(finished: Path) -> None:
    history = load_history(str(finished))
    bare = replace(history, tasks=(replace(history.task("tickets"), examples=()),))
    assert "this run folder does not contain its training examples" in page(bare)


@pytest.mark.slow
def test_an_evaluation_of_an_earlier_best_is_called_so(finished: Path) -> None:
    history = load_history(str(finished))
    task = history.task("tickets")
    earlier = replace(history, tasks=(replace(task, best_id=task.start.candidate.id),))
    assert "this evaluation is of an earlier best" in page(earlier)
    assert "this evaluation is of an earlier best" not in page(history, "tickets")


@pytest.mark.slow
def test_texts_are_shown_and_never_interpreted(tmp_path: Path) -> None:
    location = hostile_run(tmp_path)
    done = pmpo("show", location)
    assert (done.returncode, done.stderr) == (0, "")
    assert not set(done.stdout) & set(DANGEROUS)
    whole = " ".join(done.stdout.split())
    assert r"[-start-]{+best+} [bold red]x[/bold red] [link=http://x]y[/link] :smile: \x1b[2J" in whole
    assert r"\u202eabc\x9b31m" in whole
    history = load_history(location)
    assert not set("".join(overview(history))) & set(DANGEROUS)


@pytest.mark.slow
def test_the_command_prints_tables_or_one_object(finished: Path) -> None:
    shown = pmpo("show", str(finished))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert len([line for line in shown.stdout.splitlines() if " done " in line]) == 2
    history = load_history(str(finished))
    printed = pmpo("show", str(finished), "tickets", "--json")
    assert json.loads(printed.stdout) == json.loads(json.dumps(task_json(history, history.task("tickets"))))


@pytest.mark.slow
def test_the_json_holds_all_and_cuts_nothing(finished: Path) -> None:
    history = load_history(str(finished))
    task = history.task("tickets")
    document = json.loads(json.dumps(task_json(history, task), allow_nan=False))
    assert document["best"] == task.best.candidate.text
    assert document["losses"] == list(task.losses)
    kept = [piece["text"] for piece in document["diff"] if piece["kind"] != "deleted"]
    assert "".join(kept) == task.best.candidate.text
    assert [step["operator"] for step in document["lineage"]] == ["seed", "mask_drop"]
    assert document["accuracy_after"]["n"] == 430
    assert document["evaluation"]["rows"][0]["task"] == "tickets"
    assert {row["task"] for row in document["evaluation"]["rows"]} == {"tickets"}
    assert document["pools"]["scorer"]["lost"] == 1
    assert 3 <= len(document["hard_examples"]) <= 6
    text = "".join(segment["text"] for segment in document["segments"])
    assert text
    assert document["analysed"] in task.candidates


def test_tasks_that_wait_are_in_the_json(at_work: Path) -> None:
    document = json.loads(json.dumps(overview_json(load_history(str(at_work)))))
    states = {task["task"]: task["state"] for task in document["tasks"]}
    assert states == {"tickets": "running", "second": "waiting"}
    first, second = document["tasks"]
    assert set(first) == set(second)
    assert (second["loss_after"], second["losses"]) == (None, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["third"], "holds no task third; name one of tickets"),
        (["second"], "task second has no finished round yet"),
    ],
)
def test_a_task_that_is_not_there_is_one_line(at_work: Path, arguments: Sequence[str], expected: str) -> None:
    done = pmpo("show", str(at_work), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_run_in_object_storage_is_shown(finished: Path, s3: str) -> None:
    system, bucket = fs.FileSystem.from_uri(f"s3://runs/shown?{s3}")
    fs.copy_files(
        str(finished), bucket, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system
    )
    done = pmpo("show", f"s3://runs/shown?{s3}", "--json")
    assert done.returncode == 0
    assert [task["task"] for task in json.loads(done.stdout)["tasks"]] == ["tickets", "second"]


def test_a_page_shows_the_demonstrations_of_the_best_instruction(tmp_path: Path) -> None:
    search = {"rounds": 2, "operators": [], "masking": "off", "demonstrations": 3}
    store = write_run(tmp_path / "run", search=search)
    history = load_history(store.location)
    (task,) = history.tasks
    text = page(history)
    assert "with 3 demonstrations, in this order" in text
    assert "the text is the start's: the search added demonstrations" in text
    assert "[3 demonstrations]" in text
    assert "earlier best" not in text
    shots = [{"input": shot.input, "target": shot.target} for shot in task.demonstrations]
    document = task_json(history, task)
    assert document["shots"] == shots
    assert len(shots) == 3
    assert document["lineage"][-1]["shots"] == list(task.best.candidate.shots)


def test_an_evaluation_with_other_demonstrations_is_of_an_earlier_best(tmp_path: Path) -> None:
    search = {"rounds": 2, "operators": [], "masking": "off", "demonstrations": 3}
    store = write_run(tmp_path / "run", search=search)
    results = store.read_evaluation()
    assert results is not None
    store.write_evaluation([replace(one, condition=replace(one.condition, own_shots=())) for one in results])
    assert "this evaluation is of an earlier best" in page(load_history(store.location))
