"""Make rows from records: map their columns and check their values.

Invariant: the texts of a `Row` are not empty, have no white space at their end and no blank line at their
start, and can be encoded as UTF-8 (`cells`); its weight is 0 or has a magnitude in WEIGHTS.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pmpo_ray.config.tasks import ColumnsConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.cells import PLAIN, Spelling, is_missing, spelling_of, text_of_value
from pmpo_ray.tasks.lists import is_bracketed, is_list_of_texts, list_in
from pmpo_ray.tasks.records import Record
from pmpo_ray.text import excerpt, shortened

_log = logging.getLogger(__name__)

WEIGHTS = (1e-6, 1e6)
"""The smallest and the largest magnitude of a weight that is not 0. With others the losses of single rows, or
all but one, vanish in the rounding of the batch loss."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a task before it becomes an example. `negatives` are those in the data."""

    input: str
    target: str
    where: str
    negatives: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of a task, and the way their values are written. `lists`: the column of negatives holds
    lists, so a text in brackets that is none is a mistake."""

    names: ColumnsConfig
    inputs: Spelling
    answers: Spelling
    lists: bool


def rows_of(parts: Sequence[Sequence[Record]], names: ColumnsConfig) -> list[tuple[Row, ...]]:
    """Map the columns of the user's data, whose parts (training and test) are read in the same way.

    Raises DataError for a missing, ambiguous or unusable value, and for lists of answers as targets.
    """
    records = [record for part in parts for record in part]
    _require_unambiguous(records, names)
    _refuse_lists(records, names.target)
    columns = _Columns(
        names,
        inputs=spelling_of(records, names.input, is_answer=False),
        answers=spelling_of(records, names.target, is_answer=True),
        lists=names.negatives is not None and _holds_lists(_texts(records, names.negatives)),
    )
    return [tuple(_row(record, columns) for record in part) for part in parts]


def text_of(record: Record, column: str, advice: str, spelling: Spelling = PLAIN) -> str:
    """The value of a column as text (`cells`); numbers and truth values are converted.

    Raises DataError if the column is missing (with `advice`), or if its value is empty or not a text.
    """
    return text_of_value(_value(record, column, advice), _place(record, column), spelling)


def check_weight(weight: float, where: str) -> None:
    """Raise DataError if `weight`, which `where` names in the error, is out of bounds."""
    least, most = WEIGHTS
    if not (weight == 0 or least <= abs(weight) <= most):
        raise DataError(f"{where} is {weight:g}; use a weight from {least:g} to {most:g}, or 0")


def _row(record: Record, columns: _Columns) -> Row:
    names = columns.names
    text = text_of(record, names.input, "set columns.input to the column with the input", columns.inputs)
    target = text_of(
        record, names.target, "set columns.target to the column with the target", columns.answers
    )
    return Row(
        input=text,
        target=target,
        where=record.where,
        negatives=_negatives(record, names.negatives, target, columns) if names.negatives is not None else (),
        weight=_weight(record, names.weight) if names.weight is not None else 1.0,
    )


def _place(record: Record, column: str) -> str:
    return f"{record.where}: column {excerpt(column, 40)!r}"


def _value(record: Record, column: str, advice: str) -> object:
    if record.has(column):
        return record.value(column)
    where = record.header or record.where
    same = [str(name) for name in record.values if _folded(name) == _folded(column)]
    if len(same) == 1:
        advice = f"write {excerpt(same[0], 40)!r}, in the same case"
    existing = ", ".join(excerpt(str(name), 40) for name in record.values) or "none"
    raise DataError(
        f"{where}: there is no column {excerpt(column, 40)!r}, only {shortened(existing, 300)}; {advice}"
    )


def _folded(name: object) -> str:
    return str(name).strip().casefold()


def _require_unambiguous(records: Sequence[Record], names: ColumnsConfig) -> None:
    """Raise DataError if a column that is used has a namesake but for case and blanks around it."""
    used = [name for name in (names.input, names.target, names.negatives, names.weight) if name is not None]
    first_by_names = {tuple(record.values): record for record in reversed(records)}
    for existing, record in first_by_names.items():
        for column in used:
            same = [str(name) for name in existing if _folded(name) == _folded(column)]
            if len(same) > 1:
                where = record.header or record.where
                raise DataError(
                    f"{where}: the columns {same[0]!r:.40} and {same[1]!r:.40} differ in "
                    "case or blanks alone; rename or remove one of them"
                )


def _texts(records: Sequence[Record], column: str) -> list[str]:
    """The texts of a column that are not blank."""
    values = [record.value(column) for record in records if record.has(column)]
    return [value for value in values if isinstance(value, str) and value.strip()]


def _refuse_lists(records: Sequence[Record], column: str) -> None:
    """Raise DataError if targets are lists of answers: values that are lists, or texts that certainly are. A
    single text in brackets may be an answer, such as the output of a program; a column of nothing else, or
    one whose lists hold answers of other rows, is not."""
    for record in records:
        if record.has(column) and isinstance(record.value(column), list):
            raise _several_answers(record, column)
    texts = _texts(records, column)
    lists = {text for text in texts if is_list_of_texts(text)}
    if not lists:
        if texts and all(list_in(text) is not None for text in texts):
            place = records[0].header or records[0].where
            _log.warning("%s: column %r: its lists are read as texts", place, excerpt(column, 40))
        return
    single = {text.strip() for text in texts} - lists
    if all(list_in(text) is not None for text in texts) or all(
        entry in single for text in lists for entry in list_in(text) or () if entry is not None
    ):
        raise _several_answers(next(r for r in records if r.has(column) and r.value(column) in lists), column)


def _several_answers(record: Record, column: str) -> DataError:
    return DataError(
        f"{_place(record, column)} is a list of answers, and a row has one; write one answer, or a row for "
        "each (a list that is itself the answer is written without brackets: a, b)"
    )


def _holds_lists(texts: Sequence[str]) -> bool:
    """True if one of the texts is a list, or if all are in brackets."""
    bracketed = [text for text in texts if text.strip().startswith("[") and is_bracketed(text)]
    return bool(bracketed) and (
        len(bracketed) == len(texts) or any(list_in(text) is not None for text in bracketed)
    )


def _negatives(record: Record, column: str, target: str, columns: _Columns) -> tuple[str, ...]:
    """The negatives in a list, a list in a text, or a single text; none if the value is missing."""
    value = _value(record, column, "set columns.negatives to the column with the negatives")
    where = _place(record, column)
    entries: Sequence[object] = [value]
    if isinstance(value, list):
        entries = value
    elif isinstance(value, str):
        parsed = list_in(value)
        if parsed is not None and not _is_alike(parsed, target):
            entries = parsed
        elif parsed is None and columns.lists and value.strip().startswith("[") and is_bracketed(value):
            raise DataError(
                f"{where} is in brackets but no list that can be read; write it as a JSON list of texts"
            )
    return tuple(text_of_value(entry, where, columns.answers) for entry in entries if not is_missing(entry))


def _is_alike(values: Sequence[object], target: str) -> bool:
    """True if a list is one answer: it has numbers, as the target has, which is a list too."""
    numbers = all(isinstance(value, int | float) for value in values)
    return numbers and bool(values) and list_in(target) is not None


def _weight(record: Record, column: str) -> float:
    value = _value(record, column, "set columns.weight to the column with the weight")
    try:
        weight = float(value) if isinstance(value, str | int | float | Decimal) else math.nan
    except (ValueError, OverflowError):
        weight = math.nan
    if isinstance(value, bool) or not math.isfinite(weight):
        raise DataError(f"{_place(record, column)} is {value!r:.40}; use a finite number as weight")
    check_weight(weight, _place(record, column))
    return weight
