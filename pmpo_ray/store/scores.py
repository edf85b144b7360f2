"""Scores by key: a single score as bytes, and many of them as a Parquet file.

Invariant: scores read back equal those written, bit for bit. A key is KEY_BYTES bytes that stand for
everything the score depends on; `pmpo_ray.runs.score_memory` makes them.

A packed score is context_tokens (int32), then log p of every answer (float64, nats), then the tokens of every
answer (int32), little-endian without padding; the target is the first answer, the negatives follow in order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmpo_ray.store.tables import from_parquet, to_parquet
from pmpo_ray.types import AnswerScore, ExampleScore

KEY_BYTES = 16

SCORE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),
        pa.field("context_tokens", pa.int32(), nullable=False),
        pa.field("logprobs", pa.list_(pa.field("item", pa.float64(), nullable=False)), nullable=False),
        pa.field("tokens", pa.list_(pa.field("item", pa.int32(), nullable=False)), nullable=False),
    ]
)
"""One row per scored example. The lists have the target first, then the negatives; logprobs are in nats."""

_LOGPROBS_AT = 4
_ANSWER_BYTES = 12
_Sizes = npt.NDArray[np.int64]


def pack(score: ExampleScore) -> bytes:
    """A score in 4 + 12 * answers bytes. Raises struct.error for lengths that an int32 cannot hold."""
    answers = (score.target, *score.negatives)
    return struct.pack(
        f"<i{len(answers)}d{len(answers)}i",
        score.context_tokens,
        *(answer.logprob for answer in answers),
        *(answer.tokens for answer in answers),
    )


def unpack(packed: bytes) -> ExampleScore:
    """The score of which `pack` made these bytes."""
    n = _answers(packed)
    context_tokens, *values = struct.unpack(f"<i{n}d{n}i", packed)
    target, *negatives = map(AnswerScore, values[:n], values[n:])
    return ExampleScore(target, tuple(negatives), context_tokens)


def forget_oldest(scores: dict[bytes, bytes], limit: int | None) -> None:
    """Remove the first of `scores` until `limit` are left (None: no limit). Up to an eighth more may stay,
    because removing single entries from the front of a dictionary gets slower and slower."""
    if limit is not None and len(scores) > limit + limit // 8:
        for key in list(islice(scores, len(scores) - limit)):
            del scores[key]


def encode_scores(scores: Mapping[bytes, bytes]) -> bytes:
    """Packed scores by key as a Parquet file, in their order."""
    packed = list(scores.values())
    offsets = pa.array(np.concatenate([[0], np.cumsum([_answers(score) for score in packed])]), pa.int32())
    contexts = b"".join(score[:_LOGPROBS_AT] for score in packed)
    logprobs = b"".join(score[_LOGPROBS_AT : _tokens_at(score)] for score in packed)
    tokens = b"".join(score[_tokens_at(score) :] for score in packed)
    columns = [
        pa.array(list(scores), SCORE_SCHEMA.field("key").type),
        pa.array(np.frombuffer(contexts, "<i4")),
        pa.ListArray.from_arrays(
            offsets, np.frombuffer(logprobs, "<f8"), type=SCORE_SCHEMA.field("logprobs").type
        ),
        pa.ListArray.from_arrays(
            offsets, np.frombuffer(tokens, "<i4"), type=SCORE_SCHEMA.field("tokens").type
        ),
    ]
    return to_parquet(pa.Table.from_arrays(columns, schema=SCORE_SCHEMA))


def decode_scores(content: bytes) -> dict[bytes, bytes]:
    """The packed scores of a file that `encode_scores` wrote.

    Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version.
    """
    table = from_parquet(content, SCORE_SCHEMA).combine_chunks()
    keys = table.column("key").to_pylist()
    contexts = table.column("context_tokens").to_numpy().astype("<i4").tobytes()
    logprobs, sizes = _lists(table.column("logprobs"), "<f8")
    tokens, token_sizes = _lists(table.column("tokens"), "<i4")
    if not np.array_equal(sizes, token_sizes) or not sizes.all():
        raise ValueError("an answer has no log-probability or no length")
    columns = zip(
        keys,
        _cut(contexts, np.full(len(keys), 4)),
        _cut(logprobs, 8 * sizes),
        _cut(tokens, 4 * sizes),
        strict=True,
    )
    return {key: context + logprob + token for key, context, logprob, token in columns}


def _answers(packed: bytes) -> int:
    return (len(packed) - _LOGPROBS_AT) // _ANSWER_BYTES


def _tokens_at(packed: bytes) -> int:
    return _LOGPROBS_AT + 8 * _answers(packed)


def _lists(column: pa.ChunkedArray, dtype: str) -> tuple[bytes, _Sizes]:
    """The concatenated values of a column of lists, and the number of values in each row."""
    values = np.concatenate([np.empty(0, dtype), *(chunk.flatten().to_numpy() for chunk in column.chunks)])
    sizes = [chunk.value_lengths().to_numpy() for chunk in column.chunks]
    return values.astype(dtype).tobytes(), np.concatenate([np.empty(0, np.int64), *sizes])


def _cut(content: bytes, sizes: _Sizes) -> Iterator[bytes]:
    """Pieces of `content` with these sizes."""
    ends: Sequence[int] = np.cumsum(sizes).tolist()
    start = 0
    for end in ends:
        yield content[start:end]
        start = end
