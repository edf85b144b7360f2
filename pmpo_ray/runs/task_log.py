"""Lines about the tasks of a run, at its start: how each was taken, and what is odd about its data."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pmpo_ray.display.task_overview import overview_line, remarks
from pmpo_ray.notes import note
from pmpo_ray.prepared_task import PreparedTask

_log = logging.getLogger(__name__)


def log_tasks(prepared_tasks: Sequence[PreparedTask]) -> None:
    """Log a line for each search, and a warning for each odd thing about its data, once for all variants."""
    warned: set[str] = set()
    for prepared in prepared_tasks:
        overview = prepared.overview
        note(f"task {prepared.task.name}: {overview_line(overview)}")
        for remark in remarks(overview):
            if remark not in warned:
                _log.warning("task %s: %s", prepared.task.name, remark)
            warned.add(remark)
