"""Damage to the files of a run folder, and commands on it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from pmpo_ray.cli import main as cli

WAYS: Mapping[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * (1 + len(content) // 256),
    "other shape": lambda _: b'{"lineage": [], "task": ["x"], "rounds": {"a": null}, "data": 3}',
    "deep": lambda _: b'{"a":' * 100_000,
    "missing": lambda _: None,
}
"""Ways to damage a file: from its content to the damaged one, None if the file is gone."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    lines: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines on standard error, without an error's."""
        return tuple(line for line in self.lines if not line.startswith("error: "))


def pmpo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Done:
    """Run a command. An exception that leaves it is a failed test."""
    monkeypatch.setattr(sys, "argv", ["pmpo", *arguments])
    # What a command changes for good before it ends would outlast it here.
    monkeypatch.setattr(cli, "open_standard_streams", lambda: None)
    monkeypatch.setattr(cli, "ignore_signals", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return Done(code, out, tuple(err.splitlines()))
