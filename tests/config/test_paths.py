"""Paths of the user's files in a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_ray.config.loading import config_from_mapping, config_from_yaml, dump_config
from pmpo_ray.config.paths import missing_file
from pmpo_ray.config.resume import differences
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.errors import ConfigError


def test_a_kept_path_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mapping = {"tasks": [{"name": "a", "path": "a.csv", "test_path": "../b.csv"}], "data_dir": "data"}
    config = config_from_mapping(mapping, "here")
    kept = dump_config(config)
    monkeypatch.chdir("/")
    task = config_from_yaml(kept, "kept").tasks[0]
    assert (task.path, task.test_path) == (f"{tmp_path}/a.csv", f"{tmp_path}/../b.csv")
    assert config_from_yaml(kept, "kept").data_dir == f"{tmp_path}/data"
    assert config_from_yaml(kept, "kept") == config


def test_a_path_may_begin_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert TaskConfig(name="a", path="~/a.csv").path == str(tmp_path / "a.csv")
    assert TaskConfig(name="a", path="/x/~/a.csv").path == "/x/~/a.csv"


def test_data_may_have_been_moved_when_a_run_is_continued() -> None:
    old = RunConfig(tasks=(TaskConfig(name="a", path="/old/a.csv", test_path="/old/b.csv"),))
    new = RunConfig(tasks=(TaskConfig(name="a", path="/new/a.csv", test_path="/new/b.csv"),))
    assert differences(old, new) == ()


def test_an_address_is_no_path() -> None:
    with pytest.raises(ConfigError, match=r"tasks\.0\.path: .*not an address; download the data first"):
        config_from_mapping({"tasks": [{"name": "a", "path": "https://host/a.csv"}]}, "here")


def test_advice_on_a_missing_file_names_files_like_it(tmp_path: Path) -> None:
    for name in ("run.yaml", "bbh.yaml", "run.txt"):
        (tmp_path / name).write_text("")
    assert missing_file(tmp_path / "rum.yaml", (".yaml",)) == f"did you mean run.yaml in {tmp_path}?"
    assert missing_file(tmp_path / "x", (".yaml",)) == f"{tmp_path} has bbh.yaml, run.yaml; check the path"
    assert missing_file(tmp_path / "x", (".csv",)) == f"{tmp_path} has no file of this kind; check the path"
    assert missing_file("absent/x", (".csv",)) == "there is no folder absent; check the path"
    assert missing_file("s3://bucket/x", (".csv",)) == "name a file on this machine's disk"
