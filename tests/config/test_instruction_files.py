"""Instructions that a configuration names as files: their texts are kept, and no file elsewhere is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pmpo_ray.config.loading import config_from_mapping, config_from_yaml, dump_config, load_config
from pmpo_ray.config.overrides import Override, parse_overrides
from pmpo_ray.errors import ConfigError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("from elsewhere", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "a.txt").write_text("Think.\n", encoding="utf-8")
    (folder / "at.txt").write_text("@home is a place", encoding="utf-8")
    (folder / "all.json").write_text(json.dumps({"t": "For t."}), encoding="utf-8")
    (folder / "link.txt").symlink_to(outside)
    monkeypatch.chdir(folder)
    return folder


def configured(folder: Path, **instructions: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"evaluation": {"instructions": instructions}}), encoding="utf-8")
    return path


def test_files_below_the_configuration_become_texts_that_the_run_folder_keeps(folder: Path) -> None:
    config = load_config(
        str(configured(folder, a="@texts/a.txt", at="@at.txt", all="@all.json", plain="Go."))
    )
    assert config.evaluation.instructions == {
        "a": "Think.",
        "at": "@@home is a place",
        "all": {"t": "For t."},
        "plain": "Go.",
    }
    assert config_from_yaml(dump_config(config), "config.yaml") == config


@pytest.mark.parametrize("name", ["@../secret.txt", "@link.txt", "@/etc/hostname", "@texts/../../secret.txt"])
def test_a_configuration_reads_no_file_elsewhere(folder: Path, name: str) -> None:
    path = configured(folder, mine=name)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    assert str(caught.value) == (
        f"{path}: evaluation.instructions.mine: {name[1:]} is not below {folder}, and a configuration may "
        "name no file outside its own folder; move the file there, or name it on the command line: "
        "--instruction FILE"
    )


def test_the_command_line_and_python_may_name_any_file(folder: Path, outside: Path) -> None:
    path = str(configured(folder, other="x"))
    texts = [f"evaluation.instructions.mine='@{outside}'", f"evaluation.instructions={{mine: '@{outside}'}}"]
    for text in texts:
        given = load_config(path, parse_overrides([text])).evaluation.instructions
        assert given["mine"] == "from elsewhere"
    whole = load_config(path, [Override(("evaluation",), {"instructions": {"mine": f"@{outside}"}}, "x")])
    assert whole.evaluation.instructions == {"mine": "from elsewhere"}
    made = config_from_mapping({"evaluation": {"instructions": {"mine": f"@{outside}"}}}, "optimize()")
    assert made.evaluation.instructions == {"mine": "from elsewhere"}


@pytest.mark.parametrize(
    ("content", "name", "complaint"),
    [
        (None, "none.txt", "cannot be read as UTF-8 text"),
        (b"\xff", "bad.txt", "cannot be read as UTF-8 text"),
        (b"[", "bad.json", "is not JSON"),
        (b'["x"]', "list.json", "must be a JSON object that maps names of tasks to instructions"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    folder: Path, content: bytes | None, name: str, complaint: str
) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"instructions.mine: {name} {complaint}"):
        load_config(str(configured(folder, mine=f"@{name}")))


def test_what_is_no_mapping_of_instructions_is_an_error_about_its_kind(folder: Path) -> None:
    for value in ("evaluation: 3", "evaluation: {instructions: 3}", "evaluation: {instructions: {a: [1]}}"):
        (folder / "run.yaml").write_text(value, encoding="utf-8")
        with pytest.raises(ConfigError, match="evaluation"):
            load_config(str(folder / "run.yaml"))
