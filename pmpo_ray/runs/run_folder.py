"""The run folder of a run that starts or continues.

Invariant: rounds made with one configuration and one set of examples are never continued with another; before
the first round, either may still change.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pmpo_ray.config.loading import dump_config
from pmpo_ray.config.resume import differences
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import RunFolderError
from pmpo_ray.prepared_task import PreparedTask
from pmpo_ray.signals import Interrupted, ending_on_signals, number_of
from pmpo_ray.store import Lease, RunStore, task_folder
from pmpo_ray.store.damage import DamagedFileError
from pmpo_ray.store.folder import Folder
from pmpo_ray.store.kept_config import kept_config
from pmpo_ray.types import Task


@contextmanager
def naming_folder(location: str) -> Iterator[None]:
    """Let a signal end the block with an `Interrupted` that names the run folder at `location`, if there is
    one to continue."""
    with ending_on_signals():
        try:
            yield
        except KeyboardInterrupt as interrupt:
            kept = Folder(location).location if RunStore.exists(location) else ""
            raise Interrupted(number_of(interrupt), kept) from None


@contextmanager
def run_location(config: RunConfig) -> Iterator[str]:
    """The folder of a run: the configured one, or a new one below runs/, which no other run has. A new one is
    removed again if nothing was written to it. Raises RunFolderError if none can be created."""
    if config.run_dir is not None:
        yield config.run_dir
        return
    location = _new_folder(config, f"{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        yield location
    finally:
        # Only an empty folder can be removed.
        with contextlib.suppress(OSError):
            Path(location).rmdir()


def _new_folder(config: RunConfig, time: str) -> str:
    """Create the folder of a new run that begins at `time`."""
    name = task_folder(config.tasks[0].name) if len(config.tasks) == 1 else f"{len(config.tasks)}-tasks"
    for number in itertools.count(1):
        location = f"runs/{time}-{name}" + (f"-{number}" if number > 1 else "")
        if Folder(location).create_new():
            break
    return location


def open_store(config: RunConfig, location: str, lease: Lease) -> RunStore:
    """The run folder at `location`, created if it does not exist. Raises RunFolderError if its rounds were
    made with another configuration."""
    if not RunStore.exists(location):
        if any(map(RunStore(Folder(location)).count_rounds, config.named_searches())):
            raise RunFolderError(
                f"{location} holds rounds but no config.yaml, so it is not known how they were made; restore "
                "it from a copy, or give another --run-dir"
            )
        return RunStore.create(location, dump_config(config), lease)
    store = RunStore.open(location, lease)
    kept = kept_config(location)
    changed = differences(kept, config)
    if changed and not any(map(store.count_rounds, kept.named_searches())):
        # No round was made with the kept configuration: it may have failed for an error that is fixed now.
        store.replace_config(dump_config(config))
    elif changed:
        raise RunFolderError(
            f"{location} was made with another configuration: {', '.join(changed[:3])} "
            f"{'differs' if len(changed) == 1 else 'differ'}; give another --run-dir, or continue with: "
            f"pmpo optimize --run-dir {location}"
        )
    return store


def keep_python_tasks(config: RunConfig, store: RunStore, python_tasks: Mapping[str, Task]) -> None:
    """Store the tasks whose data were passed in Python. Raises RunFolderError if rounds were made with other
    data."""
    for name, task in python_tasks.items():
        kept = None
        # A damaged one is made again; other data are found by the manifest and the training examples.
        with contextlib.suppress(DamagedFileError):
            kept = store.read_task(name)
        if kept not in (None, task) and any(map(store.count_rounds, config.named_searches(name))):
            raise changed_data(name, store.location)
        if kept != task:
            store.write_task(task)


def keep_function_tasks(config: RunConfig, store: RunStore, prepared_tasks: Sequence[PreparedTask]) -> None:
    """Store the tasks whose data a function returned, so that readers of the run need not call it. Once
    rounds were made, the stored data stay as they are."""
    prepared = {one.task.name: one.task for one in prepared_tasks}
    for settings in config.tasks:
        searches = list(config.named_searches(settings.name))
        if settings.function is None:
            continue
        kept = store.read_task(settings.name)
        task = replace(prepared[searches[0]], name=settings.name)
        if kept is None or (kept != task and not any(map(store.count_rounds, searches))):
            store.write_task(task)


def check_training(prepared: PreparedTask, store: RunStore) -> None:
    """Raise RunFolderError if the stored rounds were trained on other examples than the training part: then
    the test part could contain training examples. A search leaves out examples that are too long."""
    name = prepared.task.name
    kept = store.read_training(name) if store.count_rounds(name) else None
    if kept is not None and not {one.id for one in kept} <= {one.id for one in prepared.split.train}:
        raise RunFolderError(
            f"task {name}: the training examples are not those of the run in {store.location}, which another "
            "version of pmpo may have drawn; use that version, or give another --run-dir"
        )


def changed_data(task: str, location: str) -> RunFolderError:
    """The error for a task whose data are no longer those of its stored rounds."""
    return RunFolderError(
        f"task {task}: its data are not those that the run in {location} started with, or this version "
        "of pmpo makes other wrong answers of them; restore them, or give another --run-dir"
    )
