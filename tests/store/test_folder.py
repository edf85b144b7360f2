"""A run folder that cannot be made names the obstacle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import RunStore, hold


def refusal(location: str) -> str:
    with pytest.raises(RunFolderError) as refused, hold(location):
        pass
    assert "\n" not in str(refused.value)
    assert ".lock" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("below", ["", "/run", "/deep/run"])
def test_a_file_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("")
    assert f"{str(file)!r} is a file; choose another --run-dir" in refusal(f"{file}{below}")


@pytest.mark.parametrize("location", ["/proc/run", "/proc/deep/run"])
def test_a_place_of_the_system_is_named(location: str) -> None:
    assert "the system keeps no files of others in '/proc'" in refusal(location)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert f"{str(tmp_path / 'link')!r} is a broken link" in refusal(str(tmp_path / "link"))


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is permitted to root")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert f"no permission to write in {str(tmp_path)!r}" in refusal(str(tmp_path / "run"))


def test_a_name_that_is_too_long_is_said() -> None:
    assert "File name too long" in refusal("/tmp/" + "x" * 300)  # noqa: S108 - it is never made


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.html").write_text("")
    with pytest.raises(RunFolderError, match="is not a run folder, it is a file"):
        RunStore.open(str(tmp_path / "run.html"))
