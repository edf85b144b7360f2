"""The `pmpo` command.

Invariants: standard output carries only results, standard error everything else; every error that a user can
cause ends with one line "error: ..." (with --log-format json, one object) and exit code 2; a signal ends it
with exit code 128 + its number; ray, torch and the
data libraries are imported only by the commands that need them, so that --help and --version are fast.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from pmpo_ray.cli.export import export
from pmpo_ray.cli.failures import exit_code, fail
from pmpo_ray.cli.planning import plan
from pmpo_ray.cli.reading import compare, doctor, report, show, tasks
from pmpo_ray.cli.running import evaluate, optimize
from pmpo_ray.cli.standard_output import OutputError, discard, open_standard_streams
from pmpo_ray.errors import PmpoError
from pmpo_ray.signals import ending_on_signals, ignore_signals, leaves_at_once, number_of

app = typer.Typer(
    name="pmpo",
    help="Optimise instructions for language models from token log-likelihoods.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        with ending_on_signals():
            open_standard_streams()
            code = _run()
    except KeyboardInterrupt as interrupt:
        code = exit_code(number_of(interrupt))
    ignore_signals()
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, OutputError):
            # The exit code is that of the command, even if nobody reads what it says.
            discard(number)
    if leaves_at_once():
        os._exit(code or 0)
    sys.exit(code)


def _run() -> int | None:
    """Run the command that this process was started with. Return its exit code."""
    command = typer.main.get_command(app)
    try:
        code: int | None = command.main(prog_name="pmpo", standalone_mode=False)
        sys.stdout.flush()
    except OutputError as error:
        discard(sys.stdout.fileno())
        # A reader that has seen enough, such as head, is no error.
        return 1 if error.reader_gone else fail(f"{error}; write it elsewhere")
    except PmpoError as error:
        return fail(str(error))
    except typer.TyperException as error:
        # The library puts the class of an error before its text.
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        return fail(f"{message}; see pmpo --help")
    return code


def _version(requested: bool) -> None:
    if requested:
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


for _command in (optimize, evaluate, plan, tasks, show, report, compare, doctor, export):
    app.command()(_command)
