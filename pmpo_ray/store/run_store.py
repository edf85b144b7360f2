"""The run folder as a whole: its files, and the order in which they are written.

Invariants: rounds are append-only, and readers see round n only once all of it is written, because its
segments and requests are written before it. A search continues from what is read here and from nothing else.
Scores are only ever added: parts are joined in a new file before the old ones are removed.

    config.yaml                      the resolved configuration; its presence makes a folder a run folder
    manifest.json                    versions, models, data hashes, seed, cluster, times, totals
    tasks/<task>/data.parquet        the whole task, if its data were passed in Python
    tasks/<task>/examples.parquet    the training examples, in the order of a round's losses
    tasks/<task>/round-0003.parquet  one row per candidate
    tasks/<task>/segments-0003.parquet, requests-0003.parquet
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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from pmpo_ray.errors import RunFolderError
from pmpo_ray.outcomes import ConditionResult, Outcome, ReplicaCount, TaskResult
from pmpo_ray.store import documents, evaluations, replicas, rounds, scores, task_data, train_examples
from pmpo_ray.store.damage import DECODING_ERRORS, DamagedFileError, DamagedFiles, decoding
from pmpo_ray.store.documents import Manifest
from pmpo_ray.store.folder import Folder
from pmpo_ray.store.lease import is_held
from pmpo_ray.store.lease_record import LEASE_FILE, Lease
from pmpo_ray.store.names import (
    best_name,
    data_name,
    outcomes_name,
    replicas_name,
    requests_name,
    result_name,
    round_name,
    scores_name,
    segments_name,
    training_name,
)
from pmpo_ray.store.task_folder import task_folder
from pmpo_ray.types import Example, RoundRecord, SegmentImportance, Task, WritingRequest

_CONFIG = "config.yaml"
_MANIFEST = "manifest.json"
_SUMMARY = "summary.parquet"
_EVALUATION = "evaluation.parquet"
_RESERVED = (_CONFIG, _MANIFEST, _SUMMARY, _EVALUATION, LEASE_FILE)
_ROUND = re.compile(r"round-([0-9]{4,})\.parquet")
_PART = re.compile(r"([0-9]{8,})\.parquet")
_TOP_LEVEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ADVICE = "restore it from a copy"
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
        self._damaged = DamagedFiles(folder)

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
        content = self._read(_CONFIG)
        with decoding(self._folder, _CONFIG, _ADVICE):
            # Part of a configuration is another one, and nothing would tell. The seed is the last key.
            if not re.search(rb"(?:\A|\n)seed: [^\n]*\n\Z", content):
                raise ValueError("its end is missing")
            return content.decode()

    def replace_config(self, config_yaml: str) -> None:
        """Replace the configuration. Only valid before the first round is written."""
        self._write(_CONFIG, config_yaml.encode())

    def write_round(self, record: RoundRecord) -> None:
        """Append a round to its task. Raises RunFolderError if the task has a round of this number."""
        name = round_name(record.task, record.round)
        # First, so that a driver that lost the folder learns of that, not of the other driver's round.
        self._check_lease()
        if self._folder.exists(name):
            raise RunFolderError(
                f"{self._folder.path(name)} exists, and rounds are never overwritten; let only one process "
                "at a time write to a run folder"
            )
        content = rounds.encode_round(record)
        # Written even without segments: a killed run may have left a file of this number.
        self._write(segments_name(record.task, record.round), rounds.encode_segments(record.segments))
        if record.requests:
            self._write(requests_name(record.task, record.round), rounds.encode_requests(record.requests))
        self._write(name, content)

    def read_rounds(self, task: str, whole: Collection[str] | None = None) -> tuple[RoundRecord, ...]:
        """All rounds of a task from round 0 on, each as `read_round` gives it, round 0 always whole; empty
        for a task that has not started. A damaged last round is left out with a warning.

        Raises RunFolderError, which names the file, if an earlier round is missing, damaged, or of another
        task.
        """
        count, records = self.count_rounds(task), []
        for number in range(count):
            try:
                records.append(self.read_round(task, number, whole if number else None))
            except DamagedFileError as error:
                if number < count - 1:
                    raise
                text = f"{error}; until then round {number} of task {task} is left out; continuing repeats it"
                self._damaged.leave_out(round_name(task, number), text)
        return tuple(records)

    def continue_rounds(self, task: str) -> tuple[RoundRecord, ...]:
        """As `read_rounds`, for the driver that continues the task: without requests, on which nothing
        depends; a damaged last round is set aside, and damaged segments are damage to their round."""
        self.last_round(task)
        count = self.count_rounds(task)
        return tuple(self._round(task, number, self._segments(task, number)) for number in range(count))

    def last_round(self, task: str) -> RoundRecord | None:
        """The round from which the driver continues the task, without its requests; None for a task that has
        not started. The file of a damaged last round is set aside, so that the round can be written again."""
        last = self.count_rounds(task) - 1
        try:
            return self._round(task, last, self._segments(task, last)) if last >= 0 else None
        except DamagedFileError as error:
            self._check_lease()
            aside = self._damaged.set_aside(round_name(task, last))
            text = f"{error}; it is set aside as {aside}, and round {last} of task {task} is repeated"
            self._damaged.leave_out(round_name(task, last), text)
        return self._round(task, last - 1, self._segments(task, last - 1)) if last else None

    def count_rounds(self, task: str) -> int:
        """The number of rounds of a task, round 0 included; 0 for a task that has not started."""
        matches = [_ROUND.fullmatch(name) for name in self._folder.names(f"tasks/{task_folder(task)}")]
        return max((int(match[1]) for match in matches if match), default=-1) + 1

    def write_training(self, task: str, examples: Sequence[Example]) -> None:
        """Store a task's training examples, which readers of its rounds need."""
        self._write(training_name(task), train_examples.encode_training(examples))

    def read_training(self, task: str) -> tuple[Example, ...] | None:
        """A task's training examples; None in a folder of an earlier version or before the task started."""
        return self._damaged.decoded(
            training_name(task), train_examples.decode_training, "hard examples are not shown"
        )

    def write_task(self, task: Task) -> None:
        """Store a task whose data were passed in Python."""
        self._write(data_name(task.name), task_data.encode_task(task))

    def read_task(self, name: str) -> Task | None:
        """The stored task of this name, whose data were passed in Python; None if there is none."""
        content = self._folder.read(data_name(name))
        with decoding(self._folder, data_name(name), "restore it, or call optimize() with the same data"):
            return None if content is None else task_data.decode_task(content)

    def next_replicas(self) -> int:
        """The number under which a driver that starts now stores its replica counts."""
        return max(self._parts("replicas"), default=0) + 1

    def write_replicas(self, number: int, counts: Sequence[ReplicaCount]) -> None:
        """Store all replica counts so far of the driver with this number."""
        self._write(replicas_name(number), replicas.encode_replicas(counts))

    def read_replicas(self) -> tuple[tuple[ReplicaCount, ...], ...]:
        """The replica counts of every driver that stored some, oldest driver first."""
        lost = "a part of the report's chart of replicas is lost"
        names = map(replicas_name, self._parts("replicas"))
        counts = (self._damaged.decoded(name, replicas.decode_replicas, lost) for name in names)
        return tuple(part for part in counts if part is not None)

    def write_scores(self, packed: Mapping[bytes, bytes]) -> None:
        """Add a part with these packed scores by key (see `pmpo_ray.store.scores`)."""
        number = max(self._parts("scores"), default=-1) + 1
        self._write(scores_name(number), scores.encode_scores(packed))

    def join_scores(self, limit: int | None = None) -> dict[bytes, bytes]:
        """The newest `limit` packed scores by key, oldest first (None: all of them). Joins the parts into
        one, without the older scores, so only the process that writes to the run folder may call this."""
        parts = self._parts("scores")
        packed: dict[bytes, bytes] = {}
        damaged = []
        with ThreadPoolExecutor(_PARALLEL_PARTS) as threads:
            for number, part in zip(parts, threads.map(self._read_scores, parts), strict=True):
                if part is None:
                    damaged.append(scores_name(number))
                else:
                    packed |= part
                    scores.forget_oldest(packed, limit)
            self._check_lease()
            self._damaged.set_all_aside(damaged, f"of {len(parts)} parts of the scores", "computed again")
            if len(parts) > 1:
                # Written in full before the first old part is removed, so that a stop in between loses none.
                self.write_scores(packed)
                self._check_lease()
                for _ in threads.map(lambda number: self._folder.remove(scores_name(number)), parts):
                    pass
        return packed

    def write_best(self, task: str, records: Sequence[RoundRecord], best: str | None = None) -> None:
        """Write the best instruction of a task, given all its rounds so far: the one with the id `best`, or
        the best of the last round (None)."""
        self._write(best_name(task), documents.encode_best(records, best))

    def read_best_id(self, task: str) -> str | None:
        """The id of a task's best instruction so far; None before its first round."""
        return self._damaged.decoded(
            best_name(task), documents.decode_best_id, "the best instruction is taken from the rounds"
        )

    def write_task_result(self, task: str, result: TaskResult) -> None:
        """Mark a task as finished and evaluated."""
        self._write(result_name(task), documents.encode_result(result))

    def read_task_result(self, task: str) -> TaskResult | None:
        """The result of a finished task; None for one that is not finished. In place of a damaged result,
        that in the summary."""
        name = result_name(task)
        decode = partial(documents.decode_result, task=task)
        result = self._damaged.decoded(name, decode, "it is taken from summary.parquet, if that is there")
        if result is None and name in self._damaged.named:
            return next((one for one in self.read_summary() if one.task == task), None)
        return result

    def write_manifest(self, manifest: Manifest) -> None:
        self._write(_MANIFEST, documents.encode_manifest(manifest))

    def read_manifest(self) -> Manifest | None:
        """The manifest; None if the run ended before it was written."""
        return self._damaged.decoded(
            _MANIFEST, documents.decode_manifest, "versions, totals and times so far are not known"
        )

    def write_summary(self, results: Sequence[TaskResult]) -> None:
        self._write(_SUMMARY, documents.encode_summary(results))

    def read_summary(self) -> tuple[TaskResult, ...]:
        """The results of all tasks; empty if the run has no summary yet, or a damaged one."""
        consequence = "the run makes it again at its end"
        return self._damaged.decoded(_SUMMARY, documents.decode_summary, consequence) or ()

    def write_outcomes(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """Store the outcomes under the condition with this key."""
        self._write(outcomes_name(key), evaluations.encode_outcomes(outcomes))

    def read_outcomes(self, key: str) -> tuple[Outcome, ...] | None:
        """The outcomes under the condition with this key; None if it was not evaluated yet."""
        return self._damaged.decoded(
            outcomes_name(key), evaluations.decode_outcomes, "this condition is measured again"
        )

    def write_evaluation(self, results: Sequence[ConditionResult]) -> None:
        self._write(_EVALUATION, evaluations.encode_evaluation(results))

    def read_evaluation(
        self, selected: Callable[[str, str], bool] | None = None
    ) -> tuple[ConditionResult, ...] | None:
        """The last evaluation; None if there was none. With `selected`, only the results of the tasks and
        names for which it holds."""
        decode = partial(evaluations.decode_evaluation, selected=selected)
        return self._damaged.decoded(_EVALUATION, decode, "it is not shown; `pmpo evaluate` makes it again")

    def write_file(self, name: str, content: bytes) -> str:
        """Write another document, such as report.html, next to config.yaml, and return its address. Raises
        ValueError if `name` is not a plain file name or is that of a file of the store."""
        if not _TOP_LEVEL.fullmatch(name) or name in _RESERVED:
            raise ValueError(f"{name!r} cannot name another document of a run folder")
        self._write(name, content)
        return self._folder.address(name)

    def read_round(self, task: str, number: int, whole: Collection[str] | None = None) -> RoundRecord:
        """One round of a task, with scores and losses by example for the candidates with the ids `whole`
        alone (None: for all), which is much faster. Damaged segments or requests are left out with a warning.
        Raises RunFolderError if the round is missing, damaged, or of another task."""
        try:
            segments = self._segments(task, number)
        except DamagedFileError as error:
            text = f"{error}; the importance of parts of instructions is not shown for round {number}"
            self._damaged.leave_out(segments_name(task, number), text)
            segments = ()
        record = self._round(task, number, segments, whole)
        return replace(record, requests=self._requests(record))

    def _round(
        self,
        task: str,
        number: int,
        segments: tuple[SegmentImportance, ...],
        whole: Collection[str] | None = None,
    ) -> RoundRecord:
        name = round_name(task, number)
        content = self._read(name)
        with decoding(self._folder, name, _ADVICE):
            record = rounds.decode_round(content, segments, whole)
            if (record.task, record.round) != (task, number):
                raise ValueError(f"it contains round {record.round} of task {record.task!r}")
        return record

    def _segments(self, task: str, number: int) -> tuple[SegmentImportance, ...]:
        name = segments_name(task, number)
        content = self._read(name)
        with decoding(self._folder, name, _ADVICE):
            return rounds.decode_segments(content)

    def _requests(self, record: RoundRecord) -> tuple[WritingRequest, ...]:
        """The requests of a round. If no text answers one, the file is from a driver that was killed."""
        if not rounds.has_requests(record):
            return ()
        name, lost = requests_name(record.task, record.round), "the meta-prompts of its round are not shown"
        return self._damaged.decoded(name, rounds.decode_requests, lost) or ()

    def _parts(self, folder: str) -> list[int]:
        """The numbers of the parts in `folder`, in order."""
        matches = [_PART.fullmatch(name) for name in self._folder.names(folder)]
        return sorted(int(match[1]) for match in matches if match)

    def _read_scores(self, number: int) -> dict[bytes, bytes] | None:
        """The packed scores of a part; None if it is damaged."""
        content = self._read(scores_name(number))
        try:
            return scores.decode_scores(content)
        except DECODING_ERRORS:
            return None

    def _write(self, name: str, content: bytes) -> None:
        self._check_lease()
        self._folder.write(name, content)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _read(self, name: str) -> bytes:
        content = self._folder.read(name)
        if content is None:
            raise DamagedFileError(f"{self._folder.path(name)} is missing; {_ADVICE}")
        return content
