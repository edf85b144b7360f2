"""User-defined functions and classes, which a configuration names as "package.module:name".

Invariants: an import path means the same in every process that can import the module; every function or class
that is passed in Python has a path by which its process finds it again, so a configuration describes all
parts of a run.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType

from pmpo_ray.errors import ConfigError
from pmpo_ray.notes import note
from pmpo_ray.text import in_line

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_DOTTED = rf"{_NAME}(?:\.{_NAME})*"
_PATH = re.compile(rf"({_DOTTED}):({_DOTTED})")
_SCRIPT = "__main__"


def is_import_path(text: str) -> bool:
    """True for a text of the form "package.module:name"."""
    return _PATH.fullmatch(text) is not None


def imported(path: str, key: str) -> object:
    """The object at an import path, which may be in a module of the working directory. `key` is the key of
    the configuration that holds the path.

    Raises ConfigError if the module cannot be imported or has no such name; other errors of the module
    propagate.
    """
    module_name, _, name = path.partition(":")
    note_import(path, key)
    try:
        target: object = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{key}: {path} cannot be imported ({error}); run in the folder of the module, or install it"
        ) from error
    for part in name.split("."):
        if not hasattr(target, part):
            problem = (
                "belongs to another script or notebook; continue there with optimize()"
                if module_name == _SCRIPT
                else f"is not in the module {module_name}; check the name"
            )
            raise ConfigError(f"{key}: {path}: {name} {problem}")
        target = getattr(target, part)
    return target


def note_import(path: str, key: str, *, importer: str = "this process") -> None:
    """Tell the user which file is about to be imported for the key `key`, and by whom; nothing for a module
    that this process has imported before, and for those of this package. The working directory counts as a
    place of modules from here on."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    module_name = path.partition(":")[0]
    if module_name in sys.modules or module_name.partition(".")[0] == __name__.partition(".")[0]:
        return
    file = _file_of(module_name)
    if file is not None:
        note(f"{key}: {importer} imports the module {module_name} from {in_line(file)}")


def _file_of(module_name: str) -> str | None:
    """The file of a module, found without importing a package around it; None if there is none."""
    folders: Sequence[str] | None = None
    spec = None
    for index in range(module_name.count(".") + 1):
        name = ".".join(module_name.split(".")[: index + 1])
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations and list(spec.submodule_search_locations)
    return None if spec is None else spec.origin


def path_of(target: object, key: str) -> str:
    """The import path of a function or a class. Raises ConfigError for an object without one."""
    if not isinstance(target, type | FunctionType):
        raise ConfigError(
            f"{key}: a {type(target).__name__} has no import path; pass a function, a class, or the import "
            "path of an object in a module"
        )
    path = f"{target.__module__}:{target.__qualname__}"
    try:
        same = is_import_path(path) and imported(path, key) is target
    except ConfigError:
        same = False
    if not same:
        raise ConfigError(
            f"{key}: {target.__qualname__} cannot be imported by that name; define it at the top level of a "
            "module, script or notebook"
        )
    return path


def with_paths(value: object, key: str) -> object:
    """`value` with import paths in place of the functions and classes in it, at any depth."""
    if isinstance(value, Mapping):
        return {name: with_paths(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_paths(item, key) for item in value]
    return path_of(value, key) if isinstance(value, type | FunctionType) else value


def script_object(path: str, key: str) -> object | None:
    """The object at an import path if it is defined in this process's script or notebook, and so has to be
    sent to other processes; None if they can import it."""
    return imported(path, key) if path.startswith(f"{_SCRIPT}:") else None
