"""Rounds are the truth: whatever else is damaged in a run folder, the commands that read it say so in one
line and go on; a damaged round is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pmpo_ray.store import RunStore
from tests.damaged_folders import WAYS, Done, pmpo
from tests.run_folders import write_run

FILES = (
    "config.yaml",
    "manifest.json",
    "summary.parquet",
    "evaluation.parquet",
    "lease.json",
    "replicas/00000001.parquet",
    "scores/00000000.parquet",
    "tasks/tickets/best.json",
    "tasks/tickets/result.json",
    "tasks/tickets/examples.parquet",
    "tasks/tickets/segments-0001.parquet",
    "tasks/tickets/segments-0003.parquet",
    "tasks/tickets/requests-0001.parquet",
    "tasks/tickets/round-0000.parquet",
    "tasks/tickets/round-0001.parquet",
    "tasks/tickets/round-0003.parquet",
)
COMMANDS = (
    ("show", "RUN"),
    ("show", "RUN", "tickets", "--json"),
    ("report", "RUN"),
    ("export", "RUN"),
    ("export", "RUN", "--format", "json"),
    ("compare", "RUN", "WHOLE"),
)
NEEDED = ("config.yaml", "tasks/tickets/round-0000.parquet", "tasks/tickets/round-0001.parquet")
"""Files without which there is nothing to show."""
UNREAD = ("summary.parquet", "lease.json", "scores/00000000.parquet")
"""Files that these commands can do without and do not miss."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    store = write_run(folder)
    store.write_scores({})
    (folder / "lease.json").write_bytes(b"{}")
    return folder


def damage(folder: Path, name: str, way: str) -> None:
    file = folder / name
    content = WAYS[way](file.read_bytes())
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_is_told_in_one_line(
    whole: Path,
    tmp_path: Path,
    name: str,
    way: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, command in enumerate(COMMANDS):
        run = tmp_path / str(number) / "run"
        shutil.copytree(whole, run)
        damage(run, name, way)
        places = {"RUN": str(run), "WHOLE": str(whole)}
        done = pmpo(capsys, monkeypatch, *(places.get(word, word) for word in command))
        _check(done, name, way)


def _check(done: Done, name: str, way: str) -> None:
    print(done.code, *done.lines, sep="\n")
    if name in NEEDED:
        assert done.code == 2
        assert len(done.lines) == 1
        assert done.lines[0].startswith("error: ")
        assert Path(name).name in done.lines[0]
        assert "new run" not in done.lines[0]
        return
    assert done.code == 0
    assert done.out
    assert len(done.lines) <= 1
    if way != "missing" and name not in UNREAD:
        assert Path(name).name in done.lines[0]


def test_the_best_instruction_is_found_without_best_json(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pmpo(capsys, monkeypatch, "export", str(whole)).out
    for way in WAYS:
        run = tmp_path / way
        shutil.copytree(whole, run)
        damage(run, "tasks/tickets/best.json", way)
        assert pmpo(capsys, monkeypatch, "export", str(run)).out == expected


def test_a_picked_instruction_is_found_in_the_result(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    store = RunStore.open(str(run))
    first = store.read_rounds("tickets")[0].candidates[0].candidate.text
    result = (run / "tasks/tickets/result.json").read_text()
    kept = store.read_task_result("tickets")
    assert kept is not None
    assert kept.best != first
    (run / "tasks/tickets/result.json").write_text(result.replace(_json(kept.best), _json(first)))
    damage(run, "tasks/tickets/best.json", "cut")
    assert pmpo(capsys, monkeypatch, "export", str(run)).out.strip() == first.strip()


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def test_a_damaged_result_is_taken_from_the_summary(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    expected = RunStore.open(str(run)).read_task_result("tickets")
    damage(run, "tasks/tickets/result.json", "cut")
    assert expected is not None
    assert RunStore.open(str(run)).read_task_result("tickets") == expected
    damage(run, "summary.parquet", "cut")
    assert RunStore.open(str(run)).read_task_result("tickets") is None
