"""Check if a configuration's tasks can be prepared, without downloading anything.

Invariant: data of the public hub are read only from its cache.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.notes import notes_on
from pmpo_ray.tasks.registry import needs_hub


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The number of tasks that were prepared, the problem of a task that needs no network, and the reason why
    a task of the hub is not in the cache; each text is empty if there is none."""

    ready: int
    problem: str = ""
    not_cached: str = ""


def inspect_tasks(config: RunConfig) -> TaskReport:
    """Prepare the tasks one by one, up to the first with a problem. Call it in a separate process, because
    it sets that process offline."""
    # The hub's libraries read this when they are imported, which happens later.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from pmpo_ray.prepared_task import prepare_tasks

    ready, not_cached = 0, ""
    for task in config.tasks:
        try:
            # A configuration may name a user's modules: the user sees which, before they run.
            with notes_on(sys.stderr):
                prepare_tasks(config.model_copy(update={"tasks": (task,)}))
            ready += 1
        except ConfigError as error:
            return TaskReport(ready, str(error), not_cached)
        except DataError as error:
            if not needs_hub(task, config.data_dir):
                return TaskReport(ready, str(error), not_cached)
            not_cached = str(error)
    return TaskReport(ready, "", not_cached)
