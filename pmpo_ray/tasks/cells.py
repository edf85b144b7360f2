"""The texts of the values in a column.

Invariants: equal values of a column have one text, whatever types a program wrote them in; what has no
certain text is an error that names its row. A text has no white space at its end and no blank line at its
start; one of a single line is stripped, and one that was written with line feeds keeps the leading blanks of
its first line, as code needs.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.records import Record
from pmpo_ray.text import excerpt

_log = logging.getLogger(__name__)

_EXACT = 2**53
"""The magnitude up to which a float holds every whole number."""
_WHOLE_TEXT = re.compile(r"(-?(?:0|[1-9]\d{0,15}))\.0+")
_BLANK_START = re.compile(r"(?:[^\S\n]*\n)+")


@dataclass(frozen=True, slots=True)
class Spelling:
    """The way in which the values of a column are written.

    `whole`: a float that is whole is written without ".0"; `whole_texts`: so is a text such as "1.0".
    `truths`: a text that spells a truth value is written in small letters.
    `days`: times are written without their hours, which are all zero.
    """

    whole: bool = False
    whole_texts: bool = False
    truths: bool = False
    days: bool = False


PLAIN = Spelling()


@dataclass(slots=True)
class _Seen:
    """What a column holds: the first record with a truth value and with a number, and what is true of all."""

    truth: Record | None = None
    number: Record | None = None
    integers: bool = False
    whole_floats: bool = False
    fractions: bool = False
    texts: bool = False
    whole_texts: bool = False
    days: bool = True


def spelling_of(records: Sequence[Record], column: str, *, is_answer: bool) -> Spelling:
    """The spelling of a column. Only for answers do texts such as "1.0" count as numbers: pandas writes so
    the whole numbers of a column with a missing value.

    Raises DataError for answers that are truth values beside numbers, where 1 may or may not mean true.
    """
    seen = _Seen()
    for record in records:
        if record.has(column):
            _see(seen, record.value(column), record)
    if is_answer and seen.truth is not None and seen.number is not None:
        raise DataError(
            f"{seen.number.where}: column {excerpt(column, 40)!r} is a number, but {seen.truth.where} is a "
            "truth value; write all values as numbers, or all as true and false"
        )
    whole = seen.whole_floats and (not seen.fractions or seen.integers)
    whole_texts = (
        is_answer and seen.whole_texts and not (seen.fractions if seen.number is not None else seen.texts)
    )
    if is_answer and (whole or whole_texts):
        place = records[0].header or records[0].where
        _log.warning("%s: column %r holds whole numbers: 1.0 is read as 1", place, excerpt(column, 40))
    return Spelling(whole, whole_texts, seen.truth is not None, seen.days)


def _see(seen: _Seen, value: object, record: Record) -> None:
    if isinstance(value, bool):
        seen.truth = seen.truth or record
    elif isinstance(value, int):
        seen.number, seen.integers = seen.number or record, True
    elif isinstance(value, float | Decimal):
        if _is_finite(value):
            seen.number = seen.number or record
            seen.whole_floats |= _is_whole(value)
            seen.fractions |= not _is_whole(value)
    elif isinstance(value, str) and value.strip():
        is_whole = _WHOLE_TEXT.fullmatch(value.strip()) is not None
        seen.whole_texts |= is_whole
        seen.texts |= not is_whole
    elif isinstance(value, datetime):
        seen.days &= value.time() == time() and value.tzinfo is None


def _is_finite(value: float | Decimal) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)


def _is_whole(value: float | Decimal) -> bool:
    return -_EXACT <= value <= _EXACT and value == int(value)


def is_missing(value: object) -> bool:
    """True for None, an empty text and NaN."""
    if isinstance(value, Decimal):
        return value.is_nan()
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def text_of_value(value: object, where: str, spelling: Spelling = PLAIN) -> str:
    """The text of one value. Raises DataError if it has none."""
    text = _trimmed(_written(value, where, spelling))
    if not text:
        raise DataError(f"{where} is empty; fill it or remove the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has a lone surrogate; write it as valid Unicode") from error
    return text


def _written(value: object, where: str, spelling: Spelling) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return _spelled(value, spelling)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return _number(value, where, spelling)
    if isinstance(value, datetime):
        return value.date().isoformat() if spelling.days else value.isoformat(sep=" ")
    if isinstance(value, date | time):
        return value.isoformat()
    raise DataError(f"{where} is a {type(value).__name__}; use text, a number or a truth value")


def _number(value: float | Decimal, where: str, spelling: Spelling) -> str:
    if isinstance(value, int):
        try:
            return str(value)
        except ValueError as error:
            raise DataError(f"{where} is a number of too many digits; write it as a text") from error
    if not _is_finite(value):
        raise DataError(f"{where} is an infinite number, or too large for one; write it as a text")
    if spelling.whole and _is_whole(value):
        return str(int(value))
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)


def _spelled(text: str, spelling: Spelling) -> str:
    word = text.strip()
    if spelling.truths and word.lower() in ("true", "false"):
        return word.lower()
    whole = _WHOLE_TEXT.fullmatch(word) if spelling.whole_texts else None
    return text if whole is None else str(int(whole[1]))


def _trimmed(text: str) -> str:
    if "\n" not in text:
        return text.strip()
    blank = _BLANK_START.match(text)
    lines = text[blank.end() if blank else 0 :].rstrip()
    # One blank before a word and a line feed behind it are no code.
    return lines if "\n" in lines or lines.startswith(("  ", "\t")) else lines.strip()
