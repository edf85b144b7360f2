"""Data passed in Python: tables, lists of rows, whole tasks, and functions that return them.

Invariants: rows become examples in the same way as those of a data file, with the same errors, which name the
row (counted from 1). A missing value of a table is a missing value here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast, get_args

from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig, fault_of_starts
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.hub import data_set_records
from pmpo_ray.tasks.label_sets import checked_labels
from pmpo_ray.tasks.records import Record, require_distinct
from pmpo_ray.tasks.right_answers import with_right_answers
from pmpo_ray.tasks.rows import check_weight
from pmpo_ray.tasks.tables import shortest
from pmpo_ray.tasks.user_data import task_of_records
from pmpo_ray.types import Example, Kind, Task

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pandas as pd

Rows: TypeAlias = Union["pd.DataFrame", "datasets.Dataset", Sequence[Mapping[str, object]]]
"""Data as a table or as a list of rows."""

_LOW_PRECISION = {
    "float16": "float16",
    "float32": "float32",
    "halffloat[pyarrow]": "float16",
    "float[pyarrow]": "float32",
}
"""NumPy's names of the types of columns whose floats have fewer digits than Python's."""


def is_rows(data: object) -> bool:
    """True if `data` are `Rows`."""
    if isinstance(data, list | tuple):
        return all(isinstance(row, Mapping) for row in data)
    return _is(data, "pandas", "DataFrame") or _is(data, "datasets", "Dataset")


def task_of_rows(config: TaskConfig, data: Rows, seed: int) -> Task:
    """Make a task of rows, as of those of a file. Raises DataError for data that cannot be used, and
    ConfigError for labels that cannot be used."""
    return task_of_records(config, records_of(config.name, data), (), seed)


def task_of_function(config: TaskConfig, function: object, seed: int) -> Task:
    """Make a task of what a user's function returns: `Rows`, an iterator of dicts, or a Task (see
    `as_configured`).

    Raises the errors of `task_of_rows`; errors of the function itself propagate.
    """
    where = f"task {config.name!r}: function"
    if not callable(function):
        raise ConfigError(
            f"{where}: {config.function} is not a function; name one that returns a Task or rows"
        )
    result = function()
    if isinstance(result, Task):
        if config.labels is not None or config.columns != ColumnsConfig():
            raise ConfigError(
                f"{where} returns a whole Task, to which labels and columns do not apply; remove them"
            )
        return checked(as_configured(result, config))
    if not is_rows(result) and not isinstance(result, Iterator):
        raise DataError(f"{where} returned a {type(result).__name__}; return a Task or rows, or yield dicts")
    return task_of_rows(config, list(result) if isinstance(result, Iterator) else result, seed)


def as_configured(task: Task, config: TaskConfig) -> Task:
    """`task` with the name of its configuration, and the instructions and the description that are set
    there. Instructions that are set replace all of the task's own."""
    first, *further = config.instructions or task.instructions
    return replace(
        task,
        name=config.name,
        instruction=first,
        starts=tuple(further),
        description=config.description or task.description,
    )


def records_of(name: str, rows: Rows) -> tuple[Record, ...]:
    """The rows of the data called `name`. Raises DataError if there are none, or if one has no columns."""
    if _is(rows, "datasets", "Dataset"):
        records = tuple(data_set_records(cast("datasets.Dataset", rows), name))
    elif _is(rows, "pandas", "DataFrame"):
        records = tuple(_frame_records(cast("pd.DataFrame", rows), name))
    else:
        records = tuple(_row_records(cast("Iterable[object]", rows), name))
    if not records:
        raise DataError(f"{name}: the data have no rows; pass at least one")
    return records


def checked(task: Task) -> Task:
    """Return `task` with the right answers of equal inputs together. Raises DataError if it breaks an
    invariant of loaded tasks, ConfigError for labels that cannot be told apart."""
    where = f"task {task.name!r}"
    if not task.name or not task.examples or not task.instruction.strip():
        raise DataError(f"{where}: has no name, no examples or no instruction; set all three")
    if task.starts and (fault := fault_of_starts(task.instructions)) is not None:
        raise DataError(f"{where}: instruction and starts: {fault}")
    if task.kind not in get_args(Kind):
        raise DataError(f"{where}: kind is {task.kind!r}; use one of {', '.join(get_args(Kind))}")
    if bool(task.labels) != (task.kind == "labels"):
        raise DataError(
            f"{where}: its kind is {task.kind!r}, but a task has labels if and only if its kind is 'labels'; "
            "correct one of them"
        )
    if task.labels:
        checked_labels(task.name, task.labels)
    if task.meanings and len(task.meanings) != len(task.labels):
        raise DataError(
            f"{where}: {len(task.meanings)} meanings for {len(task.labels)} labels; give each label one"
        )
    seen: set[str] = set()
    for example in (*task.examples, *task.test_examples):
        _check(example, task, f"{where}: example {example.id!r}")
        if example.id in seen:
            raise DataError(f"{where}: two examples have the id {example.id!r}; use unique ids")
        seen.add(example.id)
    return with_right_answers(task)


def _check(example: Example, task: Task, where: str) -> None:
    texts = (example.id, example.input, example.target, *example.negatives, *example.also_right)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: its id, input, target and negatives must be non-empty strings; fix them")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has a lone surrogate; write it as valid Unicode") from error
    check_weight(example.weight, f"{where}: its weight")
    if task.labels and example.target not in task.labels:
        raise DataError(
            f"{where}: its target {example.target!r:.40} is none of the task's labels; fix one of them"
        )
    if task.kind == "pairs" and not example.negatives:
        raise DataError(f"{where}: has no negatives, which a task of kind 'pairs' needs; add one")


def _frame_records(frame: pd.DataFrame, name: str) -> Iterator[Record]:
    require_distinct(frame.columns, name)
    columns = {label: _column_values(frame.iloc[:, position]) for position, label in enumerate(frame.columns)}
    for index in range(len(frame)):
        values = {label: _plain(column[index]) for label, column in columns.items()}
        yield Record(values, f"{name} row {index + 1}", name)


def _column_values(column: pd.Series[Any]) -> list[Any]:
    values = column.astype(object).where(column.notna(), None).tolist()
    precision = _LOW_PRECISION.get(str(column.dtype).lower())
    if precision is not None:
        singles = column.to_numpy(precision, na_value=math.nan)
        return [None if value is None else shortest(one) for value, one in zip(values, singles, strict=True)]
    return values


def _row_records(rows: Iterable[object], name: str) -> Iterator[Record]:
    for number, row in enumerate(rows, start=1):
        where = f"{name} row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: is a {type(row).__name__}; pass each row as a dict of columns")
        yield Record({key: _plain(value) for key, value in row.items()}, where)


def _is(data: object, library: str, kind: str) -> bool:
    """True if `data` is an instance of a library's class. If it is, the library has been imported."""
    return library in sys.modules and isinstance(data, getattr(sys.modules[library], kind))


def _plain(value: object) -> object:
    """A value as it would be read from a file: lists for arrays, None for missing values."""
    if _is(value, "numpy", "ndarray") or _is(value, "numpy", "generic"):
        array = cast("np.ndarray[Any, Any]", value)
        if array.dtype.kind == "f" and array.ndim == 0 and array.dtype.itemsize < 8:
            return shortest(array) if array == array else None
        # Times of nanoseconds would become whole numbers.
        value = (array.astype("datetime64[us]") if array.dtype.kind == "M" else array).tolist()
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and math.isnan(value) else value
