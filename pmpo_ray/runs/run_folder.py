"""The run folder of a run that begins or goes on.

Invariant: rounds of one configuration and one set of examples are never continued with another; before the
first round either may still be mended.
"""

from __future__ import annotations

from pmpo_ray.store.kept_config import kept_config, requested_config

from collections.abc import Mapping
from datetime import UTC, datetime

from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.resume import differences
from pmpo_ray.config.loading import dump_config, load_config
from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import Lease, RunStore, task_folder
from pmpo_ray.types import Task


def fresh_run_dir(config: RunConfig) -> str:
    """A folder for a run that was given none."""
    name = task_folder(config.tasks[0].name) if len(config.tasks) == 1 else f"{len(config.tasks)}-tasks"
    return f"runs/{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"


def open_store(config: RunConfig, location: str, lease: Lease) -> RunStore:
    """The run folder at `location`, made where there is none. Raises RunFolderError where rounds were made
    with another configuration."""
    if not RunStore.exists(location):
        return RunStore.create(location, dump_config(config), lease)
    store = RunStore.open(location, lease)
    kept = kept_config(location)
    changed = differences(kept, config)
    if changed and not any(map(store.count_rounds, kept.named_searches())):
        # Nothing was made with the other configuration: the first try may have failed for what is mended now.
        store.replace_config(dump_config(config))
    elif changed:
        raise RunFolderError(
            f"{location} was made with another configuration: {', '.join(changed[:3])} "
            f"{'differs' if len(changed) == 1 else 'differ'}; give another --run-dir, or continue with: "
            f"pmpo optimize --run-dir {location}"
        )
    return store


def keep_given(config: RunConfig, store: RunStore, given: Mapping[str, Task]) -> None:
    """Write down tasks whose data were given in Python. Raises RunFolderError where rounds were made with
    others."""
    for name, task in given.items():
        kept = store.read_task(name)
        if kept not in (None, task) and any(map(store.count_rounds, config.named_searches(name))):
            raise other_data(name, store.location)
        if kept != task:
            store.write_task(task)


def other_data(task: str, location: str) -> RunFolderError:
    """What is said where the data of a task are no longer those of its rounds."""
    return RunFolderError(
        f"task {task}: its data are not those that the run in {location} began with; bring them back, or "
        "give another --run-dir"
    )
