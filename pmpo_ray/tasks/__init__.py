"""Tasks: where examples, their negatives and their parts come from.

Invariant: a loaded `Task` is complete and immutable. Its ids are unique, its texts are not empty, and
equal data and an equal seed give an equal task and an equal split on every machine.
"""

from pmpo_ray.tasks.registry import TaskListing, list_tasks, load_task, task
from pmpo_ray.tasks.split import split_task

__all__ = ["TaskListing", "list_tasks", "load_task", "split_task", "task"]
