"""The commands that only read: show, report, compare, doctor and tasks.

Invariant: nothing is written to a run folder except report.html.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from pmpo_ray.cli.options import Json, Run, Set
from pmpo_ray.cli.standard_error import standard_error


def show(
    run: Run,
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="Task to show (needed if the run has several)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run, or one of its tasks in detail.

    For one task, it shows how the best instruction was found. The run need not be finished.
    """
    with _garbage_kept(), standard_error("text", os.environ):
        _show(run, task, as_json=as_json)


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """No garbage collection meanwhile: a short command makes many objects and hardly any cycles, and the
    search for cycles takes a tenth of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _show(run: str, task: str | None, *, as_json: bool) -> None:
    from pmpo_ray.history.run_history import load_history

    history = load_history(run, task)
    chosen = None if task is None and history.has_many_tasks else history.task(task)
    if as_json:
        from pmpo_ray.display.run_json import overview_json, task_json

        document = overview_json(history) if chosen is None else task_json(history, chosen)
        print(json.dumps(document, allow_nan=False))
        return
    from rich.console import Console

    from pmpo_ray.display.run_pages import show_overview, show_task

    if chosen is None:
        show_overview(history, Console())
    else:
        show_task(history, chosen, Console())


def report(
    run: Run,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write. Default: RUN/report.html."),
    ] = None,
) -> None:
    """Write a report about a run as one HTML file. The run need not be finished."""
    from pmpo_ray.report import write_report

    with standard_error("text", os.environ):
        address = write_report(run, output)
    print(address)


def compare(
    first: Annotated[
        str, typer.Argument(metavar="RUN_A", help="First run folder: a path, s3://... or gs://...")
    ],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="Second run folder.")],
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help="Compare only this task, with its instructions."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two runs: losses, accuracies, costs, settings."""
    from pmpo_ray.display.comparison import show_comparison
    from pmpo_ray.display.comparison_json import comparison_json
    from pmpo_ray.history.comparison import compare_runs
    from pmpo_ray.history.run_history import load_history
    from pmpo_ray.redaction import Redaction

    redact = Redaction(os.environ)
    with standard_error("text", os.environ):
        found = compare_runs(load_history(first), load_history(second), task=task, redact=redact)
    if as_json:
        print(json.dumps(comparison_json(found), allow_nan=False))
        return
    from rich.console import Console

    show_comparison(found, Console())


def doctor(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="YAML file of a run. Default: a run with all defaults."),
    ] = None,
    override: Set = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="DIR", help="Run folder to check: a path, s3://... or gs://..."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this machine and cluster for a run.

    Everything that the run needs is checked, with advice on what is missing.

    The exit code is 1 if something that the configuration needs is missing.
    """
    from pmpo_ray.config.loading import default_config, load_config
    from pmpo_ray.config.overrides import parse_overrides, run_dir_override
    from pmpo_ray.doctor.checks import run_checks
    from pmpo_ray.redaction import Redaction

    changes = [*parse_overrides(override or ()), *run_dir_override(run_dir)]
    settings = default_config(changes) if config is None else load_config(config, changes)
    found = [finding.redacted(Redaction(os.environ)) for finding in run_checks(settings, os.environ)]
    complete = all(finding.state != "missing" for finding in found)
    if as_json:
        print(json.dumps({"complete": complete, "findings": [asdict(finding) for finding in found]}))
    else:
        from rich.console import Console

        from pmpo_ray.doctor.table import show_findings

        show_findings(found, Console())
    if not complete:
        raise typer.Exit(1)


def tasks(
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Folder with benchmark files. Default: the public hub."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List all registered tasks."""
    from pmpo_ray.tasks import list_tasks

    listings = list_tasks(data_dir)
    if as_json:
        print(json.dumps([{"task": item.task, "rows": item.rows, "kind": item.kind} for item in listings]))
        return
    width = max(len(item.task) for item in listings)
    print(f"{'task':{width}}  {'rows':>6}  kind")
    for item in listings:
        print(f"{item.task:{width}}  {item.rows:>6}  {item.kind}")
