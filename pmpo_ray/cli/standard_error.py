"""Standard error of the `pmpo` command: text for people, or one JSON object per line for programs.

Invariants:
- In the JSON format every line is one object with "time", "level", "logger" and "event", whoever wrote it:
  output that bypasses `logging`, from C code too, is wrapped.
- A run does not depend on the reader of its log: if nothing can be written any more, it continues silently.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from pmpo_ray.cli.log_lines import LogFormat, json_line, text_line
from pmpo_ray.notes import NOTES
from pmpo_ray.redaction import Redaction

_PROJECT = "pmpo_ray"
"""The logger whose INFO records are events of a run. INFO records of libraries are not shown."""
_DRAIN_SECONDS = 2.0
_LONGEST_LINE = 65_536
"""Maximum number of bytes kept of a line that bypasses `logging`."""


class _LineHandler(logging.Handler):
    """Writes a line for every record, until writing fails."""

    def __init__(self, line: Callable[[logging.LogRecord], str], write: Callable[[str], None]) -> None:
        super().__init__()
        self._line = line
        self._write = write
        self._quiet = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._quiet:
            return
        try:
            self._write(self._line(record))
        except OSError:
            self._quiet = True


@contextmanager
def standard_error(log_format: LogFormat, environ: Mapping[str, str]) -> Iterator[None]:
    """A context in which standard error is in `log_format`. In text, notes and log records of WARNING and
    above get a line, and other output stays as it is. In JSON, every line is an object, including an
    exception that leaves the context and ends the process."""
    redact = Redaction(environ)
    if log_format == "text":
        # Each line looks up the stream again: a live table replaces sys.stderr.
        handler = _LineHandler(
            lambda record: text_line(record, redact), lambda line: print(line, file=sys.stderr, flush=True)
        )
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == NOTES)
        with _handling(handler, project_level=logging.INFO):
            yield
        return
    # Open until the process ends, for the exception hook.
    terminal = os.dup(2)
    handler = _LineHandler(lambda record: json_line(record, redact), lambda line: _write(terminal, line))
    hook = sys.excepthook

    def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        handler.handle(_record("pmpo_ray", logging.CRITICAL, "internal error", (kind, error, trace)))

    sys.excepthook = log_uncaught
    with _relayed(terminal, handler), _handling(handler, project_level=logging.INFO):
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
    # Skipped after an exception, which the hook may still have to report.
    sys.excepthook = hook


@contextmanager
def _handling(handler: logging.Handler, project_level: int) -> Iterator[None]:
    """A context in which `handler` gets all records; those of this project from `project_level` on."""
    root, project = logging.getLogger(), logging.getLogger(_PROJECT)
    level = project.level
    project.setLevel(project_level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        project.setLevel(level)


@contextmanager
def _relayed(terminal: int, handler: logging.Handler) -> Iterator[None]:
    """A context in which everything written to standard error, by this process or its children, goes to
    `handler` line by line. `terminal` is a copy of the real standard error, which is restored at the end."""
    reading, writing = os.pipe()
    sys.stderr.flush()
    os.dup2(writing, 2)
    os.close(writing)
    relay = threading.Thread(target=_relay, args=(reading, handler), name="stderr", daemon=True)
    relay.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        # The pipe does not end while a process that inherited it lives.
        relay.join(_DRAIN_SECONDS)


def _relay(reading: int, handler: logging.Handler) -> None:
    rest = b""
    while chunk := os.read(reading, _LONGEST_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-_LONGEST_LINE:]
        for line in lines:
            _relay_line(line, handler)
    _relay_line(rest, handler)
    os.close(reading)


def _relay_line(line: bytes, handler: logging.Handler) -> None:
    # A progress bar overwrites itself: a terminal would show the last part.
    shown = line.rstrip().rpartition(b"\r")[2].decode("utf-8", "backslashreplace")
    if shown:
        handler.handle(_record("stderr", logging.WARNING, shown))


def _record(
    logger: str,
    level: int,
    text: str,
    error: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
) -> logging.LogRecord:
    return logging.LogRecord(logger, level, "", 0, text, None, error)


def _write(file: int, line: str) -> None:
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(file, data) :]
