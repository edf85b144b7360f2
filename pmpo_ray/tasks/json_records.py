"""Records of JSON and JSON Lines.

Invariant: a key that stands twice in an object is an error with its line; the last value never replaces the
first in silence.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.records import Record, stands_twice
from pmpo_ray.text import error_line

_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<key>\s*:)?|[{}]', re.DOTALL)


class _DuplicateKeyError(ValueError):
    """An object has the key `name` twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def lines_records(text: str, where: str) -> Iterator[Record]:
    """One object per line; empty lines are skipped. Raises DataError with the line."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            place = f"{where} line {number}"
            yield _record(_parsed_line(line, place), place)


def json_records(text: str, where: str) -> Iterator[Record]:
    """A list of objects, an object with such a list under "examples", or one object per line. Raises
    DataError with the line or the row."""
    try:
        content = _parsed(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # the parser's error for the second line of a JSON Lines file
            raise DataError(
                f"{where} line {error.lineno}: malformed JSON ({error.msg}); fix the file"
            ) from error
        yield from lines_records(text, where)
        return
    except _DuplicateKeyError as error:
        raise stands_twice("key", error.name, f"{where} line {_line_of_duplicate(text)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON ({error_line(error)}); fix the file") from error
    rows = content.get("examples") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(
            f"{where}: has no list of rows; write a JSON list of objects (pandas: to_json with "
            'orient="records"), or one object per line'
        )
    for number, row in enumerate(rows, start=1):
        place = f"{where} row {number}"
        yield _record(row, place)


def _parsed(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _DuplicateKeyError(name)
            seen.add(name)
    return values


def _line_of_duplicate(text: str) -> int:
    """The line, counted from 1, of the first key that its object already has. The parser's hook knows no
    place, so the text is read once more."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append(set())
        elif token[0] == "}":
            objects.pop()
        elif token["key"] is not None:
            name = json.loads(token["text"])
            if name in objects[-1]:
                return text.count("\n", 0, token.start()) + 1
            objects[-1].add(name)
    raise AssertionError("the parser found a key twice")


def _parsed_line(line: str, where: str) -> object:
    try:
        return _parsed(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: malformed JSON ({error.msg}, column {error.colno}); fix the line"
        ) from error
    except _DuplicateKeyError as error:
        raise stands_twice("key", error.name, where) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: malformed JSON ({error_line(error)}); fix the line") from error


def _record(row: object, where: str) -> Record:
    if not isinstance(row, dict):
        raise DataError(f"{where}: is a {type(row).__name__}, not an object; write one JSON object per row")
    return Record(values=row, where=where)
