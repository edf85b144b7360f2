"""Paths of the user's files.

Invariant: a path in a configuration is absolute, so that a run can be continued from another working
directory.
"""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_MAX_LISTED = 10_000
"""The number of entries of a folder that are compared with the name of a missing file."""


def is_url(path: str) -> bool:
    """True for an address such as s3://bucket/rows.csv, which is no path on a disk."""
    return "://" in path


def at_home(path: str | Path) -> Path:
    """The path with the user's home folder for `~`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # there is no such user
        return Path(path)


def _absolute(path: str) -> str:
    if is_url(path):
        raise ValueError("should be a path on this machine's disk, not an address; download the data first")
    try:
        return str(at_home(path).absolute())
    except FileNotFoundError:
        return path  # the working directory was removed


DataPath = Annotated[str, AfterValidator(_absolute)]
"""The path of data on a disk. A relative one starts at the working directory, `~` is the home folder."""


def missing_file(path: str | Path, suffixes: tuple[str, ...]) -> str:
    """Advice on a file that does not exist: files with similar names, those that its folder has, or that
    there is no such folder. Files with other `suffixes` are not named."""
    if is_url(str(path)):
        return "name a file on this machine's disk"
    try:
        folder = Path(path).absolute().parent
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in islice(entries, _MAX_LISTED) if entry.is_file())
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no folder {Path(path).parent}; check the path"
    except OSError:
        return "check the path"
    like_it = [name for name in names if name.lower().endswith(suffixes)]
    # The endings, which are alike, are left out.
    stem, stems = _stem(Path(path).name), {name: _stem(name) for name in like_it}
    close = difflib.get_close_matches(stem, stems.values())
    near = [name for name in like_it if stems[name] in close][:3]
    if near:
        return f"did you mean {' or '.join(near)} in {folder}?"
    if like_it:
        more = f" and {len(like_it) - 3} more" if len(like_it) > 3 else ""
        return f"{folder} has {', '.join(like_it[:3])}{more}; check the path"
    return f"{folder} has no file of this kind; check the path"


def _stem(name: str) -> str:
    return name.partition(".")[0]
