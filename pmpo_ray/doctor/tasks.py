"""Whether a configuration's tasks can be made ready, without fetching anything.

Invariant: data of the public hub are read from its cache alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.registry import needs_hub


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How many tasks were made ready; what is wrong with one that needs no network, and why one of the hub is
    not in its cache, each empty for nothing."""

    ready: int
    wrong: str = ""
    not_cached: str = ""


def inspect_tasks(config: RunConfig) -> TaskReport:
    """Make the tasks ready one by one, up to the first that cannot be. To be called in a process of its own,
    which stays offline from then on."""
    # Read by the hub's libraries when they are imported, which comes after this.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from pmpo_ray.prepared_task import prepare_tasks

    ready, not_cached = 0, ""
    for task in config.tasks:
        try:
            prepare_tasks(config.model_copy(update={"tasks": (task,)}))
            ready += 1
        except ConfigError as error:
            return TaskReport(ready, str(error), not_cached)
        except DataError as error:
            if not needs_hub(task, config.data_dir):
                return TaskReport(ready, str(error), not_cached)
            not_cached = str(error)
    return TaskReport(ready, "", not_cached)
