"""A task whose data were passed in Python, as a Parquet file, so that its run can be resumed without them.

Invariant: decoding returns exactly the task that was encoded, with its examples in their order, which the
split depends on. There is one row per example; the task's other fields are JSON in the schema's metadata.
"""

from __future__ import annotations

import json

import pyarrow as pa

from pmpo_ray.store.tables import escape, from_parquet, to_parquet, unescape
from pmpo_ray.store.train_examples import ADDED, TRAINING_SCHEMA, example_of, row_of
from pmpo_ray.types import Task

METADATA_KEY = b"pmpo_ray.task"
TASK_SCHEMA = TRAINING_SCHEMA.append(pa.field("test", pa.bool_(), nullable=False))
"""`test` is true for the examples of a test part that the data define."""


def encode_task(task: Task) -> bytes:
    rows = [{**row_of(example), "test": False} for example in task.examples]
    rows += [{**row_of(example), "test": True} for example in task.test_examples]
    header = {
        "name": escape(task.name),
        "kind": task.kind,
        "description": escape(task.description),
        "instruction": escape(task.instruction),
        "labels": [escape(label) for label in task.labels],
        "notes": [escape(note) for note in task.notes],
        "meanings": [escape(meaning) for meaning in task.meanings],
        "starts": [escape(text) for text in task.starts],
    }
    schema = TASK_SCHEMA.with_metadata({METADATA_KEY: json.dumps(header).encode()})
    return to_parquet(pa.Table.from_pylist(rows, schema=schema))


def decode_task(content: bytes) -> Task:
    """Raises ValueError, KeyError, OSError or pa.ArrowException if the file is damaged or of another
    version."""
    table = from_parquet(content, TASK_SCHEMA, added=ADDED)
    header = json.loads((table.schema.metadata or {})[METADATA_KEY])
    rows = table.to_pylist()
    return Task(
        name=unescape(header["name"]),
        kind=header["kind"],
        description=unescape(header["description"]),
        instruction=unescape(header["instruction"]),
        examples=tuple(example_of(row) for row in rows if not row["test"]),
        labels=tuple(map(unescape, header["labels"])),
        test_examples=tuple(example_of(row) for row in rows if row["test"]),
        notes=tuple(map(unescape, header.get("notes", ()))),
        meanings=tuple(map(unescape, header.get("meanings", ()))),
        starts=tuple(map(unescape, header.get("starts", ()))),
    )
