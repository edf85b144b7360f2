"""Reading rows from data files: JSON Lines, JSON, CSV, Parquet.

Invariant: every record has its place (file and line, counted from 1), so that later errors can report it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.errors import DataError
from pmpo_ray.text import error_line


@dataclass(frozen=True, slots=True)
class Record:
    """A row as it was read: its values by column name, and its place for error texts."""

    values: Mapping[str, object]
    where: str


def read_records(path: Path) -> tuple[Record, ...]:
    """All rows of a .jsonl, .json, .csv or .parquet file, in file order.

    A .json file contains a list of objects, an object with such a list under "examples" (the format of the
    BIG-Bench Hard files), or one object per line.

    Raises DataError, with file and line, for a file that is missing, unreadable, empty or of another type.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise DataError(f"{path}: unknown file type {path.suffix!r}; use a file that ends in one of {known}")
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; check the path (a relative one starts at the working directory)"
        )
    try:
        records = tuple(reader(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error_line(error)}); check the file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not records:
        raise DataError(f"{path}: has no rows; use a file with at least one row")
    return records


def _read_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path} line {number}"
                yield _record(_parse(line, where), where)


def _read_json(path: Path) -> Iterator[Record]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # the parser's error for the second line of a JSON Lines file
            raise DataError(
                f"{path} line {error.lineno}: malformed JSON ({error.msg}); fix the file"
            ) from error
        yield from _read_lines(path)
        return
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: malformed JSON ({error_line(error)}); fix the file") from error
    rows = content.get("examples") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f"{path}: has no list of rows; write a JSON list of objects, or one object per line")
    for number, row in enumerate(rows, start=1):
        where = f"{path} row {number}"
        yield _record(row, where)


def _parse(line: str, where: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: malformed JSON ({error.msg}, column {error.colno}); fix the line"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON ({error_line(error)}); fix the line") from error


def _record(row: object, where: str) -> Record:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is a {type(row).__name__}, not an object; write one JSON object per row")
    return Record(values=row, where=where)


def _read_csv(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        number = 1
        try:
            header = reader.fieldnames or ()
            number = reader.line_num + 1
            for row in reader:
                where = f"{path} line {number}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: does not have the {len(header)} fields of the header; quote fields that "
                        "contain commas"
                    )
                yield Record(values=row, where=where)
                number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path} line {number}: malformed CSV ({error_line(error)}); fix the line"
            ) from error


def _read_parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{path}: is not a readable Parquet file ({error_line(error)}); write it again"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield Record(values=row, where=f"{path} row {number}")


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}

SUFFIXES = frozenset(_READERS)
"""The suffixes of data files, in lower case."""
