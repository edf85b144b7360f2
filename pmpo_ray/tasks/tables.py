"""Records of Arrow tables: Parquet files and data sets of the `datasets` library.

Invariants: the number of a class becomes the class's name where the schema knows it; a number has the
shortest text that its column's type tells apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.records import Record, require_distinct
from pmpo_ray.text import error_line, excerpt

if TYPE_CHECKING:
    import pyarrow as pa

_METADATA = b"huggingface"
"""The key under which `datasets` keeps the features of a table in its schema."""


def parquet_records(path: Path, where: str) -> Iterator[Record]:
    """The rows of a Parquet file. Raises DataError for a file that is damaged or has a column twice."""
    import pyarrow
    from pyarrow import parquet

    try:
        # Unlike `read_table`, this takes no columns from the names of the folders around the file.
        table = parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{where}: is not a readable Parquet file ({error_line(error)}); write it again"
        ) from error
    yield from table_records(table, where)


def table_records(table: pa.Table, where: str) -> Iterator[Record]:
    """The rows of a table. Raises DataError for a column that stands twice, and for a class without name."""
    names = table.column_names
    require_distinct(names, where)
    classes = _class_names(table.schema)
    columns = [
        _named(_values(column), classes[name], f"{where}: column {excerpt(name, 40)!r}")
        if name in classes
        else _values(column)
        for name, column in zip(names, table.columns, strict=True)
    ]
    for number in range(1, table.num_rows + 1):
        values = {name: column[number - 1] for name, column in zip(names, columns, strict=True)}
        yield Record(values, f"{where} row {number}", where)


def shortest(value: Any) -> float:
    """A NumPy float of low precision as the float of the same shortest text: 0.1 instead of 0.10000000149."""
    return float(str(value))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column. Those that Python has no type for, such as times of nanoseconds, are texts."""
    import pyarrow

    if pyarrow.types.is_float16(column.type) or pyarrow.types.is_float32(column.type):
        rounded = column.to_numpy()
        return [
            None if value is None else shortest(single)
            for value, single in zip(column.to_pylist(), rounded, strict=True)
        ]
    values: list[Any]
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast(pyarrow.string()).to_pylist()
    return values


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """The names of classes by column, from the features that `datasets` keeps in a schema."""
    metadata = (schema.metadata or {}).get(_METADATA)
    if metadata is None:
        return {}
    try:
        features = json.loads(metadata)["info"]["features"]
        return {
            column: names for column, feature in features.items() if (names := _names_in(feature)) is not None
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # metadata of another program


def _names_in(feature: Any) -> Sequence[str] | None:
    """The names of the classes that a column, or the lists in it, have."""
    if isinstance(feature, list):
        return _names_in(feature[0])
    if feature.get("_type") == "ClassLabel":
        names: list[str] = feature["names"]
        return names
    return _names_in(feature["feature"]) if "feature" in feature else None


def _named(values: list[Any], names: Sequence[str], where: str) -> list[Any]:
    """The values with names for the numbers of classes, also within lists. None replaces the number of an
    unlabelled row (-1)."""
    return [_name_of(value, names, f"{where} of row {number}") for number, value in enumerate(values, 1)]


def _name_of(value: Any, names: Sequence[str], where: str) -> Any:
    if isinstance(value, list):
        return [_name_of(entry, names, where) for entry in value]
    if value is None or (isinstance(value, int) and value < 0):
        return None
    if not isinstance(value, int) or value >= len(names):
        raise DataError(
            f"{where} is {value!r:.40}, but its schema names {len(names)} classes; write it again"
        )
    return names[value]
