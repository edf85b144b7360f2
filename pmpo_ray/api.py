"""The Python entry points: what the command line does, for scripts and notebooks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_ray.callbacks import Callback
from pmpo_ray.config import RunConfig
from pmpo_ray.config_io import config_from_mapping, load_config
from pmpo_ray.protocols import Observer

if TYPE_CHECKING:
    from pmpo_ray.run import RunResult
    from pmpo_ray.run_evaluation import EvaluationResult


def optimize(
    config: RunConfig | str | Path | None = None,
    /,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    **settings: object,
) -> RunResult:
    """Optimise instructions; the same run as `pmpo optimize`.

    `config` is a RunConfig or the path of a YAML file, which `overrides` ("search.rounds=3") may change.
    Without it, the keywords are the configuration's top-level keys:
    `optimize(tasks=["tickets"], search={"rounds": 3})`. With `run_dir` alone, the run kept there goes on.
    `observer` is told of every change; by default progress goes to the terminal. `callbacks` are told of
    rounds and results in a thread of their own.

    Raises a PmpoError, whose text is one line, for everything that a caller can mend.
    """
    from pmpo_ray.display import progress_display
    from pmpo_ray.run import run_optimization

    folder = None if run_dir is None else str(run_dir)
    resolved = _resolved(config, overrides, folder, settings)
    if observer is not None:
        return run_optimization(resolved, run_dir=folder, observer=observer, callbacks=callbacks)
    with progress_display() as display:
        return run_optimization(resolved, run_dir=folder, observer=display, callbacks=callbacks)


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
    from pmpo_ray.display import progress_display
    from pmpo_ray.run_evaluation import run_evaluation

    folder = None if run_dir is None else str(run_dir)
    chosen = [f"evaluation.{key}={json.dumps(value)}" for key, value in settings.items()]
    changes = [*chosen, *overrides]
    if observer is not None:
        return run_evaluation(str(source), changes, run_dir=folder, observer=observer)
    with progress_display() as display:
        return run_evaluation(str(source), changes, run_dir=folder, observer=display)


def _resolved(
    config: RunConfig | str | Path | None,
    overrides: Sequence[str],
    run_dir: str | None,
    settings: Mapping[str, object],
) -> RunConfig:
    if settings and (config is not None or overrides):
        raise TypeError("give a configuration with overrides, or the configuration's keys, not both")
    if isinstance(config, RunConfig):
        if overrides:
            raise TypeError("overrides change a YAML file; change a RunConfig with model_copy")
        return config
    if config is not None or (run_dir is not None and not settings):
        return load_config(None if config is None else str(config), overrides, run_dir)
    return config_from_mapping(settings, "optimize()")
