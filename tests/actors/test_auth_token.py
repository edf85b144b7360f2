"""The token of a local Ray: its file is its owner's alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pmpo_ray.actors.auth_token import provide_token


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the token in a home folder without one."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def test_a_new_token_can_be_read_by_its_owner_alone(token: Path) -> None:
    provide_token()
    assert token.stat().st_mode & 0o777 == 0o600
    first = token.read_text(encoding="utf-8")
    assert len(first) == 64
    provide_token()
    assert token.read_text(encoding="utf-8") == first
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_token_that_everybody_could_read_is_protected(token: Path) -> None:
    token.parent.mkdir()
    token.write_text("old", encoding="utf-8")
    token.chmod(0o644)
    provide_token()
    assert (token.read_text(encoding="utf-8"), token.stat().st_mode & 0o777) == ("old", 0o600)


@pytest.mark.parametrize("home", [None, "/proc/none", "/dev/null"])
def test_without_a_home_that_can_be_written_the_token_stays_in_the_process(
    token: Path, home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    monkeypatch.delenv("RAY_AUTH_TOKEN")  # the fixture's end removes what the call sets
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    provide_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_a_users_own_choice_is_left_alone(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    provide_token()
    assert not token.exists()
