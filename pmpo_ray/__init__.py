"""Prompt optimization from token log-likelihoods, distributed with Ray."""

from pmpo_ray.api import evaluate, load_run, optimize
from pmpo_ray.config import RunConfig
from pmpo_ray.errors import PmpoError
from pmpo_ray.result import RunResult
from pmpo_ray.tasks import task
from pmpo_ray.types import Example, Task, TaskResult

__all__ = [
    "Example",
    "PmpoError",
    "RunConfig",
    "RunResult",
    "Task",
    "TaskResult",
    "evaluate",
    "load_run",
    "optimize",
    "task",
]
