"""Parts of the user's own: functions and classes that a configuration names as "package.module:name".

Invariants: such a path means the same in every process that can import the module; whatever is handed over in
Python has a path by which its own process finds it again, so a configuration tells all that a run is made of.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType

from pmpo_ray.errors import ConfigError

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_DOTTED = rf"{_NAME}(?:\.{_NAME})*"
_PATH = re.compile(rf"({_DOTTED}):({_DOTTED})")
_SCRIPT = "__main__"


def is_import_path(text: str) -> bool:
    """Whether this is of the form "package.module:name"."""
    return _PATH.fullmatch(text) is not None


def imported(path: str, key: str) -> object:
    """What the import path names; modules in the working directory are found, too. `key` is the key of the
    configuration that holds the path.

    Raises ConfigError where there is no such module or nothing of that name in it; what the module itself
    raises is let through.
    """
    module_name, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: {path} cannot be imported ({error}); run where the module lies, or install it"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            where = (
                "of a script or notebook that is not this one; go on from there with optimize()"
                if module_name == _SCRIPT
                else f"not in the module {module_name}; check the name"
            )
            raise ConfigError(f"{key}: {path}: {name} is {where}")
        found = getattr(found, part)
    return found


def path_of(thing: object, key: str) -> str:
    """The import path of a function or a class. Raises ConfigError for anything that has none."""
    if not isinstance(thing, type | FunctionType):
        raise ConfigError(
            f"{key}: a {type(thing).__name__} has no name of its own; give a function, a class, or the "
            "import path of what is made already"
        )
    path = f"{thing.__module__}:{thing.__qualname__}"
    try:
        found = imported(path, key) if is_import_path(path) else None
    except ConfigError:
        found = None
    if found is not thing:
        raise ConfigError(
            f"{key}: {thing.__qualname__} is not what its module, script or notebook calls so; define "
            "it there at the top level"
        )
    return path


def with_paths(value: object, key: str) -> object:
    """`value` with the import paths of the functions and classes in it, at any depth."""
    if isinstance(value, Mapping):
        return {name: with_paths(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_paths(item, key) for item in value]
    return path_of(value, key) if isinstance(value, type | FunctionType) else value


def carried(path: str, key: str) -> object | None:
    """What a path names, where it has to be sent to other processes because it stands in this one's script or
    notebook; None where they import it themselves."""
    return imported(path, key) if path.startswith(f"{_SCRIPT}:") else None
