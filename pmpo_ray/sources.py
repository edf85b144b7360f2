"""From the arguments of `optimize` to a configuration, and to the tasks whose data were passed in Python.

Invariants: the meaning of a call does not depend on the files in the working directory; the configuration
describes everything that was passed in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FunctionType
from typing import TypeAlias, TypeGuard

from pmpo_ray.config.import_paths import path_of, with_paths
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.overrides import Override, section_overrides
from pmpo_ray.config.run import RunConfig
from pmpo_ray.store.kept_config import requested_config
from pmpo_ray.tasks.files import suffix_of
from pmpo_ray.tasks.python_data import Rows, checked, is_rows, task_of_rows
from pmpo_ray.tasks.registry import with_functions
from pmpo_ray.types import Task

Source: TypeAlias = RunConfig | str | Path | Task | Rows | Sequence[str | Task]
"""What `pmpo_ray.optimize` accepts as its first argument."""

_UNNAMED = "mine"
"""The name of a task whose rows were passed without one."""
_YAML = (".yaml", ".yml")
_CALLER = "optimize()"


@dataclass(frozen=True, slots=True)
class TaskKeywords:
    """The keywords of `optimize` that describe one task, by the keys of a task's configuration."""

    name: str | None = None
    columns: Mapping[str, str] | None = None
    labels: Sequence[str] | Mapping[str, str] | None = None
    instruction: str | Sequence[str] | None = None
    description: str | None = None

    def present(self) -> dict[str, object]:
        """The keywords that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


def requested(
    source: Source | None,
    keywords: TaskKeywords,
    search: Mapping[str, object],
    *,
    settings: Mapping[str, object],
    overrides: Sequence[Override],
    run_dir: str | None,
) -> tuple[RunConfig, dict[str, Task]]:
    """The configuration of a call of `optimize`, and the tasks whose data were passed in Python, by name.

    `search` holds the keys of that section that `optimize` has as keywords, `settings` those of the whole
    configuration. Raises ConfigError or DataError for a mistake in them, and TypeError for arguments that
    exclude each other.
    """
    settings, search = _with_import_paths(settings), _with_import_paths(search)
    if source is None or _is_configuration(source):
        for keyword in keywords.present():
            raise TypeError(f"{keyword} describes a task in the first argument; here it is a key of tasks")
        config = _configuration(source, search, settings, overrides, run_dir)
        python_data: dict[str, Task] = {}
    else:
        if overrides:
            raise TypeError("overrides change a YAML file; pass the configuration's keys as keywords")
        if "tasks" in settings:
            raise TypeError("pass tasks as the first argument or as the keyword, not both")
        tasks, data = _tasks(source, keywords)
        config = config_from_mapping({**_with_search(settings, search), "tasks": tasks}, _CALLER)
        python_data = _python_data(config, data)
    if run_dir is not None:
        config = config.model_copy(update={"run_dir": run_dir})
    return with_functions(config), python_data


def _python_data(config: RunConfig, data: Sequence[Task | Rows | None]) -> dict[str, Task]:
    """The tasks made from the data that were passed for the configuration's tasks, by name."""
    return {
        settings.name: checked(rows) if isinstance(rows, Task) else task_of_rows(settings, rows, config.seed)
        for settings, rows in zip(config.tasks, data, strict=True)
        if rows is not None
    }


def _with_import_paths(settings: Mapping[str, object]) -> dict[str, object]:
    """The settings with import paths in place of functions and classes."""
    return {key: with_paths(value, key) for key, value in settings.items()}


def _is_configuration(source: Source) -> TypeGuard[RunConfig | str | Path]:
    is_path = isinstance(source, Path) and suffix_of(source) is None
    return is_path or isinstance(source, RunConfig) or _is_yaml(source)


def _configuration(
    source: RunConfig | str | Path | None,
    search: Mapping[str, object],
    settings: Mapping[str, object],
    overrides: Sequence[Override],
    run_dir: str | None,
) -> RunConfig:
    """The configuration from a RunConfig, a file, a run folder, or keywords alone."""
    if settings and (source is not None or overrides):
        raise TypeError("pass a configuration with overrides, or the configuration's keys, not both")
    if isinstance(source, RunConfig):
        if overrides or search:
            raise TypeError("a RunConfig is used as it is; change it with model_copy")
        return source
    if source is not None or (run_dir is not None and not settings):
        changes = [*overrides, *section_overrides("search", search, _CALLER)]
        return requested_config(None if source is None else str(source), changes, run_dir)
    return config_from_mapping(_with_search(settings, search), _CALLER)


def _with_search(settings: Mapping[str, object], search: Mapping[str, object]) -> dict[str, object]:
    section = settings.get("search", {})
    if not search or not isinstance(section, Mapping):
        return dict(settings)
    for key in search.keys() & section.keys():
        raise TypeError(f"{key} is given twice: as a keyword and in search")
    return {**settings, "search": {**section, **search}}


def _tasks(
    source: Source, keywords: TaskKeywords
) -> tuple[list[dict[str, object]], list[Task | Rows | None]]:
    """The configuration of every task, and the data that were passed for each, if any."""
    if is_rows(source):
        return [{"name": _UNNAMED, "given": True, **keywords.present()}], [source]
    sources = [source] if isinstance(source, str | Path | Task | FunctionType) else source
    if not isinstance(sources, list | tuple):
        raise TypeError(f"cannot optimise for a {type(source).__name__}; see help(pmpo_ray.optimize)")
    if len(sources) != 1:
        for keyword in keywords.present():
            raise TypeError(f"{keyword} describes one task, but there are {len(sources)}")
    tasks = [{**_task(one), **keywords.present()} for one in sources]
    return tasks, [one if isinstance(one, Task) else None for one in sources]


def _task(source: object) -> dict[str, object]:
    if isinstance(source, Task):
        return {"name": source.name, "given": True}
    if isinstance(source, FunctionType):
        return {"name": source.__name__, "function": path_of(source, _CALLER)}
    if isinstance(source, str | Path) and (suffix := suffix_of(source)) is not None:
        return {"name": Path(source).name[: -len(suffix)], "path": str(source)}
    if isinstance(source, str):
        return {"name": source}
    raise TypeError(
        f"a {type(source).__name__} is not a task; pass the name of a task, a data file, a Task or a function"
    )


def _is_yaml(source: object) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix.lower() in _YAML
