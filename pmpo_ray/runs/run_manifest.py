"""The manifest of a run, at its start and at its end.

Invariants: a continued run keeps its id, its start time and the seconds of its earlier processes; losses of
prompts that were encoded otherwise are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import RunFolderError
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.result import RunResult
from pmpo_ray.runs.run_folder import changed_data
from pmpo_ray.store import Manifest, PoolUse, RunStore, data_hash, installed_versions
from pmpo_ray.types import EngineInfo

if TYPE_CHECKING:
    from pmpo_ray.actors.stats import PoolStats


def new_manifest(config: RunConfig, prepared_tasks: Sequence[PreparedTask], store: RunStore) -> Manifest:
    """The manifest of a run that starts or continues, before its models are loaded. Raises RunFolderError if
    the data of a task with stored rounds have changed."""
    earlier = store.read_manifest()
    data = {prepared.task.name: data_hash(prepared.task.examples) for prepared in prepared_tasks}
    for name, kept in (earlier.data if earlier else {}).items():
        if data.get(name, kept) != kept and store.count_rounds(name):
            raise changed_data(name, store.location)
    return Manifest(
        versions=installed_versions(),
        scorer=None,
        rewriter=None,
        data=data,
        tasks={prepared.task.name: prepared.overview for prepared in prepared_tasks},
        seed=config.seed,
        cluster=None,
        started=earlier.started if earlier else _now(),
        seconds=earlier.seconds if earlier else 0.0,
        id=earlier.id if earlier and earlier.id else uuid4().hex,
    )


def start_day(manifest: Manifest) -> date:
    """The date on which a run began (UTC), which its prompts show wherever and whenever it continues."""
    return datetime.fromisoformat(manifest.started).date()


def check_encoding(store: RunStore, scorer: EngineInfo) -> None:
    """Raises RunFolderError if the run has rounds whose prompts another encoding made: their losses can't be
    compared with new ones. A folder of an earlier version does not know its encoding."""
    earlier = store.read_manifest()
    known = earlier.scorer.encoding if earlier is not None and earlier.scorer is not None else ""
    if earlier is None or known in ("", scorer.encoding) or not any(map(store.count_rounds, earlier.data)):
        return
    versions = installed_versions()
    renewed = [
        f"{name} {earlier.versions.get(name, 'unknown')} is now {versions.get(name, 'unknown')}"
        for name in ("pmpo-ray", "transformers")
        if earlier.versions.get(name) != versions.get(name)
    ]
    reason = " and ".join(renewed) or f"the chat template or the tokenizer of {scorer.model} has changed"
    raise RunFolderError(
        f"{store.location}: the scorer's prompts are no longer those that this run was scored with: "
        f"{reason}; restore that, or give another --run-dir"
    )


def finished_manifest(
    manifest: Manifest, result: RunResult, pools: Mapping[str, PoolStats], seconds: float
) -> Manifest:
    """`manifest` with the totals of a run whose last process took `seconds`. A run with failed tasks has no
    end time: it can be continued."""
    return replace(
        manifest,
        ended=None if result.failed else _now(),
        tokens_scored=sum(task.tokens_scored for task in result.tasks),
        tokens_prompted=sum(task.tokens_prompted for task in result.tasks),
        tokens_generated=sum(task.tokens_generated for task in result.tasks),
        seconds=manifest.seconds + seconds,
        pools={name: _pool_use(stats) for name, stats in pools.items()},
    )


def engine_text(role: str, info: EngineInfo) -> str:
    """A line about the engine of a role: its model, number format and device, and why it has that format."""
    reason = f" ({info.dtype_reason})" if info.dtype_reason else ""
    return f"{role}: {info.model} on {info.engine}, {info.dtype} on {info.device}{reason}"


def _pool_use(stats: PoolStats) -> PoolUse:
    return PoolUse(
        stats.done, stats.retries, stats.lost, stats.tokens, stats.busy_seconds, stats.ready_seconds
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
