"""The end of a command that fails: its last line on standard error, and its exit code."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pmpo_ray.cli.log_lines import LogFormat

_log = logging.getLogger(__name__)


def fail(text: str, log_format: LogFormat = "text") -> int:
    """Report an error on one line without secrets, and return the exit code for it."""
    from pmpo_ray.cli.log_lines import one_line
    from pmpo_ray.redaction import Redaction

    if log_format == "json":
        _log.error(text)
    else:
        _print(f"error: {one_line(text, Redaction(os.environ))}")
    return 2


def exit_code(number: int) -> int:
    """The exit code after a signal, as in shells."""
    return 128 + number


def interrupted(number: int, advice: str, log_format: LogFormat) -> int:
    """Report the end by a signal, with advice about continuing, and return the exit code for it."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    if log_format == "json":
        _log.warning("interrupted%s; %s", by, advice)
    else:
        _print(f"interrupted{by}; {advice}")
    return exit_code(number)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
