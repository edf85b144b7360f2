"""Tasks: their examples, negatives and splits.

Invariants: a loaded `Task` is complete and immutable. Its ids are unique and its texts are not empty. Equal
data and equal seeds result in equal tasks and equal splits on every machine.
"""

from pmpo_ray.tasks.registry import TaskListing, list_tasks, load_task, task
from pmpo_ray.tasks.split import split_task

__all__ = ["TaskListing", "list_tasks", "load_task", "split_task", "task"]
