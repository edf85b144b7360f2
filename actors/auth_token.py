"""The token of a Ray that this process starts: whoever has it can run code as this user.

Invariant: the file with the token is its owner's alone, from the moment it exists.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def provide_token() -> None:
    """Make the token that a local Ray uses by default, in Ray's place, which would let everybody read it. A
    home folder that cannot be written gets no file: the token then lives as long as this process."""
    if {_MODE, _TOKEN, _PATH} & os.environ.keys():
        return
    token = secrets.token_hex(32)
    if "HOME" not in os.environ:
        os.environ[_TOKEN] = token
        return
    path = Path(os.environ["HOME"], ".ray", "auth_token")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8", opener=_private) as file:
            file.write(token)
    except FileExistsError:
        _protect(path)
    except OSError:
        os.environ[_TOKEN] = token


def _protect(path: Path) -> None:
    status = path.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        path.chmod(0o600)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
