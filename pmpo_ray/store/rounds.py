"""A round as Parquet files: its candidates, its segments, and its requests to the model that writes.

Invariant: decoding returns exactly the record that was encoded. There is one row per candidate, the scored
ones first, in the record's order; the values of the whole round are JSON in the schema's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

from pmpo_ray.store.tables import escape, from_parquet, to_parquet, unescape
from pmpo_ray.store.typed import typed
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    ExampleScore,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    Segment,
    SegmentImportance,
    Status,
    WritingRequest,
)

FORMAT = 1
METADATA_KEY = b"pmpo_ray.search.round"

ROUND_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("parent", pa.string()),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("operator", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("born", pa.int32(), nullable=False),
        pa.field("shots", pa.list_(pa.string())),
        pa.field("hard_case", pa.string()),
        pa.field("request", pa.string()),
        pa.field("left", pa.int32()),
        pa.field("surprisal", pa.float64()),
        pa.field("penalty", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("losses", pa.list_(pa.float64())),
        pa.field("target_logprobs", pa.list_(pa.float64())),
        pa.field("target_tokens", pa.list_(pa.int32())),
        pa.field("negative_logprobs", pa.list_(pa.list_(pa.float64()))),
        pa.field("negative_tokens", pa.list_(pa.list_(pa.int32()))),
        pa.field("context_tokens", pa.list_(pa.int32())),
    ]
)
"""`rank` is a survivor's place, 0 for the best; `shots` and `hard_case` are ids of training examples,
`request` is an id in the file of requests; `left` counts the examples after which a candidate left the race
(0: it did not); `surprisal` and `penalty` are there with `search.readability` alone; they and the columns
from `loss` on are null for refusals. The lists have one entry per training
example, in training order, log-probabilities in nats."""

SEGMENT_SCHEMA = pa.schema(
    [
        pa.field("candidate", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("importance", pa.float64(), nullable=False),
    ]
)

REQUEST_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("operator", pa.string(), nullable=False),
        pa.field("parent", pa.string(), nullable=False),
        pa.field("hard_case", pa.string()),
        pa.field("examples", pa.list_(pa.string()), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("samples", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
    ]
)
"""`hard_case` and `examples` are ids of training examples, `parent` is that of a candidate."""

_LISTS = ROUND_SCHEMA.names[ROUND_SCHEMA.get_field_index("losses") :]
_PLAIN = ROUND_SCHEMA.names[: -len(_LISTS)]
"""Columns with and without lists. Lists take nearly all of a file, and of the time to read it."""
_READ = ("surprisal", "penalty")
"""Columns that a file has if texts were read."""
_ADDED = ("shots", "hard_case", "request", "left", *_READ)
"""Columns that a file of an earlier version lacks, or one without readings."""
_STATUSES = frozenset(get_args(Status))
_OPERATOR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Header:
    """The values of a whole round."""

    format: int
    task: str
    round: int
    tokens_scored: int
    tokens_generated: int
    seconds: float
    tokens_prompted: int = 0


def encode_round(record: RoundRecord) -> bytes:
    """The round's candidates as a Parquet file, without its segments and requests. Raises ValueError if a
    survivor is not among the candidates."""
    rank = {survivor: place for place, survivor in enumerate(record.survivors)}
    unknown = rank.keys() - {scored.candidate.id for scored in record.candidates}
    if unknown:
        raise ValueError(f"survivors {sorted(unknown)} of round {record.round} are not among its candidates")
    rows = [_scored_row(scored, rank.get(scored.candidate.id)) for scored in record.candidates]
    rows += [_refusal_row(refusal, record.round) for refusal in record.refusals]
    header = {
        "format": FORMAT,
        "task": escape(record.task),
        "round": record.round,
        "tokens_scored": record.tokens_scored,
        "tokens_prompted": record.tokens_prompted,
        "tokens_generated": record.tokens_generated,
        "seconds": record.seconds,
    }
    read = any(scored.surprisal is not None for scored in record.candidates)
    columns = [field for field in ROUND_SCHEMA if read or field.name not in _READ]
    schema = pa.schema(columns, {METADATA_KEY: json.dumps(header).encode()})
    return to_parquet(pa.Table.from_pylist(rows, schema=schema))


def encode_segments(segments: tuple[SegmentImportance, ...]) -> bytes:
    """The segments as a Parquet file, one row each."""
    rows = [
        {
            "candidate": escape(item.candidate),
            "index": item.index,
            "start": item.segment.start,
            "end": item.segment.end,
            "text": escape(item.segment.text),
            "importance": item.importance,
        }
        for item in segments
    ]
    return to_parquet(pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA))


def has_requests(record: RoundRecord) -> bool:
    """True if a text of the round answers a request; never in a round of an earlier version."""
    made = [one.candidate.request for one in record.candidates if one.candidate.round == record.round]
    return any(name is not None for name in (*made, *(refusal.request for refusal in record.refusals)))


def encode_requests(requests: Sequence[WritingRequest]) -> bytes:
    """The requests as a Parquet file, one row each."""
    rows = [
        {
            "id": escape(one.id),
            "operator": one.operator,
            "parent": escape(one.parent),
            "hard_case": _escaped(one.hard_case),
            "examples": [escape(name) for name in one.examples],
            "attempt": one.attempt,
            "samples": one.samples,
            "prompt": escape(one.prompt),
        }
        for one in requests
    ]
    return to_parquet(pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA))


def decode_requests(content: bytes) -> tuple[WritingRequest, ...]:
    """The requests of a file that `encode_requests` wrote. Raises the errors of `decode_round`."""
    return tuple(
        WritingRequest(
            id=unescape(row["id"]),
            operator=row["operator"],
            parent=unescape(row["parent"]),
            hard_case=_unescaped(row["hard_case"]),
            examples=tuple(map(unescape, row["examples"])),
            attempt=row["attempt"],
            samples=row["samples"],
            prompt=unescape(row["prompt"]),
        )
        for row in from_parquet(content, REQUEST_SCHEMA).to_pylist()
    )


def decode_round(
    content: bytes, segments: tuple[SegmentImportance, ...], whole: Collection[str] | None = None
) -> RoundRecord:
    """The record of a file that `encode_round` wrote, with its `segments` and without its requests. Scores
    and losses per example are read only for the candidates whose ids are in `whole` (None: for all).

    Raises one of the `pmpo_ray.store.damage.DECODING_ERRORS` if the file is damaged or of another origin.
    """
    table = from_parquet(content, ROUND_SCHEMA, _PLAIN, added=_ADDED)
    header = typed(_Header, json.loads((table.schema.metadata or {})[METADATA_KEY]))
    if header.format != FORMAT:
        raise ValueError("it has another format version")
    rows = table.to_pylist()
    if not {row["status"] for row in rows} <= _STATUSES:
        raise ValueError("it has a status of another version")
    if not all(_OPERATOR.fullmatch(row["operator"]) for row in rows):
        raise ValueError("it has an operator that is not a name")
    scored_rows = [row for row in rows if row["status"] in ("survivor", "dropped")]
    _add_lists(rows, content, whole)
    ranked = sorted((row for row in scored_rows if row["rank"] is not None), key=lambda row: int(row["rank"]))
    if not ranked:
        raise ValueError("it has no survivor")
    return RoundRecord(
        task=unescape(header.task),
        round=header.round,
        candidates=tuple(_scored(row) for row in scored_rows),
        survivors=tuple(unescape(row["id"]) for row in ranked),
        refusals=tuple(_refusal(row) for row in rows if row["status"] in ("refused", "failed")),
        segments=segments,
        tokens_scored=header.tokens_scored,
        tokens_prompted=header.tokens_prompted,
        tokens_generated=header.tokens_generated,
        seconds=header.seconds,
    )


def _add_lists(rows: Sequence[_Row], content: bytes, whole: Collection[str] | None) -> None:
    """Complete the rows of the candidates `whole`; the others get empty lists."""
    places = [n for n, row in enumerate(rows) if whole is None or unescape(row["id"]) in whole]
    for row in rows:
        row.update(dict.fromkeys(_LISTS, ()))
    if places:
        lists = from_parquet(content, ROUND_SCHEMA, _LISTS, added=_ADDED)
        for place in places:
            rows[place].update(lists.slice(place, 1).to_pylist()[0])


def decode_segments(content: bytes) -> tuple[SegmentImportance, ...]:
    """The segments of a file that `encode_segments` wrote. Raises the errors of `decode_round`."""
    return tuple(
        SegmentImportance(
            candidate=unescape(row["candidate"]),
            index=row["index"],
            segment=Segment(start=row["start"], end=row["end"], text=unescape(row["text"])),
            importance=row["importance"],
        )
        for row in from_parquet(content, SEGMENT_SCHEMA).to_pylist()
    )


def _scored_row(scored: ScoredCandidate, rank: int | None) -> _Row:
    candidate, scores = scored.candidate, scored.scores
    return {
        "id": escape(candidate.id),
        "text": escape(candidate.text),
        "parent": _escaped(candidate.parent),
        "lineage": escape(candidate.lineage),
        "operator": candidate.operator,
        "status": "dropped" if rank is None else "survivor",
        "reason": "",
        "left": scored.left,
        "rank": rank,
        "born": candidate.round,
        "shots": [escape(name) for name in candidate.shots],
        "hard_case": _escaped(candidate.hard_case),
        "request": _escaped(candidate.request),
        "surprisal": scored.surprisal,
        "penalty": scored.penalty,
        "loss": scored.loss,
        "losses": list(scored.losses),
        "target_logprobs": [score.target.logprob for score in scores],
        "target_tokens": [score.target.tokens for score in scores],
        "negative_logprobs": [[negative.logprob for negative in score.negatives] for score in scores],
        "negative_tokens": [[negative.tokens for negative in score.negatives] for score in scores],
        "context_tokens": [score.context_tokens for score in scores],
    }


def _refusal_row(refusal: Refusal, born: int) -> _Row:
    return {
        "id": escape(refusal.id),
        "text": escape(refusal.text),
        "parent": escape(refusal.parent),
        "lineage": escape(refusal.lineage),
        "operator": refusal.operator,
        "status": refusal.status,
        "reason": escape(refusal.reason),
        "born": born,
        "shots": [escape(name) for name in refusal.shots],
        "hard_case": _escaped(refusal.hard_case),
        "request": _escaped(refusal.request),
    }


def _scored(row: _Row) -> ScoredCandidate:
    return ScoredCandidate(
        candidate=Candidate(
            id=unescape(row["id"]),
            text=unescape(row["text"]),
            parent=_unescaped(row["parent"]),
            lineage=unescape(row["lineage"]),
            operator=row["operator"],
            round=row["born"],
            shots=_shots(row),
            hard_case=_unescaped(row["hard_case"]),
            request=_unescaped(row["request"]),
        ),
        scores=_scores(row),
        losses=tuple(row["losses"]),
        loss=row["loss"],
        left=row["left"] or 0,
        surprisal=row["surprisal"],
        penalty=0.0 if row["penalty"] is None else row["penalty"],
    )


def _scores(row: _Row) -> tuple[ExampleScore, ...]:
    columns = zip(
        row["target_logprobs"],
        row["target_tokens"],
        row["negative_logprobs"],
        row["negative_tokens"],
        row["context_tokens"],
        strict=True,
    )
    return tuple(
        ExampleScore(
            target=AnswerScore(logprob, tokens),
            negatives=tuple(
                AnswerScore(*negative) for negative in zip(negative_logprobs, negative_tokens, strict=True)
            ),
            context_tokens=context_tokens,
        )
        for logprob, tokens, negative_logprobs, negative_tokens, context_tokens in columns
    )


def _refusal(row: _Row) -> Refusal:
    return Refusal(
        id=unescape(row["id"]),
        text=unescape(row["text"]),
        parent=unescape(row["parent"]),
        lineage=unescape(row["lineage"]),
        operator=row["operator"],
        reason=unescape(row["reason"]),
        status=row["status"],
        shots=_shots(row),
        hard_case=_unescaped(row["hard_case"]),
        request=_unescaped(row["request"]),
    )


def _escaped(name: str | None) -> str | None:
    return None if name is None else escape(name)


def _unescaped(name: str | None) -> str | None:
    return None if name is None else unescape(name)


def _shots(row: _Row) -> tuple[str, ...]:
    return tuple(map(unescape, row["shots"] or ()))
