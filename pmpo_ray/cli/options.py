"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from pmpo_ray.cli.log_lines import LogFormat

Run = Annotated[str, typer.Argument(metavar="RUN", help="Run folder: a path, s3://... or gs://...")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any key, e.g. ray.address=auto. Repeatable."),
]
Logs = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Progress and events on standard error: as text, or as JSON lines."),
]
