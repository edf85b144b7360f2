"""The `pmpo` command.

Invariants: standard output carries only results, standard error everything else; every error that a user can
cause ends with one line "error: ..." (with --log-format json, one object) and exit code 2; ray, torch and the
data libraries are imported only by the commands that need them, so that --help and --version are fast.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from typing import Annotated, TextIO

import typer

from pmpo_ray.cli.export import export
from pmpo_ray.cli.failures import INTERRUPTED, fail
from pmpo_ray.cli.reading import compare, doctor, report, show, tasks
from pmpo_ray.cli.running import evaluate, optimize
from pmpo_ray.errors import PmpoError

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
        # Standard error was closed at the start, for instance by `2>&-`.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        _escape_unencodable(stream)
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="pmpo", standalone_mode=False)
        sys.stdout.flush()
    except PmpoError as error:
        code = fail(str(error))
    except typer.TyperException as error:
        # The library puts the class of an error before its text.
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        code = fail(f"{message}; see pmpo --help")
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone.
        _discard(sys.stdout)
        code = 1
    try:
        sys.stderr.flush()
    except OSError:
        # The exit code is that of the run, even if nobody reads its log.
        _discard(sys.stderr)
    sys.exit(code)


def _discard(stream: TextIO) -> None:
    """Drop the buffered output of `stream`, which Python would otherwise fail to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _escape_unencodable(stream: TextIO) -> None:
    """Write characters that the terminal's encoding lacks as escapes."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


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


for _command in (optimize, evaluate, tasks, show, report, compare, doctor, export):
    app.command()(_command)
