"""The number of replicas of a run over time, as one Parquet file for each driver that worked on it.

Invariant: decoding returns exactly the counts that were encoded, oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from pmpo_ray.outcomes import ReplicaCount
from pmpo_ray.store.tables import from_parquet, to_parquet

REPLICAS_SCHEMA = pa.schema(
    [
        pa.field("at", pa.float64(), nullable=False),
        pa.field("pool", pa.string(), nullable=False),
        pa.field("ready", pa.int32(), nullable=False),
        pa.field("coming", pa.int32(), nullable=False),
    ]
)


def encode_replicas(counts: Sequence[ReplicaCount]) -> bytes:
    return to_parquet(pa.Table.from_pylist([asdict(count) for count in counts], schema=REPLICAS_SCHEMA))


def decode_replicas(content: bytes) -> tuple[ReplicaCount, ...]:
    """Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version."""
    return tuple(ReplicaCount(**row) for row in from_parquet(content, REPLICAS_SCHEMA).to_pylist())
