"""The Python entry points: what the command line does, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_ray.callbacks.dispatch import Callback
from pmpo_ray.protocols import Observer
from pmpo_ray.result import RunResult
from pmpo_ray.types import ExampleScore

if TYPE_CHECKING:
    from pmpo_ray.runs.evaluate import EvaluationResult
    from pmpo_ray.search.operators import OperatorLike
    from pmpo_ray.sources import Source


def optimize(
    source: Source | None = None,
    /,
    *,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    instruction: str | None = None,
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
    **settings: object,
) -> RunResult:
    """Optimise instructions; the same run as `pmpo optimize`.

    `source` is what to optimise for: data (a DataFrame, a datasets.Dataset, a list of dicts, or the path of
    a .csv, .jsonl, .json or .parquet file), a Task, a function that makes a Task or rows, the name of a
    registered task, or a list of several:

        optimize(frame, model="HuggingFaceTB/SmolLM2-135M-Instruct", columns={"input": "question"}, rounds=5)

    or a whole configuration: a RunConfig, or the path of a YAML file, which `overrides` ("search.rounds=3")
    may change. Without it, the run kept in `run_dir` goes on.

    `name`, `columns` (from input, target, negatives and weight to the data's own), `labels`, `instruction`
    (the one to start from) and `description` say more of one task; `rounds`, `max_tokens` and `max_seconds`
    bound its search. All other keywords are the configuration's top-level keys: `model="..."`, `seed=1`,
    `scorer={"replicas": 2}`. Data from Python are kept in the run folder, so that the run can be continued
    and evaluated without them. `observer` is told of every change; by default progress is shown. `callbacks`
    are told of rounds and results, in a thread of their own.

    Parts of your own: `objective` is the name of a loss or a function from an ExampleScore to one;
    `operators` are what proposes instructions, "rewrite" and classes or functions (see pmpo_ray.Proposer);
    `scorer={"engine": MyScorer}` is a class or function that makes an engine from a ScorerConfig and a model.
    The configuration names each by its import path, so each has to stand at the top level of a module, a
    script or a notebook.

    Raises a PmpoError, whose text is one line, for everything that a caller can mend, and TypeError for
    arguments that do not go together.
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
    with nullcontext(observer) if observer is not None else progress_display() as shown:
        return run_optimization(config, observer=shown, given=python_data, callbacks=callbacks)


def evaluate(
    source: str | Path,
    /,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    **settings: object,
) -> EvaluationResult:
    """Measure held-out accuracy; the same as `pmpo evaluate`.

    `source` is a run folder, or a YAML file whose instructions are measured and kept in `run_dir`. The
    keywords are keys of `evaluation`: `evaluate("runs/x", baselines=["answer_only"], limit=100)`; `overrides`
    ("ray.address=auto") reach any other key. Raises a PmpoError for everything that a caller can mend.
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
    """The result of the run in a folder (a path or s3://...), finished or not: of the tasks that came to one
    so far. Raises RunFolderError where there is no run, or for a damaged file."""
    from pmpo_ray.store import RunStore
    from pmpo_ray.store.kept_config import kept_config

    store = RunStore.open(str(run_dir))
    found = map(store.read_task_result, kept_config(str(run_dir)).named_searches())
    return RunResult(tuple(result for result in found if result is not None), store.location)
