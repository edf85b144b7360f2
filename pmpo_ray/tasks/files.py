"""Reading records from data files: JSON Lines, JSON, CSV, TSV, Parquet; texts also compressed by gzip.

Invariant: every record has its place (file and line, counted from 1), so that later errors can report it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pmpo_ray.config.paths import at_home
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.csv_records import csv_records
from pmpo_ray.tasks.file_content import place_of, require_file, text_of_file, unreadable
from pmpo_ray.tasks.json_records import json_records, lines_records
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.tables import parquet_records


def _tsv_records(text: str, where: str) -> Iterator[Record]:
    return csv_records(text, where, usual="\t")


_TEXT_READERS: dict[str, Callable[[str, str], Iterator[Record]]] = {
    ".csv": csv_records,
    ".tsv": _tsv_records,
    ".json": json_records,
    ".jsonl": lines_records,
}
_PARQUET, _GZIP = ".parquet", ".gz"
_PLAIN = (*_TEXT_READERS, _PARQUET)

SUFFIXES = (*_PLAIN, *(suffix + _GZIP for suffix in _TEXT_READERS))
"""The endings of the names of data files, in lower case."""


def suffix_of(path: str | Path) -> str | None:
    """The ending of a data file's name, one of `SUFFIXES`; None for any other file."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_records(path: Path) -> tuple[Record, ...]:
    """All rows of a data file, in file order.

    A .json file contains a list of objects, an object with such a list under "examples" (the format of the
    BIG-Bench Hard files), or one object per line.

    Raises DataError, with file and line, for a file that is missing, unreadable, empty or of another type.
    """
    path = at_home(path)
    suffix = suffix_of(path)
    if suffix is None:
        raise DataError(
            f"{place_of(path)}: unknown file type {path.suffix[:20]!r}; use a file that ends in one of "
            f"{', '.join(_PLAIN)}; texts may be compressed ({_GZIP})"
        )
    require_file(path, SUFFIXES)
    try:
        records = tuple(_records(path, suffix))
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place_of(path)}: has a text that is not UTF-8; save it as UTF-8") from error
    if not records:
        raise DataError(f"{place_of(path)}: has no rows; use a file with at least one row")
    return records


def _records(path: Path, suffix: str) -> Iterator[Record]:
    if suffix == _PARQUET:
        return parquet_records(path, place_of(path))
    return _TEXT_READERS[suffix.removesuffix(_GZIP)](text_of_file(path), place_of(path))
