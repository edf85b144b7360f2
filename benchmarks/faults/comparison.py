"""The comparison of the run folders of a disturbed and an undisturbed run.

Invariants: everything that a run folder keeps about its outcome is compared bit for bit; only times, the
cluster and the folder's name may differ. Files are read as they are: nothing is joined or repaired first.

    lost            candidates of the undisturbed run that the disturbed one lacks or could not score; and
                    scores that it lacks, unless its driver was killed: those of the last seconds are then
                    kept with their rounds alone (`pmpo_ray.runs.score_memory`)
    counted twice   scores that stand twice, in one part of scores/ or in two; candidates that stand twice in
                    a round, or were born in two; rounds that stand twice
    differences     everything else that is not equal, each in one line
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pmpo_ray.store import RunStore
from pmpo_ray.store.documents import decode_summary
from pmpo_ray.store.scores import decode_scores
from pmpo_ray.store.task_folder import task_folder
from pmpo_ray.types import RoundRecord

_ROUND_FILE = re.compile(r"round-(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The content of a run folder. `rounds`, `best` and `results` are by task, `scores` are packed scores by
    key; `score_rows` are the keys of all parts, with repetitions."""

    rounds: Mapping[str, tuple[RoundRecord, ...]]
    best: Mapping[str, str]
    results: Mapping[str, Mapping[str, Any]]
    summary: tuple[str, ...]
    scores: Mapping[bytes, bytes]
    score_rows: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a comparison of two runs; every entry is one line that names its subject."""

    lost: tuple[str, ...]
    counted_twice: tuple[str, ...]
    differences: tuple[str, ...]

    @property
    def identical(self) -> bool:
        return not (self.lost or self.counted_twice or self.differences)


def read_outcome(run: Path, tasks: Sequence[str]) -> Outcome:
    """The content of the run folder `run` about `tasks`. A task without a result has none in `results`, a
    run that did not end has an empty summary."""
    store = RunStore.open(str(run))
    parts = sorted((run / "scores").glob("*.parquet"))
    folders = {task: run / "tasks" / task_folder(task) for task in tasks}
    summary = run / "summary.parquet"
    rows = decode_summary(summary.read_bytes()) if summary.exists() else ()
    return Outcome(
        rounds={task: store.read_rounds(task) for task in tasks},
        best={task: _text(folder / "best.json") for task, folder in folders.items()},
        results={task: _timeless(_text(folder / "result.json")) for task, folder in folders.items()},
        summary=tuple(repr(replace(row, seconds=0.0)) for row in rows),
        scores={key: score for part in parts for key, score in decode_scores(part.read_bytes()).items()},
        score_rows=tuple(key for part in parts for key in pq.read_table(part)["key"].to_pylist()),
    )


def compare(undisturbed: Outcome, disturbed: Outcome, *, killed: bool) -> Verdict:
    """The losses, repetitions and differences of the second run, whose driver was `killed` or not, against
    the first run."""
    missing = [] if killed else sorted(undisturbed.scores.keys() - disturbed.scores.keys())
    return Verdict(
        lost=(*_lost(undisturbed, disturbed), *(f"score {key.hex()} is missing" for key in missing)),
        counted_twice=tuple(_twice(disturbed)),
        differences=tuple(_differences(undisturbed, disturbed)),
    )


def _lost(undisturbed: Outcome, disturbed: Outcome) -> Iterator[str]:
    for task, records in undisturbed.rounds.items():
        again = {record.round: record for record in disturbed.rounds.get(task, ())}
        for record in records:
            states = _states(again[record.round]) if record.round in again else {}
            for name, state in _states(record).items():
                if name not in states:
                    yield f"{task}, round {record.round}: candidate {name} is missing"
                elif states[name] == "failed" != state:
                    yield f"{task}, round {record.round}: candidate {name} was not scored"


def _states(record: RoundRecord) -> dict[str, str]:
    """The outcome of each candidate of a round."""
    states = {scored.candidate.id: "scored" for scored in record.candidates}
    return states | {refusal.id: refusal.status for refusal in record.refusals}


def _twice(run: Outcome) -> Iterator[str]:
    yield from _repeated("score {} stands twice", [key.hex() for key in run.score_rows])
    for task, records in run.rounds.items():
        made: list[str] = []
        for record in records:
            refused = [refusal.id for refusal in record.refusals]
            scored = [scored.candidate for scored in record.candidates]
            where = f"{task}, round {record.round}: candidate {{}} stands twice"
            yield from _repeated(where, [*refused, *(candidate.id for candidate in scored)])
            # Parents stand in the rounds of their children, too.
            made += {*refused, *(candidate.id for candidate in scored if candidate.round == record.round)}
        yield from _repeated(f"{task}: candidate {{}} was made in two rounds", made)
        yield from _repeated(f"{task}: round {{}} stands twice", [record.round for record in records])


def _repeated(form: str, values: Sequence[object]) -> Iterator[str]:
    """A line for every repetition of a value."""
    for value, times in Counter(values).items():
        yield from [form.format(value)] * (times - 1)


def _differences(undisturbed: Outcome, disturbed: Outcome) -> Iterator[str]:
    for task, records in undisturbed.rounds.items():
        others = disturbed.rounds.get(task, ())
        if len(records) != len(others):
            yield f"{task}: {len(records)} rounds undisturbed, {len(others)} disturbed"
        for record, other in zip(records, others, strict=False):
            yield from _round_differences(record, other)
        if undisturbed.best[task] != disturbed.best.get(task):
            yield f"{task}: best.json differs"
        if repr(undisturbed.results[task]) != repr(disturbed.results.get(task)):
            yield f"{task}: result.json differs"
    if undisturbed.summary != disturbed.summary:
        yield "summary.parquet differs"
    for key in disturbed.scores.keys() - undisturbed.scores.keys():
        yield f"score {key.hex()} was computed in the disturbed run alone"
    for key in undisturbed.scores.keys() & disturbed.scores.keys():
        if undisturbed.scores[key] != disturbed.scores[key]:
            yield f"score {key.hex()} differs"


def _round_differences(record: RoundRecord, other: RoundRecord) -> Iterator[str]:
    for part in fields(record):
        # The text of a float has all its bits, and tells 0.0 from -0.0.
        before, after = repr(getattr(record, part.name)), repr(getattr(other, part.name))
        if part.name != "seconds" and before != after:
            yield f"{record.task}, round {record.round}: {part.name} differ"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def _timeless(document: str) -> Mapping[str, Any]:
    return {key: value for key, value in json.loads(document or "{}").items() if key != "seconds"}


class RoundWatch:
    """Sees a round that is written again while a run goes on: the file of a round never changes."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._seen: dict[Path, tuple[int, int]] = {}
        self.rewritten: list[str] = []

    def look(self) -> int:
        """The number of finished rounds of all tasks."""
        for file in self._run.glob("tasks/*/round-*.parquet"):
            if _ROUND_FILE.fullmatch(file.name) is None:
                continue
            status = file.stat()
            identity = (status.st_ino, status.st_mtime_ns)
            if self._seen.setdefault(file, identity) != identity:
                self._seen[file] = identity
                self.rewritten.append(f"{file.parent.name}: {file.name} was written again")
        return len(self._seen)
