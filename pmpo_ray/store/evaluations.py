"""Evaluations as Parquet files: the outcomes under one condition, and all of them in one table.

Invariant: decoding returns exactly the outcomes that were encoded, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby, zip_longest
from typing import Any

import pyarrow as pa

from pmpo_ray.outcomes import Condition, ConditionResult, Outcome
from pmpo_ray.store.tables import ESCAPE, escape, from_parquet, to_parquet, unescape

_OUTCOME_FIELDS = [
    pa.field("example", pa.string(), nullable=False),
    pa.field("right", pa.bool_(), nullable=False),
    pa.field("answer", pa.string()),
    pa.field("reply", pa.string(), nullable=False),
    pa.field("loss", pa.float64()),
    pa.field("score", pa.float64()),
    pa.field("tokens", pa.int64(), nullable=False),
]
_CONDITION_FIELDS = [
    pa.field("task", pa.string(), nullable=False),
    pa.field("model", pa.string(), nullable=False),
    pa.field("name", pa.string(), nullable=False),
    pa.field("instruction", pa.string(), nullable=False),
    pa.field("shots", pa.int32(), nullable=False),
    pa.field("repetition", pa.int32(), nullable=False),
    pa.field("method", pa.string(), nullable=False),
    pa.field("train_loss", pa.float64()),
    pa.field("own_shots", pa.list_(pa.string())),
]
OUTCOME_SCHEMA = pa.schema(_OUTCOME_FIELDS)
EVALUATION_SCHEMA = pa.schema([*_CONDITION_FIELDS, *_OUTCOME_FIELDS, pa.field("label", pa.string())])
"""evaluation.parquet: one row for every example under every condition. `answer` is null if none could be read
from the reply; `loss` is in nats; `score` is from 0 to 1; `label` is null in tasks without a closed set of
labels."""

_ADDED = ("label", "own_shots")
"""Columns that files of earlier versions lack."""
_TEXTS = ("task", "model", "name", "instruction", "example", "answer", "reply", "label")


def encode_outcomes(outcomes: Sequence[Outcome]) -> bytes:
    rows = [_escaped(asdict(outcome)) for outcome in outcomes]
    return to_parquet(pa.Table.from_pylist(rows, schema=OUTCOME_SCHEMA))


def decode_outcomes(content: bytes) -> tuple[Outcome, ...]:
    """Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version."""
    rows = from_parquet(content, OUTCOME_SCHEMA).to_pylist()
    return tuple(Outcome(**_unescaped(row)) for row in rows)


def encode_evaluation(results: Sequence[ConditionResult]) -> bytes:
    rows = [
        _escaped(asdict(result.condition) | {"own_shots": own_shots} | asdict(outcome) | {"label": label})
        for result in results
        for own_shots in [[escape(name) for name in result.condition.own_shots]]
        for outcome, label in zip_longest(result.outcomes, result.labels)
    ]
    return to_parquet(pa.Table.from_pylist(rows, schema=EVALUATION_SCHEMA))


def decode_evaluation(
    content: bytes, selected: Callable[[str, str], bool] | None = None
) -> tuple[ConditionResult, ...]:
    """The results in a file; with `selected`, only those of the tasks and names for which it holds.

    Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version.
    """
    table = from_parquet(content, EVALUATION_SCHEMA, added=_ADDED)
    if selected is not None:
        table = _selected(table, selected)
    by_condition: dict[Condition, tuple[list[Outcome], list[str]]] = {}
    # By columns and by runs of equal conditions: row by row it takes several times as long.
    outcomes = list(map(Outcome, *_columns(table, OUTCOME_SCHEMA.names)))
    [labels] = _columns(table, ("label",))
    conditions = zip(*_columns(table, [field.name for field in _CONDITION_FIELDS]), strict=True)
    start = 0
    for values, rows in groupby(conditions):
        end = start + sum(1 for _ in rows)
        own_outcomes, own_labels = by_condition.setdefault(Condition(*values), ([], []))
        own_outcomes += outcomes[start:end]
        own_labels += [label for label in labels[start:end] if label is not None]
        start = end
    return tuple(
        ConditionResult(condition, tuple(own_outcomes), tuple(own_labels))
        for condition, (own_outcomes, own_labels) in by_condition.items()
    )


def _selected(table: pa.Table, selected: Callable[[str, str], bool]) -> pa.Table:
    """The rows of a table whose task and name are selected. Rows of one condition follow each other."""
    parts, start = [table.slice(0, 0)], 0
    for (task, name), rows in groupby(zip(*_columns(table, ("task", "name")), strict=True)):
        count = sum(1 for _ in rows)
        if selected(task, name):
            parts.append(table.slice(start, count))
        start += count
    return pa.concat_tables(parts)


def _columns(table: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    """The values of columns, in the order of `names`."""
    columns = []
    for name in names:
        values = table.column(name).to_pylist()
        if name in _TEXTS:
            # Few texts, if any, are escaped, and most occur many times.
            escaped = {value for value in set(values) if value is not None and ESCAPE in value}
            if escaped:
                values = [unescape(value) if value in escaped else value for value in values]
        elif name == "own_shots":
            values = [tuple(map(unescape, value or ())) for value in values]
        columns.append(values)
    return columns


def _escaped(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: escape(value) if name in _TEXTS and isinstance(value, str) else value
        for name, value in row.items()
    }


def _unescaped(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: unescape(value) if name in _TEXTS and isinstance(value, str) else value
        for name, value in row.items()
    }
