"""Data that are given in Python: tables, lists of rows, whole tasks, and functions that make either.

Invariant: rows become examples as those of a data file do, with the same errors, which name the row (counted
from 1); what a table calls missing is missing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast, get_args

from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.files import Record
from pmpo_ray.tasks.hub import named_rows
from pmpo_ray.tasks.user_data import task_from
from pmpo_ray.types import Example, Kind, Task

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pandas as pd

Rows: TypeAlias = Union["pd.DataFrame", "datasets.Dataset", Sequence[Mapping[str, object]]]
"""Data as a table or as a list of rows."""


def is_rows(data: object) -> bool:
    """Whether these are `Rows`."""
    if isinstance(data, list | tuple):
        return all(isinstance(row, Mapping) for row in data)
    return _is(data, "pandas", "DataFrame") or _is(data, "datasets", "Dataset")


def task_of_rows(config: TaskConfig, data: Rows, seed: int) -> Task:
    """The task that rows make, as rows of a file would. Raises DataError for data that cannot be used, and
    ConfigError for labels that cannot."""
    return task_from(config, records_of(config.name, data), (), seed)


def task_of_function(config: TaskConfig, function: object, seed: int) -> Task:
    """The task that a function of the user's makes: a Task, which takes the name from the configuration and
    the instruction and description where it has some, or `Rows`, or dicts one after the other. Errors as in
    `task_of_rows`; what the function raises is let through."""
    where = f"task {config.name!r}: function"
    if not callable(function):
        raise ConfigError(f"{where}: {config.function} is no function; name one that returns a Task or rows")
    made = function()
    if isinstance(made, Task):
        if config.labels is not None or config.columns != ColumnsConfig():
            raise ConfigError(f"{where} returns a whole Task, which labels and columns say nothing of")
        said = replace(
            made,
            name=config.name,
            instruction=config.instruction or made.instruction,
            description=config.description or made.description,
        )
        return checked(said)
    if not is_rows(made) and not isinstance(made, Iterator):
        raise DataError(f"{where} gave a {type(made).__name__}; return a Task or rows, or yield dicts")
    return task_of_rows(config, list(made) if isinstance(made, Iterator) else made, seed)


def records_of(name: str, rows: Rows) -> tuple[Record, ...]:
    """The rows of the data called `name`. Raises DataError where there are none, or one has no columns."""
    found = []
    for number, row in enumerate(_plain_rows(rows), start=1):
        where = f"{name} row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: is a {type(row).__name__}; give each row as a dict of columns")
        found.append(Record({key: _plain(value) for key, value in row.items()}, where))
    if not found:
        raise DataError(f"{name}: the data hold no rows; give at least one")
    return tuple(found)


def checked(task: Task) -> Task:
    """`task`, if it can be used. Raises DataError where it breaks what every loaded task keeps to."""
    where = f"task {task.name!r}"
    if not task.name or not task.examples or not task.instruction.strip():
        raise DataError(f"{where}: has no name, no examples or no instruction; give it all three")
    if task.kind not in get_args(Kind):
        raise DataError(f"{where}: kind is {task.kind!r}; use one of {', '.join(get_args(Kind))}")
    if bool(task.labels) != (task.kind == "labels"):
        raise DataError(
            f"{where}: a task of kind 'labels' has labels, and no other; its kind is {task.kind!r}"
        )
    seen: set[str] = set()
    for example in (*task.examples, *task.test_examples):
        _check(example, task, f"{where}: example {example.id!r}")
        if example.id in seen:
            raise DataError(f"{where}: two examples have the id {example.id!r}; give each its own")
        seen.add(example.id)
    return task


def _check(example: Example, task: Task, where: str) -> None:
    texts = (example.id, example.input, example.target, *example.negatives)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: its id, input, target and negatives must be texts that are not empty")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} holds half a surrogate pair; write it as valid Unicode") from error
    if task.labels and example.target not in task.labels:
        raise DataError(f"{where}: its target {example.target!r:.40} is none of the task's labels")
    if task.kind == "pairs" and not example.negatives:
        raise DataError(f"{where}: has no negatives, which a task of kind 'pairs' consists of")


def _plain_rows(rows: Rows) -> Iterable[object]:
    if _is(rows, "pandas", "DataFrame"):
        frame = cast("pd.DataFrame", rows)
        return frame.astype(object).where(frame.notna(), None).to_dict("records")
    if _is(rows, "datasets", "Dataset"):
        return named_rows(cast("datasets.Dataset", rows))
    return rows


def _is(data: object, library: str, kind: str) -> bool:
    """Whether `data` is of a class of a library, which has been imported if it is."""
    return library in sys.modules and isinstance(data, getattr(sys.modules[library], kind))


def _plain(value: object) -> object:
    """A value as a file would give it: lists for arrays, None for what is missing."""
    if _is(value, "numpy", "ndarray") or _is(value, "numpy", "generic"):
        value = cast("np.ndarray[Any, Any]", value).tolist()
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value
