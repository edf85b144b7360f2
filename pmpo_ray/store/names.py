"""The names of the files in a run folder."""

from __future__ import annotations

from pmpo_ray.store.task_folder import task_folder


def round_name(task: str, number: int) -> str:
    return f"tasks/{task_folder(task)}/round-{number:04d}.parquet"


def scores_name(number: int) -> str:
    return f"scores/{number:08d}.parquet"


def replicas_name(number: int) -> str:
    return f"replicas/{number:08d}.parquet"


def training_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/examples.parquet"


def data_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/data.parquet"


def outcomes_name(key: str) -> str:
    return f"evaluation/{key}.parquet"


def segments_name(task: str, number: int) -> str:
    return f"tasks/{task_folder(task)}/segments-{number:04d}.parquet"


def requests_name(task: str, number: int) -> str:
    return f"tasks/{task_folder(task)}/requests-{number:04d}.parquet"


def best_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/best.json"


def result_name(task: str) -> str:
    return f"tasks/{task_folder(task)}/result.json"
