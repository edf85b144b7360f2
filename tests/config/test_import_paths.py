"""A user's module is named before it is imported for the first time."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pmpo_ray.config.import_paths import imported, note_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose import prints a line and whose module has a function."""
    folder = tmp_path / "theirs_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("print('ran')\n", encoding="utf-8")
    (folder / "work.py").write_text("def rows():\n    return []\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def test_a_module_is_named_with_its_file_before_any_of_its_code_runs(
    package: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "pmpo_ray.notes")
    try:
        note_import("theirs_of_test.work:rows", "scorer.engine", importer="a replica")
        assert capsys.readouterr().out == ""
        assert imported("theirs_of_test.work:rows", "task 'x': function") is not None
        assert capsys.readouterr().out == "ran\n"
        imported("theirs_of_test.work:rows", "task 'x': function")
    finally:
        for name in ("theirs_of_test", "theirs_of_test.work"):
            sys.modules.pop(name, None)
    what = f"imports the module theirs_of_test.work from {package}/work.py"
    assert caplog.messages == [f"scorer.engine: a replica {what}", f"task 'x': function: this process {what}"]


def test_modules_of_this_package_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pmpo_ray.notes")
    imported("pmpo_ray.tasks.assembly:assemble", "x")
    assert caplog.messages == []
