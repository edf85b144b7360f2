"""Make rows from records: map their columns and check their values.

Invariant: the texts of a `Row` are stripped, not empty, and can be encoded as UTF-8; its weight is 0 or
has a magnitude in WEIGHTS.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from pmpo_ray.config.tasks import ColumnsConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.records import Record
from pmpo_ray.text import excerpt, shortened

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


def row_from(record: Record, columns: ColumnsConfig) -> Row:
    """Map the columns of the user's data. Raises DataError for a missing or unusable value."""
    return Row(
        input=text_of(record, columns.input, "set columns.input to the column with the input"),
        target=text_of(record, columns.target, "set columns.target to the column with the target"),
        where=record.where,
        negatives=_negatives(record, columns.negatives) if columns.negatives is not None else (),
        weight=_weight(record, columns.weight) if columns.weight is not None else 1.0,
    )


def text_of(record: Record, column: str, advice: str) -> str:
    """The value of a column as stripped text; numbers and truth values are converted.

    Raises DataError if the column is missing (with `advice`), or if its value is empty or not a text.
    """
    return _text(_value(record, column, advice), f"{record.where}: column {column!r}")


def check_weight(weight: float, where: str) -> None:
    """Raise DataError if `weight`, which `where` names in the error, is out of bounds."""
    least, most = WEIGHTS
    if not (weight == 0 or least <= abs(weight) <= most):
        raise DataError(f"{where} is {weight:g}; use a weight from {least:g} to {most:g}, or 0")


def _value(record: Record, column: str, advice: str) -> object:
    if column not in record.values:
        existing = ", ".join(excerpt(str(name), 40) for name in record.values) or "none"
        where = record.header or record.where
        raise DataError(f"{where}: there is no column {column!r}, only {shortened(existing, 300)}; {advice}")
    return record.values[column]


def _text(value: object, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        value = ""
    if not isinstance(value, str | int | float):
        raise DataError(f"{where} is a {type(value).__name__}; use text, a number or a truth value")
    text = str(value).strip()
    if not text:
        raise DataError(f"{where} is empty; fill it or remove the row")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has a lone surrogate; write it as valid Unicode") from error
    return text


def _negatives(record: Record, column: str) -> tuple[str, ...]:
    """The negatives in a list, a JSON list in a string, or a single text; none if the value is missing."""
    value = _value(record, column, "set columns.negatives to the column with the negatives")
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed_list(value)
    entries = value if isinstance(value, list) else [value]
    where = f"{record.where}: column {column!r}"
    return tuple(_text(entry, where) for entry in entries if entry is not None and entry != "")


def _parsed_list(text: str) -> object:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text  # an answer that begins with a bracket
    return value


def _weight(record: Record, column: str) -> float:
    value = _value(record, column, "set columns.weight to the column with the weight")
    try:
        weight = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        weight = math.nan
    if isinstance(value, bool) or not math.isfinite(weight):
        raise DataError(f"{record.where}: column {column!r} is {value!r:.40}; use a finite number as weight")
    check_weight(weight, f"{record.where}: column {column!r}")
    return weight
