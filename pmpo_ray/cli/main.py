"""The `pmpo` command.

Invariants: standard output carries results alone, standard error everything else; whatever a user can cause
ends with one line "error: ..." (with --log-format json, one object) and exit code 2; ray, torch and the data
libraries are imported only by the command that needs them, so that --help and --version answer at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from pmpo_ray.cli import reading
from pmpo_ray.cli.export import export
from pmpo_ray.errors import PmpoError

if TYPE_CHECKING:
    from pmpo_ray.cli.standard_error import LogFormat
    from pmpo_ray.config.run import RunConfig
    from pmpo_ray.result import RunResult
    from pmpo_ray.runs.evaluate import EvaluationResult

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it: 128 + SIGINT."""
_log = logging.getLogger(__name__)

LogFormatOption = Annotated[
    Literal["text", "json"],
    typer.Option(
        "--log-format", help="Progress and events on standard error: text, or a JSON object a line."
    ),
]

app = typer.Typer(
    name="pmpo",
    help="Optimise instructions for language models from token log-likelihoods.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line of this process and exit."""
    if sys.stderr is None:
        # Started with standard error closed, as `2>&-` does.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        _forgiving(stream)
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="pmpo", standalone_mode=False)
        sys.stdout.flush()
    except PmpoError as error:
        code = _fail(str(error))
    except typer.TyperException as error:
        code = _fail(f"{error.format_message()} (see pmpo --help)")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone.
        _discard(sys.stdout)
        code = 1
    try:
        sys.stderr.flush()
    except OSError:
        # What the run came to counts, not whether its log was read.
        _discard(sys.stderr)
    sys.exit(code)


def _discard(stream: TextIO) -> None:
    """Send what `stream` still holds nowhere: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _forgiving(stream: TextIO) -> None:
    """Write characters that the terminal's encoding lacks as escapes instead of failing on them."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _fail(text: str, log_format: LogFormat = "text") -> int:
    from pmpo_ray.cli.standard_error import one_line
    from pmpo_ray.redaction import Redaction

    if log_format == "json":
        _log.error(text)
    else:
        _say(f"error: {one_line(text, Redaction(os.environ))}")
    return 2


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"pmpo {version('pmpo-ray')}")
        except PackageNotFoundError:
            print("pmpo (not installed: run from its source folder)")
        raise typer.Exit


