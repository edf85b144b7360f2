"""Which tasks there are, and loading one by name.

Invariant: every registered name loads from a data folder or from the hub with the same settings; a name
that is not registered loads only with data of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TypeVar

from pmpo_ray.config.import_paths import imported, path_of
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.assembly import Draft, assemble
from pmpo_ray.tasks.bbh import BBH
from pmpo_ray.tasks.benchmarks import BENCHMARKS, Benchmark
from pmpo_ray.tasks.python_data import task_of_function
from pmpo_ray.tasks.rows import Row
from pmpo_ray.tasks.user_data import load_own
from pmpo_ray.types import Kind, Task

Made = TypeVar("Made", bound=FunctionType)

TICKETS = "tickets"
_REGISTERED: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*BBH, *BENCHMARKS)}
_functions: dict[str, FunctionType] = {}


@dataclass(frozen=True, slots=True)
class TaskListing:
    """A registered task. `rows` counts the examples that training and test are drawn from, without the
    test part that some data sets bring along."""

    task: str
    rows: int
    kind: Kind


def task(name: str) -> Callable[[Made], Made]:
    """Register a function as the task `name`, for `optimize(name)`: it takes no argument and returns a Task,
    or rows as dicts (or yields them). Decorate it at the top level of a module, script or notebook.

    Raises ConfigError for a name that is taken by another.
    """

    def register(function: Made) -> Made:
        earlier = _functions.get(name, function)
        same = (earlier.__module__, earlier.__qualname__) == (function.__module__, function.__qualname__)
        if not same or name == TICKETS or name in _REGISTERED:
            raise ConfigError(f"task {name!r} is registered already; choose another name")
        _functions[name] = function
        return function

    return register


def with_functions(config: RunConfig) -> RunConfig:
    """`config` with the import paths of registered functions, so that it says all by itself."""
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
    """Load a task with its negatives: own data where `path` or `hub` is set, else a registered benchmark,
    from files under `data_dir` or, where that is None, from the public hub.

    Raises ConfigError for an unknown name or settings that do not go with it, DataError for data that is
    missing or cannot be used.
    """
    if config.path is not None or config.hub is not None:
        return load_own(config, seed)
    function = _function(config)
    if function is not None:
        return task_of_function(config, function, seed)
    benchmark = _REGISTERED.get(config.name)
    if benchmark is None and config.name != TICKETS:
        raise ConfigError(_unknown(config.name))
    _refuse_data_settings(config)
    draft = _tickets(config) if benchmark is None else _draft(benchmark, config, data_dir)
    return assemble(draft, seed)


def needs_hub(config: TaskConfig, data_dir: str | None) -> bool:
    """Whether a task's data come from the public hub."""
    return config.hub is not None or (config.path is None and data_dir is None and config.name != TICKETS)


def list_tasks(data_dir: str | None) -> list[TaskListing]:
    """Every registered task, counted in the files under `data_dir` (a benchmark without its file there is
    left out), or with its published size where `data_dir` is None.

    Raises DataError where the folder does not exist or a file in it cannot be used.
    """
    listings = [TaskListing(TICKETS, len(_tickets(TaskConfig(name=TICKETS)).rows), "labels")]
    if data_dir is None:
        return listings + [TaskListing(b.name, b.published, b.kind) for b in _REGISTERED.values()]
    folder = Path(data_dir)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; set data_dir to the folder that holds the benchmark files"
        )
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
        instruction=config.instruction or benchmark.instruction,
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
        instruction=config.instruction or tickets.INSTRUCTION,
        rows=tuple(Row(text, label, f"{TICKETS} row {n}") for n, (text, label) in enumerate(pairs, start=1)),
        labels=tickets.LABELS,
    )


def _refuse_data_settings(config: TaskConfig) -> None:
    settings = {
        "test_path": config.test_path is not None,
        "labels": config.labels is not None,
        "columns": config.columns != ColumnsConfig(),
        "hub_config": config.hub_config is not None,
    }
    given = [name for name, is_given in settings.items() if is_given]
    if given:
        raise ConfigError(
            f"task {config.name!r} is registered and brings its own data, so {given[0]} cannot be set; "
            f"remove {given[0]}, or add path or hub for data of your own"
        )


def _unknown(name: str) -> str:
    known = [TICKETS, *_REGISTERED, *_functions]
    # A subtask is often named without its folder.
    by_last_part = {task.rpartition("/")[2]: task for task in known}
    close = [
        by_last_part[part] for part in difflib.get_close_matches(name.rpartition("/")[2], by_last_part, n=3)
    ]
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"task {name!r} is not registered; {meant}"
        "run `pmpo tasks` for all names, or add path, hub or function for data of your own"
    )
