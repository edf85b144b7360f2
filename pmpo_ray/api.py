"""The Python functions that correspond to the commands, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from pmpo_ray.callbacks.dispatch import Callback
from pmpo_ray.protocols import Observer
from pmpo_ray.result import RunResult
from pmpo_ray.run_plan import RunPlan
from pmpo_ray.types import ExampleScore

if TYPE_CHECKING:
    from pmpo_ray.runs.evaluate import EvaluationResult
    from pmpo_ray.search.operators import OperatorLike
    from pmpo_ray.sources import Source


@overload
def optimize(
    source: Source | None = None,
    /,
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    instruction: str | Sequence[str] | None = None,
    description: str | None = None,
    rounds: int | None = None,
    max_tokens: int | None = None,
    max_seconds: float | None = None,
    objective: str | Callable[[ExampleScore], float] | None = None,
    operators: Sequence[OperatorLike] | None = None,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    plan_only: Literal[False] = False,
    **settings: object,
) -> RunResult: ...


@overload
def optimize(
    source: Source | None = None,
    /,
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    instruction: str | Sequence[str] | None = None,
    description: str | None = None,
    rounds: int | None = None,
    max_tokens: int | None = None,
    max_seconds: float | None = None,
    objective: str | Callable[[ExampleScore], float] | None = None,
    operators: Sequence[OperatorLike] | None = None,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    plan_only: Literal[True],
    **settings: object,
) -> RunPlan: ...


def optimize(
    source: Source | None = None,
    /,
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | Mapping[str, str] | None = None,
    instruction: str | Sequence[str] | None = None,
    description: str | None = None,
    rounds: int | None = None,
    max_tokens: int | None = None,
    max_seconds: float | None = None,
    objective: str | Callable[[ExampleScore], float] | None = None,
    operators: Sequence[OperatorLike] | None = None,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    plan_only: bool = False,
    **settings: object,
) -> RunResult | RunPlan:
    """Optimise instructions, as `pmpo optimize` does.

    `source` is one of: data (a DataFrame, a datasets.Dataset, a list of dicts, or the path of a .csv, .jsonl,
    .json or .parquet file), a Task, a function that returns a Task or rows, the name of a registered task, a
    list of several tasks, or a whole configuration (a RunConfig, or the path of a YAML file, which
    `overrides` such as "search.rounds=3" change). Without `source`, the run in `run_dir` is continued.

        optimize(frame, model="HuggingFaceTB/SmolLM2-135M-Instruct", columns={"input": "question"}, rounds=5)

    `name`, `columns` (from input, target, negatives and weight to the columns of the data), `labels` (a list,
    or a mapping from each to what it stands for), `instruction` (the one to start from, or a list of several;
    results are compared with the first) and `description` describe one task. `rounds`, `max_tokens` and
    `max_seconds` limit its search. `objective` is the name of a loss, or a function from an ExampleScore to a
    loss. `operators` propose instructions: "rewrite", classes or functions (see pmpo_ray.Proposer). All other
    keywords are top-level keys of the configuration: `seed=1`, `scorer={"replicas": 2, "engine": MyScorer}`.

    The run folder keeps data passed in Python, so that the run can be continued and evaluated without them.
    The configuration names functions and classes by import path: define them at the top level of a module, a
    script or a notebook. `observer` receives every change of progress; by default progress is displayed.
    `callbacks` receive rounds and results, in a separate thread.

    With `plan_only` nothing is optimised and no run folder is written: the result is the RunPlan that
    `pmpo plan` shows, of what the run would score and write, and how long that would take.

    Raises a PmpoError of one line for every mistake that a caller can correct, and TypeError for arguments
    that exclude each other.
    """
    from pmpo_ray.config.overrides import parse_overrides
    from pmpo_ray.display.progress import progress_display
    from pmpo_ray.runs.optimize import run_optimization
    from pmpo_ray.sources import TaskKeywords, requested

    search = {
        "rounds": rounds,
        "max_tokens": max_tokens,
        "max_seconds": max_seconds,
        "objective": objective,
        "operators": operators,
    }
    config, python_data = requested(
        source,
        TaskKeywords(name, columns, labels, instruction, description),
        {key: value for key, value in search.items() if value is not None},
        settings=settings,
        overrides=parse_overrides(overrides),
        run_dir=None if run_dir is None else str(run_dir),
    )
    if plan_only:
        from pmpo_ray.runs.plan import plan_run

        return plan_run(config, python_data=python_data)
    with nullcontext(observer) if observer is not None else progress_display() as shown:
        return run_optimization(config, observer=shown, python_data=python_data, callbacks=callbacks)


def evaluate(
    source: str | Path,
    /,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    **settings: object,
) -> EvaluationResult:
    """Measure held-out accuracy, as `pmpo evaluate` does.

    `source` is a run folder, or a YAML file whose instructions are evaluated, with the result in `run_dir`.
    The keywords are keys of `evaluation`: `evaluate("runs/x", baselines=["answer_only"], limit=100)`;
    `overrides` such as "ray.address=auto" set any other key. Raises a PmpoError for every mistake that a
    caller can correct.
    """
    from pmpo_ray.config.import_paths import with_paths
    from pmpo_ray.config.overrides import parse_overrides, run_dir_override, section_overrides
    from pmpo_ray.display.progress import progress_display
    from pmpo_ray.runs.evaluate import run_evaluation

    values = {key: with_paths(value, f"evaluation.{key}") for key, value in settings.items()}
    changes = [
        *section_overrides("evaluation", values, "evaluate()"),
        *parse_overrides(overrides),
        *run_dir_override(None if run_dir is None else str(run_dir)),
    ]
    with nullcontext(observer) if observer is not None else progress_display() as shown:
        return run_evaluation(str(source), changes, observer=shown)


def load_run(run_dir: str | Path, /) -> RunResult:
    """The result of the run in a folder (a path or s3://...), with the tasks that are finished so far. Raises
    RunFolderError if there is no run, or for a damaged file."""
    from pmpo_ray.store import RunStore
    from pmpo_ray.store.kept_config import config_in

    store = RunStore.open(str(run_dir))
    results = map(store.read_task_result, config_in(store).named_searches())
    return RunResult(tuple(result for result in results if result is not None), store.location)
