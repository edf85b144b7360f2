"""Prompt optimization from token log-likelihoods, distributed with Ray."""

from pmpo_ray.api import evaluate, optimize
from pmpo_ray.config import RunConfig
from pmpo_ray.errors import PmpoError
from pmpo_ray.types import Example, Task, TaskResult

__all__ = ["Example", "PmpoError", "RunConfig", "Task", "TaskResult", "evaluate", "optimize"]
