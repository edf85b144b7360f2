"""The command `pmpo export`.

Invariant: standard output carries the exported document unchanged, in UTF-8; on a terminal, characters that
would steer it are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from pmpo_ray.cli.options import Run
from pmpo_ray.cli.standard_error import standard_error
from pmpo_ray.errors import RunFolderError


def export(
    run: Run,
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="Task to export. Default: every task with a finished round."),
    ] = None,
    form: Annotated[
        Literal["text", "json", "yaml", "dspy", "langchain", "promptfoo", "lm-eval", "openai"],
        typer.Option("--format", help="Tool or format to export for."),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help="File to write, or a folder for several files. Default: standard output.",
        ),
    ] = None,
) -> None:
    """Export best instructions in the format of another tool.

    The formats json, yaml and openai put all tasks into one document. The others have one file per task, and
    lm-eval has several: for more than one file, name a folder with --output.
    """
    from pmpo_ray.exporting import export as exported
    from pmpo_ray.history.run_history import load_history

    with standard_error("text", os.environ):
        files = exported(load_history(run), task, form)
    if output is not None:
        _write(files, output, run)
    elif len(files) == 1:
        _print(next(iter(files.values())))
    else:
        raise RunFolderError(
            f"--format {form} gives {len(files)} files here; name a folder for them with --output"
            + ("" if task is not None or form == "lm-eval" else ", or one task after the run")
        )


def _print(document: str) -> None:
    text = document if document.endswith("\n") else document + "\n"
    if sys.stdout.isatty():
        from pmpo_ray.text import visible

        sys.stdout.write(visible(text))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())


def _write(files: Mapping[str, str], output: Path, run: str) -> None:
    """Write one file to `output`, or into it if it is a folder, and several files into the folder `output`.

    Raises RunFolderError if a file cannot be written.
    """
    from pmpo_ray.store import write_document

    alone = len(files) == 1 and not output.is_dir()
    path = output
    try:
        for name, content in files.items():
            path = output if alone else output / name
            write_document(run, path, content.encode())
    except OSError as error:
        raise RunFolderError(
            f"cannot write {str(path)!r}: {error.strerror}; name another place with --output"
        ) from error
    written = f"{output}" if alone else f"{len(files)} files in {output}"
    print(f"wrote {written}", file=sys.stderr)
