"""From what `optimize` is called with to a configuration, and the tasks whose data come along.

Invariants: what a call means does not depend on what lies in the working directory; the configuration says of
everything that was handed over in Python what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import TypeAlias, TypeGuard

from pmpo_ray.config.import_paths import path_of, with_paths
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.run import RunConfig
from pmpo_ray.store.kept_config import requested_config
from pmpo_ray.tasks.files import SUFFIXES
from pmpo_ray.tasks.python_data import Rows, checked, is_rows, task_of_rows
from pmpo_ray.tasks.registry import with_functions
from pmpo_ray.types import Task

Source: TypeAlias = RunConfig | str | Path | Task | Rows | Sequence[str | Task]
"""What may be optimised: see `pmpo_ray.optimize`."""

OWN_NAME = "mine"
_YAML = (".yaml", ".yml")
_CALLER = "optimize()"


@dataclass(frozen=True, slots=True)
class TaskWords:
    """What a caller says of the task in the first argument, by the keys of a task's configuration."""

    name: str | None = None
    columns: Mapping[str, str] | None = None
    labels: Sequence[str] | None = None
    instruction: str | None = None
    description: str | None = None

    def said(self) -> dict[str, object]:
        """The keys that were given."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


def requested(
    source: Source | None,
    words: TaskWords,
    search: Mapping[str, object],
    *,
    settings: Mapping[str, object],
    overrides: Sequence[str],
    run_dir: str | None,
) -> tuple[RunConfig, dict[str, Task]]:
    """The configuration that a call of `optimize` asks for, and the tasks that were handed over, by name.

    `search` holds the keys of that section that are keywords of their own, `settings` the configuration's.
    Raises ConfigError or DataError for what is wrong in them, and TypeError for arguments that do not go
    together.
    """
    settings, search = _named(settings), _named(search)
    if source is None or _is_configuration(source):
        for word in words.said():
            raise TypeError(f"{word} is said of data or of the name of a task in the first argument")
        return with_functions(_configured(source, search, settings, overrides, run_dir)), {}
    if overrides:
        raise TypeError("overrides change a YAML file; give the configuration's keys as keywords")
    if "tasks" in settings:
        raise TypeError("give tasks as the first argument or as the keyword, not both")
    tasks, handed = _tasks(source, words)
    config = config_from_mapping({**_with_search(settings, search), "tasks": tasks}, _CALLER)
    given = {
        settings.name: checked(data) if isinstance(data, Task) else task_of_rows(settings, data, config.seed)
        for settings, data in zip(config.tasks, handed, strict=True)
        if data is not None
    }
    return with_functions(config), given


def _named(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings with import paths in the place of functions and classes."""
    return {key: with_paths(value, key) for key, value in settings.items()}


def _is_configuration(source: Source) -> TypeGuard[RunConfig | str | Path]:
    is_path = isinstance(source, Path) and not _ends_in(source, SUFFIXES)
    return is_path or isinstance(source, RunConfig) or _ends_in(source, _YAML)


def _configured(
    source: RunConfig | str | Path | None,
    search: Mapping[str, object],
    settings: Mapping[str, object],
    overrides: Sequence[str],
    run_dir: str | None,
) -> RunConfig:
    """The configuration in a file, of a run folder, or of keywords alone."""
    if settings and (source is not None or overrides):
        raise TypeError("give a configuration with overrides, or the configuration's keys, not both")
    if isinstance(source, RunConfig):
        if overrides or search:
            raise TypeError("a RunConfig is taken as it is; change it with model_copy")
        return source
    if source is not None or (run_dir is not None and not settings):
        more = [f"search.{key}={json.dumps(value)}" for key, value in search.items()]
        return requested_config(None if source is None else str(source), [*overrides, *more], run_dir)
    return config_from_mapping(_with_search(settings, search), _CALLER)


def _with_search(settings: Mapping[str, object], search: Mapping[str, object]) -> dict[str, object]:
    section = settings.get("search", {})
    if not search or not isinstance(section, Mapping):
        return dict(settings)
    for key in search.keys() & section.keys():
        raise TypeError(f"{key} is given twice: as a keyword and in search")
    return {**settings, "search": {**section, **search}}


def _tasks(source: Source, words: TaskWords) -> tuple[list[dict[str, object]], list[Task | Rows | None]]:
    """The configuration of every task, and beside it what was handed over for it."""
    if is_rows(source):
        return [{"name": OWN_NAME, "given": True, **words.said()}], [source]
    sources = [source] if isinstance(source, str | Path | Task | FunctionType) else source
    if not isinstance(sources, list | tuple):
        raise TypeError(f"a {type(source).__name__} is nothing to optimise for; see help(pmpo_ray.optimize)")
    if len(sources) != 1:
        for word in words.said():
            raise TypeError(f"{word} is said of one task, and there are {len(sources)}")
    tasks = [{**_task(one), **words.said()} for one in sources]
    return tasks, [one if isinstance(one, Task) else None for one in sources]


def _task(source: object) -> dict[str, object]:
    if isinstance(source, Task):
        return {"name": source.name, "given": True}
    if isinstance(source, FunctionType):
        return {"name": source.__name__, "function": path_of(source, "optimize()")}
    if isinstance(source, str | Path) and _ends_in(source, SUFFIXES):
        return {"name": Path(source).stem, "path": str(source)}
    if isinstance(source, str):
        return {"name": source}
    raise TypeError(
        f"a {type(source).__name__} is no task; give the name of a task, a data file, a Task or a function"
    )


def _ends_in(source: object, suffixes: Iterable[str]) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix.lower() in suffixes
