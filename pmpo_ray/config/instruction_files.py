"""Instructions of an evaluation that a configuration names as files, @FILE.

Invariants: after loading, a configuration holds the texts, not the names of files, so a run folder needs no
other file; a file that a configuration names is read only if it lies below the folder of that configuration,
since configurations and run folders come from others too. The command line and Python may name any file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmpo_ray.config.messages import KeyPath, dotted, shown
from pmpo_ray.errors import ConfigError

Instruction = str | dict[str, str]
"""A text, or a mapping of tasks to texts. "@@" at the beginning of a text stands for "@"."""

_PATH: KeyPath = ("evaluation", "instructions")


def with_texts(value: Any, folder: Path | None, path: KeyPath = ()) -> Any:
    """The value at `path` of a configuration, with texts in place of @FILE. `folder`: the one that the files
    have to be in, None for any. Raises ConfigError for a file that may not or cannot be read."""
    common = min(len(path), len(_PATH))
    if path[:common] != _PATH[:common]:
        return value
    if len(path) > len(_PATH):
        return instruction_text(value, dotted(path), folder) if len(path) == len(_PATH) + 1 else value
    if not isinstance(value, Mapping):
        return value
    names = value if len(path) == len(_PATH) else {_PATH[len(path)]} & value.keys()
    return {**value, **{name: with_texts(value[name], folder, (*path, name)) for name in names}}


def instruction_text(value: Any, key: str, folder: Path | None) -> Any:
    """The text, or the texts by task, in the file that the instruction `value` names; `value` itself if it
    names none. Errors as in `with_texts`."""
    if not isinstance(value, str) or not value.startswith("@") or value.startswith("@@"):
        return value
    path = Path(value[1:])
    name = shown(path)
    try:
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{key}: {name} is not below {shown(folder)}, and a configuration may name no file outside "
                "its own folder; move the file there, or name it on the command line: --instruction FILE"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{key}: {name} cannot be read as UTF-8 text: {error}") from None
    if path.suffix != ".json":
        text = text.strip()
        return f"@{text}" if text.startswith("@") else text
    try:
        table = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{key}: {name} is not JSON: {error}") from None
    if not isinstance(table, dict) or not all(isinstance(entry, str) for entry in table.values()):
        raise ConfigError(f"{key}: {name} must be a JSON object that maps names of tasks to instructions")
    return table
