"""Records of texts with delimiters: CSV as programs and spreadsheets write it.

Invariants: every row has as many fields as the header; a row without any text is no row. The delimiter is the
one that the file names, else the first of `,`, `;`, tab and `|` that divides all rows alike.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.records import Record, require_distinct
from pmpo_ray.text import error_line

_log = logging.getLogger(__name__)

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_NAMED_DELIMITER = re.compile(r"\"?sep=([^\"\r\n])\"?(?:\r\n|\r|\n)", re.IGNORECASE)
_LONGEST_CELL = 2**31 - 1
"""The greatest number of characters of a cell that Python's reader accepts as its limit on every system."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """`spaced`: blanks after a delimiter do not belong to the cell, so that a quoted cell may follow them."""

    delimiter: str
    spaced: bool


@dataclass(frozen=True, slots=True)
class _Line:
    """The fields of a row, and the number of the line in which it begins."""

    number: int
    fields: list[str]


def csv_records(text: str, where: str, usual: str = ",") -> Iterator[Record]:
    """The rows below the header. `usual` is the delimiter that files of this type have. Raises DataError with
    the line for malformed quotes, a row with fewer or more fields than the header, and equal column names."""
    lines = _divided(text, where, usual)
    if not lines:
        return
    header, *rows = lines
    place = f"{where} line {header.number}"
    require_distinct(header.fields, place)
    for row in rows:
        yield Record(dict(zip(header.fields, row.fields, strict=True)), f"{where} line {row.number}", place)


def _divided(text: str, where: str, usual: str) -> list[_Line]:
    """The header and the rows, divided at the delimiter of the file."""
    # Python has one limit for all readers of a process, and its default is too low for a long document.
    csv.field_size_limit(_LONGEST_CELL)
    named = _NAMED_DELIMITER.match(text)
    delimiters = [named[1]] if named is not None else sorted(_NAMES, key=lambda mark: mark != usual)
    likely = _Dialect(delimiters[0], spaced=False)
    found = False
    for dialect in (_Dialect(delimiter, spaced) for delimiter in delimiters for spaced in (True, False)):
        lines = _lines(text, where, dialect, named)
        try:
            header = next(lines, None)
            if header is None:
                return []
            if len(header.fields) > 1:
                if not found:
                    found, likely = True, _Dialect(dialect.delimiter, spaced=False)
                rows = [_complete(line, header, where, dialect) for line in lines]
                _say(where, dialect.delimiter, usual)
                return [header, *rows]
        except DataError:
            continue  # the error of the likely delimiter is raised below
    header, *others = _lines(text, where, likely, named)
    return [header, *(_complete(line, header, where, likely) for line in others)]


def _lines(text: str, where: str, dialect: _Dialect, named: re.Match[str] | None) -> Iterator[_Line]:
    """The rows with any text, below the line that names the delimiter, if the file has one."""
    before, start = (1, named.end()) if named is not None else (0, 0)
    reader = csv.reader(
        io.StringIO(text[start:], newline=""),
        delimiter=dialect.delimiter,
        skipinitialspace=dialect.spaced,
        strict=True,
    )
    number = before + 1
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield _Line(number, fields)
            number = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where} line {number}: malformed CSV ({error_line(error)}); fix the line"
        ) from error


def _complete(line: _Line, header: _Line, where: str, dialect: _Dialect) -> _Line:
    if len(line.fields) != len(header.fields):
        raise DataError(
            f"{where} line {line.number}: does not have the {len(header.fields)} fields of the header but "
            f"{len(line.fields)}; quote fields that contain {_name(dialect.delimiter)}"
        )
    return line


def _say(where: str, delimiter: str, usual: str) -> None:
    if delimiter != usual:
        _log.info("%s: its columns are divided by %s", where, _name(delimiter))


def _name(delimiter: str) -> str:
    return _NAMES.get(delimiter, f"{delimiter!r}")
