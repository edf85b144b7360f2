"""The commands that tell and change nothing: show, report, compare and doctor.

Invariants: as in `pmpo_ray.cli.main`, to which `add_to` adds them; of a run folder only
report.html is written.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
_RUN = "A run folder: a path or s3://..."


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of this module."""
    for command in (show, report, compare, doctor):
        app.command()(command)


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_RUN)],
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Of a run of many tasks, the one to tell about.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run's tasks, or how one task's best instruction came about. Works while the run goes on."""
    from pmpo_ray.display.run_json import overview_json, task_json
    from pmpo_ray.display.run_pages import has_many_tasks, show_overview, show_task
    from pmpo_ray.history.run_history import load_history

    history = load_history(run)
    chosen = None if task is None and has_many_tasks(history) else history.task(task)
    if as_json:
        document = overview_json(history) if chosen is None else task_json(history, chosen)
        print(json.dumps(document, allow_nan=False))
        return
    from rich.console import Console

    if chosen is None:
        show_overview(history, Console())
    else:
        show_task(history, chosen, Console())


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help=_RUN)],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; without it, RUN/report.html."),
    ] = None,
) -> None:
    """Write a run as one HTML file to look at, which needs no network; finished or not."""
    from pmpo_ray.report import write_report

    print(write_report(run, output))


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN_A", help=_RUN)],
    second: Annotated[str, typer.Argument(metavar="RUN_B", help="Another one.")],
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Compare this task alone, with its texts.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs: losses where they can be compared, held-out accuracies, costs and settings."""
    from pmpo_ray.display.comparison import show_comparison
    from pmpo_ray.display.comparison_json import comparison_json
    from pmpo_ray.history.comparison import compare_runs
    from pmpo_ray.history.run_history import load_history
    from pmpo_ray.redaction import Redaction

    redact = Redaction(os.environ)
    found = compare_runs(load_history(first), load_history(second), task=task, redact=redact)
    if as_json:
        print(json.dumps(comparison_json(found), allow_nan=False))
        return
    from rich.console import Console

    show_comparison(found, Console())


def doctor(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="YAML file of a run. Without it, one of defaults is meant."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key, e.g. ray.address=auto. Repeatable."),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="DIR", help="Where the run would go: a path or s3://..."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at what this machine and cluster offer to a run, and say what to do about what is missing.

    Exit code 1: something that the configuration needs is missing.
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
