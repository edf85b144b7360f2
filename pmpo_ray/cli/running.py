"""The commands that write a run folder: optimize and evaluate.

Invariant: libraries that print during a run do not mix with its result, which alone is on standard output.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from pmpo_ray.cli.failures import fail, interrupted
from pmpo_ray.cli.log_lines import LogFormat
from pmpo_ray.cli.options import Json, Logs, Set
from pmpo_ray.cli.standard_output import OutputError, discard
from pmpo_ray.errors import PmpoError
from pmpo_ray.signals import Interrupted, ignore_signals, number_of

if TYPE_CHECKING:
    from pmpo_ray.config.overrides import Override
    from pmpo_ray.config.run import RunConfig
    from pmpo_ray.protocols import Observer
    from pmpo_ray.result import RunResult
    from pmpo_ray.runs.evaluate import EvaluationResult

T = TypeVar("T")
TableFormat = Literal["text", "markdown", "latex", "json"]

_NOTHING_KEPT = "nothing new was kept; start again with the same command"
_BASELINE = (
    "Baseline to compare with: answer_only, step_by_step, rephrase, step_back or description. Repeatable."
)
_INSTRUCTION = "File with an instruction to compare with. Repeatable."


def optimize(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="YAML file. Without it, the run in the folder --run-dir is continued.",
        ),
    ] = None,
    override: Set = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir",
            metavar="DIR",
            help="Run folder to write or to continue: a path, s3://... or gs://...",
        ),
    ] = None,
    as_json: Json = False,
    log_format: Logs = "text",
) -> None:
    """Optimise the instruction of every task in a configuration."""
    from pmpo_ray.cli.standard_error import standard_error
    from pmpo_ray.config.overrides import parse_overrides
    from pmpo_ray.store.kept_config import requested_config

    with standard_error(log_format, os.environ):
        try:
            settings = requested_config(config, parse_overrides(override or ()), run_dir)
            result = _optimized(settings, log_format)
        except PmpoError as error:
            raise typer.Exit(fail(str(error), log_format)) from error
        shown = "the run is finished; show its result with: pmpo show"
        with _written(f"{shown} {shlex.quote(result.run_dir)}", log_format):
            _show(result, as_json=as_json)
        if result.failed:
            raise typer.Exit(fail(_failures(result), log_format))


def _optimized(config: RunConfig, log_format: LogFormat) -> RunResult:
    def run(observer: Observer) -> RunResult:
        from pmpo_ray.runs.optimize import run_optimization

        return run_optimization(config, observer=observer)

    return _observed(run, lambda folder: f"continue with: pmpo optimize --run-dir {folder}", log_format)


def _observed(work: Callable[[Observer], T], advice: Callable[[str], str], log_format: LogFormat) -> T:
    """The result of `work` with its progress on standard error. Exits after a signal; `advice` says how to
    continue in a run folder, quoted for a shell."""
    from pmpo_ray.cli.progress_log import progress_log

    try:
        with contextlib.redirect_stdout(sys.stderr), progress_log(log_format) as observer:
            return work(observer)
    except KeyboardInterrupt as interrupt:
        ignore_signals()
        folder = interrupt.run_dir if isinstance(interrupt, Interrupted) else ""
        line = advice(shlex.quote(folder)) if folder else _NOTHING_KEPT
        raise typer.Exit(interrupted(number_of(interrupt), line, log_format)) from interrupt


@contextlib.contextmanager
def _written(advice: str, log_format: LogFormat) -> Iterator[None]:
    """End the command with an error and this advice if standard output cannot be written in the block."""
    try:
        yield
        sys.stdout.flush()
    except OutputError as error:
        discard(sys.stdout.fileno())
        raise typer.Exit(fail(f"{error}; {advice}", log_format)) from error


def _show(result: RunResult, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        from rich.console import Console

        from pmpo_ray.display.final_table import final_table

        final_table(result.tasks, result.run_dir, Console())


def _failures(result: RunResult) -> str:
    first, count = result.failed[0], len(result.failed)
    more = f" (and {count - 1} more tasks failed)" if count > 1 else ""
    return (
        f"task {first.task}: {first.reason}{more}; the other {len(result.tasks)} tasks are done; retry with: "
        f"pmpo optimize --run-dir {shlex.quote(result.run_dir)}"
    )


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder (a path, s3://... or gs://...), or a YAML file.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Model to test on instead of the run's. Repeatable."),
    ] = None,
    baselines: Annotated[list[str] | None, typer.Option("--baseline", metavar="NAME", help=_BASELINE)] = None,
    instructions: Annotated[
        list[str] | None, typer.Option("--instruction", metavar="FILE", help=_INSTRUCTION)
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option("--shots", metavar="N", help="Number of demonstrations in the prompt. Repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Maximum number of test examples per task.")
    ] = None,
    override: Set = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="DIR", help="Run folder for the evaluation of a YAML file."),
    ] = None,
    table: Annotated[TableFormat, typer.Option("--format", help="Format of the result.")] = "text",
    log_format: Logs = "text",
) -> None:
    """Measure the held-out accuracy of instructions.

    A run's best instruction is compared with its start instruction and with baselines.
    """
    from pmpo_ray.cli.standard_error import standard_error
    from pmpo_ray.config.overrides import parse_overrides, run_dir_override

    options: dict[str, tuple[str, object]] = {
        "--model": ("models", models),
        "--baseline": ("baselines", baselines),
        "--instruction": ("instructions", {Path(file).stem: f"@{file}" for file in instructions or ()}),
        "--shots": ("shots", shots),
        "--limit": ("limit", limit),
    }
    with standard_error(log_format, os.environ):
        try:
            overrides = [*_chosen(options), *parse_overrides(override or ()), *run_dir_override(run_dir)]
            result = _evaluated(source, overrides, log_format)
        except PmpoError as error:
            raise typer.Exit(fail(str(error), log_format)) from error
        shown = "the evaluation is finished; show it with: pmpo show"
        with _written(f"{shown} {shlex.quote(result.run_dir)}", log_format):
            _show_evaluation(result, table)


def _chosen(options: Mapping[str, tuple[str, object]]) -> list[Override]:
    """The overrides for the options that were used: by option, a key of `evaluation` and its value."""
    from pmpo_ray.config.overrides import Override

    return [
        Override(("evaluation", key), value, option)
        for option, (key, value) in options.items()
        if value not in (None, [], {})
    ]


def _evaluated(source: str, overrides: list[Override], log_format: LogFormat) -> EvaluationResult:
    def run(observer: Observer) -> EvaluationResult:
        from pmpo_ray.runs.evaluate import run_evaluation

        return run_evaluation(source, overrides, observer=observer)

    return _observed(
        run,
        lambda folder: f"finished measurements are kept in {folder}; continue with the same command",
        log_format,
    )


def _show_evaluation(result: EvaluationResult, form: TableFormat) -> None:
    from pmpo_ray.display.evaluation_tables import latex, markdown, show, tables
    from pmpo_ray.display.summary_json import summary_json

    if form == "json":
        print(json.dumps(summary_json(result.summary, result.run_dir), allow_nan=False))
    elif form == "text":
        from rich.console import Console

        show(tables(result.summary), Console())
        print(f"\nrun folder: {result.run_dir}")
    else:
        print({"markdown": markdown, "latex": latex}[form](tables(result.summary)))
