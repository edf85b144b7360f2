"""The registered tasks, and loading a task by name.

Invariants: every registered name loads from a data folder or from the hub with the same settings; a name that
is not registered loads only with the user's data.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import TypeVar

from pmpo_ray.config.import_paths import imported, path_of
from pmpo_ray.config.paths import at_home
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.assembly import Draft, assemble
from pmpo_ray.tasks.bbh import BBH
from pmpo_ray.tasks.benchmarks import BENCHMARKS, Benchmark
from pmpo_ray.tasks.python_data import task_of_function
from pmpo_ray.tasks.right_answers import with_contradictions_noted
from pmpo_ray.tasks.rows import Row
from pmpo_ray.tasks.user_data import load_user_data
from pmpo_ray.types import Kind, Task

Made = TypeVar("Made", bound=FunctionType)

TICKETS = "tickets"
_REGISTERED: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*BBH, *BENCHMARKS)}
_functions: dict[str, FunctionType] = {}


@dataclass(frozen=True, slots=True)
class TaskListing:
    """A registered task. `rows` counts the examples that training and test parts are drawn from, without the
    test part that some data sets define."""

    task: str
    rows: int
    kind: Kind


def task(name: str) -> Callable[[Made], Made]:
    """Register a function as the task `name`, for `optimize(name)`. It takes no arguments, and returns a Task
    or rows as dicts, or yields such rows. Decorate it at the top level of a module, script or notebook.

    Raises ConfigError if the name is already registered.
    """

    def register(function: Made) -> Made:
        earlier = _functions.get(name, function)
        same = (earlier.__module__, earlier.__qualname__) == (function.__module__, function.__qualname__)
        if not same or name == TICKETS or name in _REGISTERED:
            raise ConfigError(f"task {name!r} is already registered; choose another name")
        _functions[name] = function
        return function

    return register


def with_functions(config: RunConfig) -> RunConfig:
    """`config` with the import paths of registered functions, so that it is complete without the registry."""
    tasks = tuple(
        settings.model_copy(
            update={"function": path_of(_functions[settings.name], f"task {settings.name!r}")}
        )
        if settings.name in _functions and not _has_data(settings)
        else settings
        for settings in config.tasks
    )
    return config.model_copy(update={"tasks": tasks})


def _has_data(config: TaskConfig) -> bool:
    return bool(config.given or config.path or config.hub or config.function)


def load_task(config: TaskConfig, data_dir: str | None, seed: int) -> Task:
    """Load a task with its negatives: the user's data if `path` or `hub` is set, else the rows of a function,
    else a registered benchmark, from files in `data_dir` or, if that is None, from the public hub.

    Raises ConfigError for an unknown name or settings that do not apply to it, DataError for data that are
    missing or cannot be used.
    """
    if config.path is not None or config.hub is not None:
        return load_user_data(config, seed)
    function = _function(config)
    if function is not None:
        return task_of_function(config, function, seed)
    benchmark = _REGISTERED.get(config.name)
    if benchmark is None and config.name != TICKETS:
        raise ConfigError(_unknown(config.name))
    _refuse_data_settings(config)
    draft = _tickets(config) if benchmark is None else _draft(benchmark, config, data_dir)
    return with_contradictions_noted(assemble(draft, seed))


def needs_hub(config: TaskConfig, data_dir: str | None) -> bool:
    """True if a task's data come from the public hub."""
    return config.hub is not None or (config.path is None and data_dir is None and config.name != TICKETS)


def list_tasks(data_dir: str | None) -> list[TaskListing]:
    """Every registered task, with the number of its rows in `data_dir` (benchmarks without a file there are
    left out), or with its published size if `data_dir` is None.

    Raises DataError if the folder does not exist or a file in it cannot be used.
    """
    listings = [TaskListing(TICKETS, len(_tickets(TaskConfig(name=TICKETS)).rows), "labels")]
    if data_dir is None:
        return listings + [TaskListing(b.name, b.published, b.kind) for b in _REGISTERED.values()]
    folder = at_home(data_dir)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set data_dir to the folder with the benchmark files")
    present = [b for b in _REGISTERED.values() if (folder / b.examples.file).is_file()]
    return listings + [TaskListing(b.name, len(b.examples.read(data_dir)), b.kind) for b in present]


def _function(config: TaskConfig) -> object | None:
    if config.function is not None:
        return imported(config.function, f"task {config.name!r}: function")
    return _functions.get(config.name)


def _draft(benchmark: Benchmark, config: TaskConfig, data_dir: str | None) -> Draft:
    return Draft(
        name=benchmark.name,
        kind=benchmark.kind,
        description=config.description or benchmark.description,
        instructions=config.instructions or (benchmark.instruction,),
        rows=benchmark.examples.read(data_dir),
        test_rows=benchmark.test.read(data_dir) if benchmark.test is not None else (),
        labels=benchmark.labels,
    )


def _tickets(config: TaskConfig) -> Draft:
    from pmpo_ray.tasks import tickets

    pairs = tickets.load_rows()
    return Draft(
        name=TICKETS,
        kind="labels",
        description=config.description or tickets.DESCRIPTION,
        instructions=config.instructions or (tickets.INSTRUCTION,),
        rows=tuple(Row(text, label, f"{TICKETS} row {n}") for n, (text, label) in enumerate(pairs, start=1)),
        labels=tickets.LABELS,
        meanings=tickets.MEANINGS,
    )


def _refuse_data_settings(config: TaskConfig) -> None:
    settings = {
        "test_path": config.test_path is not None,
        "labels": config.labels is not None,
        "columns": config.columns != ColumnsConfig(),
        "hub_config": config.hub_config is not None,
    }
    refused = [name for name, is_set in settings.items() if is_set]
    if refused:
        raise ConfigError(
            f"task {config.name!r} is registered with its data, so {refused[0]} cannot be set; "
            f"remove {refused[0]}, or add path or hub to use your own data"
        )


def _unknown(name: str) -> str:
    known = [TICKETS, *_REGISTERED, *_functions]
    # Users often name a subtask without its folder.
    by_last_part = {task.rpartition("/")[2]: task for task in known}
    close = [
        by_last_part[part] for part in difflib.get_close_matches(name.rpartition("/")[2], by_last_part, n=3)
    ]
    suggestion = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"task {name!r} is not registered; {suggestion}"
        "run `pmpo tasks` for all names, or add path, hub or function to use your own data"
    )
