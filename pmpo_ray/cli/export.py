"""The command `pmpo export`.

Invariant: standard output carries the exported document as it is, in UTF-8; on a terminal, what would steer
it is written out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from pmpo_ray.errors import RunFolderError


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder: a path or s3://...")],
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="One task; without it all that have a finished round."),
    ] = None,
    form: Annotated[
        Literal["text", "json", "yaml", "dspy", "langchain", "promptfoo", "lm-eval", "openai"],
        typer.Option("--format", help="What is to load it."),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="PATH",
            help="File to write, or the folder where there are several; without it, standard output.",
        ),
    ] = None,
) -> None:
    """Write a run's best instruction in the form that another tool loads.

    json, yaml and openai hold any number of tasks in one document; the others are a file for each task, and
    lm-eval several: for more than one file name a folder with --output.
    """
    from pmpo_ray.exporting import export as exported
    from pmpo_ray.history.run_history import load_history

    files = exported(load_history(run), task, form)
    if output is not None:
        _write(files, output)
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


def _write(files: Mapping[str, str], output: Path) -> None:
    """One file to `output` itself, unless that is a folder; several into the folder `output`.

    Raises RunFolderError where that cannot be done.
    """
    alone = len(files) == 1 and not output.is_dir()
    path = output
    try:
        for name, content in files.items():
            path = output if alone else output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
    except OSError as error:
        raise RunFolderError(
            f"cannot write {str(path)!r}: {error.strerror}; name another place with --output"
        ) from error
    what = f"{output}" if alone else f"{len(files)} files in {output}"
    print(f"wrote {what}", file=sys.stderr)
