"""The run folder as a whole: its files, and the order in which they are written.

Invariants: rounds are append-only, and readers see round n only once all of it is written, because its
segments are written before it. A search continues from what is read here and from nothing else. Scores are
only ever added: parts are joined in a new file before the old ones are removed.

    config.yaml                      the resolved configuration; its presence makes a folder a run folder
    manifest.json                    versions, models, data hashes, seed, cluster, times, totals
    tasks/<task>/data.parquet        the whole task, if its data were passed in Python
    tasks/<task>/examples.parquet    the training examples, in the order of a round's losses
    tasks/<task>/round-0003.parquet  one row per candidate
    tasks/<task>/segments-0003.parquet
    tasks/<task>/best.json           the best instruction so far, and its ancestors
    tasks/<task>/result.json         the result of a finished and evaluated task
    scores/00000003.parquet          scores by a key of everything they depend on, in parts
    replicas/00000001.parquet        the number of replicas over time, one file for each driver
    summary.parquet                  the results of all tasks
    evaluation/<key>.parquet         outcomes under one condition of an evaluation; its key stands for
                                     everything they depend on
    evaluation.parquet               all outcomes of the last evaluation
    lease.json, .lock                the driver that may write (`pmpo_ray.store.lease`)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import documents, evaluations, replicas, rounds, scores, task_data, train_examples
from pmpo_ray.store.documents import Manifest
from pmpo_ray.store.folder import Folder, file_error_line
from pmpo_ray.store.lease import is_held
from pmpo_ray.store.lease_record import LEASE_FILE, Lease
from pmpo_ray.store.task_folder import task_folder
from pmpo_ray.types import ConditionResult, Example, Outcome, ReplicaCount, RoundRecord, Task, TaskResult

_CONFIG = "config.yaml"
_MANIFEST = "manifest.json"
_SUMMARY = "summary.parquet"
_EVALUATION = "evaluation.parquet"
_RESERVED = (_CONFIG, _MANIFEST, _SUMMARY, _EVALUATION, LEASE_FILE)
_ROUND = re.compile(r"round-([0-9]{4,})\.parquet")
_PART = re.compile(r"([0-9]{8,})\.parquet")
_TOP_LEVEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADVICE = "restore it from a copy or start a new run"
_PARALLEL_PARTS = 16
"""A long run leaves thousands of small parts, and object storage has a high latency for each."""


class RunStore:
    """Reads and writes one run folder; made by `create` and `open`. One process at a time may write while any
    number read. Calls block on the disk or the network; several threads may share a store.

    With a lease (from `hold`), every write first checks that this driver still holds the folder, and raises
    RunFolderError if it does not. Without one, the caller has to make sure that nobody else writes.

    Every method raises RunFolderError if a file cannot be read or written.
    """

    def __init__(self, folder: Folder, lease: Lease | None = None) -> None:
        self._folder = folder
        self._lease = lease

    @property
    def location(self) -> str:
        """The address of the folder: an absolute path, or the URI that was passed."""
        return self._folder.location

    @property
    def is_local(self) -> bool:
        """True if the address is a path, not a URI of object storage."""
        return self._folder.local_path("") is not None

    @classmethod
    def create(cls, location: str, config_yaml: str, lease: Lease | None = None) -> RunStore:
        """Create a run folder with the configuration `config_yaml`. Raises RunFolderError if the folder
        already contains a run."""
        folder = Folder(location)
        if folder.exists(_CONFIG):
            raise RunFolderError(
                f"{folder.path()} already contains a run; resume it or choose another run folder"
            )
        store = cls(folder, lease)
        store._write(_CONFIG, config_yaml.encode())
        return store

    @classmethod
    def open(cls, location: str, lease: Lease | None = None) -> RunStore:
        """Open an existing run folder, and remove temporary files that killed processes left behind."""
        folder = Folder(location)
        if not folder.exists(_CONFIG):
            path = folder.local_path("")
            reason = "it is a file" if path is not None and path.is_file() else f"it has no {_CONFIG}"
            raise RunFolderError(
                f"{folder.path()} is not a run folder, {reason}; check the path, or start a run"
            )
        folder.clean()
        return cls(folder, lease)

    @classmethod
    def exists(cls, location: str) -> bool:
        """Check if there is a run folder at `location`."""
        return Folder(location).exists(_CONFIG)

    def is_held(self) -> bool:
        """Check if a driver seems to be working on the folder; one that vanished on another machine does."""
        return is_held(self._folder)

    def config_yaml(self) -> str:
        with self._decoding(_CONFIG):
            return self._read(_CONFIG).decode()

    def replace_config(self, config_yaml: str) -> None:
        """Replace the configuration. Only valid before the first round is written."""
        self._write(_CONFIG, config_yaml.encode())

    def write_round(self, record: RoundRecord) -> None:
        """Append a round to its task. Raises RunFolderError if the task has a round of this number."""
        name = _round_name(record.task, record.round)
        # First, so that a driver that lost the folder learns of that, not of the other driver's round.
        self._check_lease()
        if self._folder.exists(name):
            raise RunFolderError(
                f"{self._folder.path(name)} exists, and rounds are never overwritten; let only one process "
                "at a time write to a run folder"
            )
        content = rounds.encode_round(record)
        # Written even without segments: a killed run may have left a file of this number.
        self._write(_segments_name(record.task, record.round), rounds.encode_segments(record.segments))
        self._write(name, content)

    def read_rounds(self, task: str) -> tuple[RoundRecord, ...]:
        """All rounds of a task from round 0 on; empty for a task that has not started.

        Raises RunFolderError, which names the file, if a round is missing, damaged, or of another task.
        """
        return tuple(self.read_round(task, number) for number in range(self.count_rounds(task)))

    def count_rounds(self, task: str) -> int:
        """The number of rounds of a task, round 0 included; 0 for a task that has not started."""
        matches = [_ROUND.fullmatch(name) for name in self._folder.names(f"tasks/{task_folder(task)}")]
        return max((int(match[1]) for match in matches if match), default=-1) + 1

    def write_training(self, task: str, examples: Sequence[Example]) -> None:
        """Store a task's training examples, which readers of its rounds need."""
        self._write(_training_name(task), train_examples.encode_training(examples))

    def read_training(self, task: str) -> tuple[Example, ...] | None:
        """A task's training examples; None in a folder of an earlier version or before the task started."""
        name = _training_name(task)
        content = self._folder.read(name)
        with self._decoding(name):
            return None if content is None else train_examples.decode_training(content)

    def write_task(self, task: Task) -> None:
        """Store a task whose data were passed in Python."""
        self._write(_data_name(task.name), task_data.encode_task(task))

    def read_task(self, name: str) -> Task | None:
        """The stored task of this name, whose data were passed in Python; None if there is none."""
        content = self._folder.read(_data_name(name))
        with self._decoding(_data_name(name)):
            return None if content is None else task_data.decode_task(content)

    def next_replicas(self) -> int:
        """The number under which a driver that starts now stores its replica counts."""
        return max(self._parts("replicas"), default=0) + 1

    def write_replicas(self, number: int, counts: Sequence[ReplicaCount]) -> None:
        """Store all replica counts so far of the driver with this number."""
        self._write(_replicas_name(number), replicas.encode_replicas(counts))

    def read_replicas(self) -> tuple[tuple[ReplicaCount, ...], ...]:
        """The replica counts of every driver that stored some, oldest driver first."""
        counts = []
        for number in self._parts("replicas"):
            name = _replicas_name(number)
            with self._decoding(name, "delete it (only a chart of the report is lost)"):
                counts.append(replicas.decode_replicas(self._read(name)))
        return tuple(counts)

    def write_scores(self, packed: Mapping[bytes, bytes]) -> None:
        """Add a part with these packed scores by key (see `pmpo_ray.store.scores`)."""
        number = max(self._score_parts(), default=-1) + 1
        self._write(_scores_name(number), scores.encode_scores(packed))

    def join_scores(self, limit: int | None = None) -> dict[bytes, bytes]:
        """The newest `limit` packed scores by key, oldest first (None: all of them). Joins the parts into
        one, without the older scores, so only the process that writes to the run folder may call this."""
        parts = self._score_parts()
        packed: dict[bytes, bytes] = {}
        with ThreadPoolExecutor(_PARALLEL_PARTS) as threads:
            for part in threads.map(self._read_scores, parts):
                packed |= part
                scores.forget_oldest(packed, limit)
            if len(parts) > 1:
                # Written in full before the first old part is removed, so that a stop in between loses none.
                self.write_scores(packed)
                self._check_lease()
                for _ in threads.map(lambda number: self._folder.remove(_scores_name(number)), parts):
                    pass
        return packed

    def write_best(self, task: str, records: Sequence[RoundRecord], best: str | None = None) -> None:
        """Write the best instruction of a task, given all its rounds so far: the one with the id `best`, or
        the best of the last round (None)."""
        self._write(f"tasks/{task_folder(task)}/best.json", documents.encode_best(records, best))

    def read_best_id(self, task: str) -> str | None:
        """The id of a task's best instruction so far; None before its first round."""
        name = f"tasks/{task_folder(task)}/best.json"
        content = self._folder.read(name)
        with self._decoding(name):
            return None if content is None else documents.decode_best_id(content)

    def write_task_result(self, task: str, result: TaskResult) -> None:
        """Mark a task as finished and evaluated."""
        self._write(_result_name(task), documents.encode_result(result))

    def read_task_result(self, task: str) -> TaskResult | None:
        """The result of a finished task; None for one that is not finished."""
        name = _result_name(task)
        content = self._folder.read(name)
        with self._decoding(name):
            return None if content is None else documents.decode_result(content)

    def write_manifest(self, manifest: Manifest) -> None:
        self._write(_MANIFEST, documents.encode_manifest(manifest))

    def read_manifest(self) -> Manifest | None:
        """The manifest; None if the run ended before it was written."""
        content = self._folder.read(_MANIFEST)
        with self._decoding(_MANIFEST):
            return None if content is None else documents.decode_manifest(content)

    def write_summary(self, results: Sequence[TaskResult]) -> None:
        self._write(_SUMMARY, documents.encode_summary(results))

    def read_summary(self) -> tuple[TaskResult, ...]:
        """The results of all tasks. Raises RunFolderError if the run has no summary yet."""
        content = self._read(_SUMMARY)
        with self._decoding(_SUMMARY):
            return documents.decode_summary(content)

    def write_outcomes(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """Store the outcomes under the condition with this key."""
        self._write(_outcomes_name(key), evaluations.encode_outcomes(outcomes))

    def read_outcomes(self, key: str) -> tuple[Outcome, ...] | None:
        """The outcomes under the condition with this key; None if it was not evaluated yet."""
        name = _outcomes_name(key)
        content = self._folder.read(name)
        with self._decoding(name, "delete it to evaluate this condition again"):
            return None if content is None else evaluations.decode_outcomes(content)

    def write_evaluation(self, results: Sequence[ConditionResult]) -> None:
        self._write(_EVALUATION, evaluations.encode_evaluation(results))

    def read_evaluation(
        self, selected: Callable[[str, str], bool] | None = None
    ) -> tuple[ConditionResult, ...] | None:
        """The last evaluation; None if there was none. With `selected`, only the results of the tasks and
        names for which it holds."""
        content = self._folder.read(_EVALUATION)
        with self._decoding(_EVALUATION, "delete it and evaluate again"):
            return None if content is None else evaluations.decode_evaluation(content, selected)

    def write_file(self, name: str, content: bytes) -> str:
        """Write another document, such as report.html, next to config.yaml, and return its address. Raises
        ValueError if `name` is not a plain file name or is that of a file of the store."""
        if not _TOP_LEVEL.fullmatch(name) or name in _RESERVED:
            raise ValueError(f"{name!r} cannot name another document of a run folder")
        self._write(name, content)
        return self._folder.address(name)

    def read_round(self, task: str, number: int, whole: Collection[str] | None = None) -> RoundRecord:
        """One round of a task, with scores and losses by example for the candidates with the ids `whole`
        alone (None: for all), which is much faster. Raises RunFolderError as `read_rounds` does."""
        name, segments_name = _round_name(task, number), _segments_name(task, number)
        content, segments_content = self._read(name), self._read(segments_name)
        with self._decoding(segments_name):
            segments = rounds.decode_segments(segments_content)
        with self._decoding(name):
            record = rounds.decode_round(content, segments, whole)
            if (record.task, record.round) != (task, number):
                raise ValueError(f"it contains round {record.round} of task {record.task!r}")
        return record

    def _score_parts(self) -> list[int]:
        return self._parts("scores")

    def _parts(self, folder: str) -> list[int]:
        """The numbers of the parts in `folder`, in order."""
        matches = [_PART.fullmatch(name) for name in self._folder.names(folder)]
        return sorted(int(match[1]) for match in matches if match)

    def _read_scores(self, number: int) -> dict[bytes, bytes]:
        name = _scores_name(number)
        content = self._read(name)
        with self._decoding(name, "delete it to compute its scores again"):
            return scores.decode_scores(content)

    def _write(self, name: str, content: bytes) -> None:
        self._check_lease()
        self._folder.write(name, content)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _read(self, name: str) -> bytes:
        content = self._folder.read(name)
        if content is None:
            raise RunFolderError(f"{self._folder.path(name)} is missing; {_ADVICE}")
        return content

    @contextmanager
    def _decoding(self, name: str, advice: str = _ADVICE) -> Iterator[None]:
        """Turn the errors of decoding the file `name` into a RunFolderError that ends in `advice`."""
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise RunFolderError(
                f"{self._folder.path(name)} is damaged or of another version: "
                f"{file_error_line(error)}; {advice}"
            ) from error


def _round_name(task: str, number: int) -> str:
    return f"tasks/{task_folder(task)}/round-{number:04d}.parquet"


def _scores_name(number: int) -> str:
    return f"scores/{number:08d}.parquet"


def _replicas_name(number: int) -> str:
    return f"replicas/{number:08d}.parquet"


def _training_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/examples.parquet"


def _data_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/data.parquet"


def _outcomes_name(key: str) -> str:
    return f"evaluation/{key}.parquet"


def _segments_name(task: str, number: int) -> str:
    return f"tasks/{task_folder(task)}/segments-{number:04d}.parquet"


def _result_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/result.json"