@app.callback()
def _pmpo(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Optimise instructions for language models from token log-likelihoods."""


@app.command()
def optimize(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="YAML file. Without it, --run-dir names a run to continue."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key, e.g. search.rounds=3. Repeatable."),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            "--run-dir", metavar="DIR", help="Run folder to write, or to continue: a path or s3://..."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    log_format: LogFormatOption = "text",
) -> None:
    """Optimise the instruction of every task in a configuration."""
    from pmpo_ray.cli.standard_error import standard_error
    from pmpo_ray.config.overrides import parse_overrides
    from pmpo_ray.store.kept_config import requested_config

    with standard_error(log_format, os.environ):
        try:
            settings = requested_config(config, parse_overrides(override or ()), run_dir)
            result = _run(settings, log_format)
        except PmpoError as error:
            raise typer.Exit(_fail(str(error), log_format)) from error
        _show(result, as_json=as_json)
        if result.failed:
            raise typer.Exit(_fail(_failures(result), log_format))


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
        f"task {first.task}: {first.reason}{more}; the other {len(result.tasks)} tasks are done, and "
        f"pmpo optimize --run-dir {shlex.quote(result.run_dir)} tries again what failed"
    )


def _run(config: RunConfig, log_format: LogFormat) -> RunResult:
    """The run with its progress on standard error; exits with INTERRUPTED after Ctrl-C."""
    from pmpo_ray.cli.standard_error import progress_log

    try:
        # Libraries that print while the run goes on must not mix with its result.
        with contextlib.redirect_stdout(sys.stderr), progress_log(log_format) as observer:
            from pmpo_ray.runs.optimize import run_optimization

            return run_optimization(config, observer=observer)
    except KeyboardInterrupt as interrupt:
        folder = str(interrupt) or config.run_dir
        advice = (
            f"continue with: pmpo optimize --run-dir {shlex.quote(folder)}" if folder else "nothing was kept"
        )
        if log_format == "json":
            _log.warning("interrupted; %s", advice)
        else:
            _say(f"interrupted; {advice}")
        raise typer.Exit(INTERRUPTED) from interrupt


@app.command()
def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder (a path or s3://...), or a YAML file.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Model to test on, in place of the run's. Repeatable."),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="NAME",
            help="answer_only, step_by_step, rephrase, step_back or description. Repeatable.",
        ),
    ] = None,
    instructions: Annotated[
        list[str] | None,
        typer.Option(
            "--instruction", metavar="FILE", help="Another instruction to compare with. Repeatable."
        ),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option("--shots", metavar="N", help="Examples shown in the prompt. Repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="Test examples of a task at most.")
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any key, e.g. evaluation.seeds=3. Repeatable."),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option("--run-dir", metavar="DIR", help="Where to keep the evaluation of a YAML file."),
    ] = None,
    table: Annotated[
        Literal["text", "markdown", "latex", "json"],
        typer.Option("--format", help="How to print the result."),
    ] = "text",
    log_format: LogFormatOption = "text",
) -> None:
    """Measure held-out accuracy: a run's best instruction against its start and against free baselines."""
    from pmpo_ray.cli.standard_error import progress_log, standard_error
    from pmpo_ray.config.overrides import Override, parse_overrides, run_dir_override

    options = {
        "--model": ("models", models),
        "--baseline": ("baselines", baselines),
        "--instruction": ("instructions", {Path(file).stem: f"@{file}" for file in instructions or ()}),
        "--shots": ("shots", shots),
        "--limit": ("limit", limit),
    }
    chosen = [
        Override(("evaluation", key), value, option)
        for option, (key, value) in options.items()
        if value not in (None, [], {})
    ]
    with standard_error(log_format, os.environ):
        try:
            changes = [*chosen, *parse_overrides(override or ()), *run_dir_override(run_dir)]
            with contextlib.redirect_stdout(sys.stderr), progress_log(log_format) as observer:
                from pmpo_ray.runs.evaluate import run_evaluation

                result = run_evaluation(source, changes, observer=observer)
        except PmpoError as error:
            raise typer.Exit(_fail(str(error), log_format)) from error
        except KeyboardInterrupt as interrupt:
            _say("interrupted; what was measured is kept, and the same command goes on")
            raise typer.Exit(INTERRUPTED) from interrupt
        _show_evaluation(result, table)


def _show_evaluation(result: EvaluationResult, form: Literal["text", "markdown", "latex", "json"]) -> None:
    from pmpo_ray.display.evaluation_tables import latex, markdown, show, tables
    from pmpo_ray.evaluation.summary_json import summary_json

    if form == "json":
        print(json.dumps(summary_json(result.summary, result.run_dir), allow_nan=False))
    elif form == "text":
        from rich.console import Console

        show(tables(result.summary), Console())
        print(f"\nrun folder: {result.run_dir}")
    else:
        print({"markdown": markdown, "latex": latex}[form](tables(result.summary)))


@app.command()
def tasks(
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Folder of benchmark files; without it, the public hub."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List every task with its number of rows and its kind of labels."""
    from pmpo_ray.tasks import list_tasks

    listings = list_tasks(data_dir)
    if as_json:
        print(json.dumps([{"task": item.task, "rows": item.rows, "kind": item.kind} for item in listings]))
        return
    width = max(len(item.task) for item in listings)
    print(f"{'task':{width}}  {'rows':>6}  kind")
    for item in listings:
        print(f"{item.task:{width}}  {item.rows:>6}  {item.kind}")


reading.add_to(app)
app.command()(export)
