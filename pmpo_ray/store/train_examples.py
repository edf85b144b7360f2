"""The training examples of a task as a Parquet file, so that a run folder can be read without its data.

Invariant: decoding returns exactly the examples that were encoded, in the order of a round's losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pmpo_ray.store.tables import escape, from_parquet, to_parquet, unescape
from pmpo_ray.types import Example

TRAINING_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("negatives", pa.list_(pa.string()), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("also_right", pa.list_(pa.string())),
    ]
)
ADDED = ("also_right",)
"""Columns that files of earlier versions lack."""


def encode_training(examples: Sequence[Example]) -> bytes:
    return to_parquet(pa.Table.from_pylist(list(map(row_of, examples)), schema=TRAINING_SCHEMA))


def decode_training(content: bytes) -> tuple[Example, ...]:
    """Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version."""
    return tuple(map(example_of, from_parquet(content, TRAINING_SCHEMA, added=ADDED).to_pylist()))


def stored_form(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples as they are read back: with the fields that are stored."""
    return tuple(example_of(row_of(example)) for example in examples)


def row_of(example: Example) -> dict[str, Any]:
    """An example as a row of TRAINING_SCHEMA."""
    return {
        "id": escape(example.id),
        "input": escape(example.input),
        "target": escape(example.target),
        "negatives": [escape(negative) for negative in example.negatives],
        "weight": example.weight,
        "also_right": [escape(text) for text in example.also_right],
    }


def example_of(row: Mapping[str, Any]) -> Example:
    """The example of which `row_of` made this row."""
    return Example(
        id=unescape(row["id"]),
        input=unescape(row["input"]),
        target=unescape(row["target"]),
        negatives=tuple(unescape(negative) for negative in row["negatives"]),
        weight=row["weight"],
        also_right=tuple(unescape(text) for text in row["also_right"] or ()),
    )
