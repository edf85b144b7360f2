"""The report as a file: where it goes, what it holds, what it says about a run that is not finished."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.history.run_history import load_history
from pmpo_ray.report import render, write_report
from pmpo_ray.store import RunStore, hold
from tests.run_folders import write_run


def pmpo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmpo_ray", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_writes_it_into_the_run_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    done = pmpo("report", str(tmp_path / "run"))
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "run" / "report.html"))
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_or_to_another_file(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    done = pmpo("report", str(tmp_path / "run"), "--output", str(tmp_path / "new" / "r.html"))
    assert done.returncode == 0
    assert (tmp_path / "new" / "r.html").is_file()
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_what_cannot_be_done_is_said_in_one_line(tmp_path: Path) -> None:
    done = pmpo("report", str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .* is not a run folder, .*\n", done.stderr)
    write_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_report(str(tmp_path / "run"), str(tmp_path / "file" / "r.html"))


@pytest.mark.slow
def test_it_goes_into_a_bucket(tmp_path: Path, s3: str) -> None:
    write_run(tmp_path / "run")
    where = write_report(str(tmp_path / "run"), str(tmp_path / "r.html"))
    store = RunStore.create(f"s3://runs/report?{s3}", (tmp_path / "run" / "config.yaml").read_text())
    source = RunStore.open(str(tmp_path / "run"))
    records = source.read_rounds("tickets")
    for record in records:
        store.write_round(record)
    store.write_best("tickets", records)
    assert write_report(f"s3://runs/report?{s3}") == "s3://runs/report/report.html"
    assert Path(where).is_file()


@pytest.mark.slow
def test_nothing_in_it_comes_from_elsewhere(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = render(load_history(str(tmp_path / "run")))
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", page)
    assert not re.findall(r"@import|url\(", page)
    links = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert links <= {"http://www.w3.org/2000/svg"}


def test_a_run_that_is_not_done_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    store = write_run(tmp_path / "run", evaluated=False)
    for name in ("manifest.json", "summary.parquet", "tasks/tickets/result.json"):
        (tmp_path / "run" / name).unlink()
    page = render(load_history(store.location))
    assert "nothing was measured on held-out examples yet" in page
    assert "unfinished" in page
    with hold(store.location):
        assert "still running" in render(load_history(store.location))
    assert "the counts of its pools are written at its end" in page


@pytest.mark.slow
def test_verdicts_are_corrected_for_the_number_of_tasks(tmp_path: Path) -> None:
    """p = 0.012 is significant for one task, and not for five."""
    write_run(tmp_path / "one", evaluated=False)
    assert "a significant gain (p = 0.012)" in render(load_history(str(tmp_path / "one")))
    data = tmp_path / "own.csv"
    data.write_text(
        "input,target\n" + "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    )
    tasks = [{"name": f"task-{n}", "path": str(data)} for n in range(5)]
    write_run(tmp_path / "five", tasks=tasks, evaluated=False)
    assert "0 significantly better, 0 significantly worse, 5 not" in render(
        load_history(str(tmp_path / "five"))
    )


def test_losses_that_are_not_finite_are_drawn_at_the_edge(tmp_path: Path) -> None:
    from pmpo_ray.report.charts import Dot, example_chart, loss_chart

    dots = [Dot("r0000-0000", 0, "seed", True, 1.0), Dot("r0001-0000", 1, "own", False, float("inf"))]
    chart = loss_chart(dots, [1.0, 1.0], ["r0000-0000"])
    assert chart.count("data-id") == 2
    assert "NaN" not in chart
    assert example_chart([float("inf")], [1.0]) == ""


def test_demonstrations_are_shown_and_sent_to_the_script(tmp_path: Path) -> None:
    search = {"rounds": 2, "operators": [], "masking": "off", "demonstrations": 3}
    store = write_run(tmp_path / "run", search=search)
    (task,) = load_history(store.location).tasks
    write_report(store.location)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Its demonstrations, in their order" in page
    for shot in task.demonstrations:
        assert html.escape(shot.input) in page
    data = re.search(r'<script[^>]* class="data">([^<]+)</script>', page)
    assert data is not None
    rows = json.loads(gzip.decompress(base64.b64decode(data[1])))["candidates"]
    assert list(task.best.candidate.shots) in [row[-1] for row in rows]
