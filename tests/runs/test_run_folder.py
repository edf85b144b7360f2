"""The folder of a new run belongs to that run alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.runs.run_folder import run_location
from tests.run_folders import simulated_config


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_that_start_in_one_second_have_folders_of_their_own() -> None:
    config = simulated_config()
    with ExitStack() as open_runs:
        with ThreadPoolExecutor(8) as threads:
            runs = [threads.submit(open_runs.enter_context, run_location(config)) for _ in range(24)]
        found = [run.result() for run in runs]
        assert len(set(found)) == 24
        assert all(Path(location).is_dir() for location in found)
        assert all(location.startswith("runs/") and "-tickets" in location for location in found)


def test_a_new_folder_stays_only_if_something_was_written() -> None:
    with run_location(simulated_config()) as location:
        (Path(location) / "config.yaml").write_text("")
    assert Path(location).is_dir()
    with pytest.raises(ZeroDivisionError), run_location(simulated_config()) as unused:
        raise ZeroDivisionError
    assert not Path(unused).exists()


def test_a_configured_folder_is_left_to_the_run(here: Path) -> None:
    with run_location(simulated_config(run_dir=str(here / "mine"))) as location:
        assert location == str(here / "mine")
    assert not (here / "mine").exists()


def test_a_place_without_room_for_runs_is_named(here: Path) -> None:
    (here / "runs").write_text("")
    with pytest.raises(RunFolderError, match=r"runs' is a file; choose another --run-dir"):
        run_location(simulated_config()).__enter__()
