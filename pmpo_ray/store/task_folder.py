"""The folder name of a task.

Invariants: different task names have different folders, also on file systems that ignore case. A folder name
has 1 to 120 characters of [A-Za-z0-9._~-], is never "." or "..", and works on every common file system.
"""

from __future__ import annotations

import hashlib
import re

_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_ORDINARY = re.compile(rf"{_PART}(?:/{_PART})*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
# Windows reserves these names, with any extension, for devices.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")
_LONGEST_ORDINARY = 100
_LONGEST_PREFIX = 60


def task_folder(name: str) -> str:
    """The folder of task `name`: for an ordinary name, the name with "/" written as "__" ("bbh/navigate"
    gives "bbh__navigate"); for another, its readable characters, "~" and 16 hex digits of its SHA-256.

    The parts of an ordinary name consist of a-z, 0-9, ".", "_" and "-", and begin and end with a letter or a
    digit. It contains no "__", so no two ordinary names share a folder, and no "~", so none shares one with
    another name.
    """
    folder = name.replace("/", "__")
    ordinary = _ORDINARY.fullmatch(name) and "__" not in name and not _DEVICE.fullmatch(folder)
    if ordinary and len(folder) <= _LONGEST_ORDINARY:
        return folder
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    prefix = _UNSAFE.sub("-", folder).strip("_-")[:_LONGEST_PREFIX] or "task"
    return f"{prefix}~{digest}"
