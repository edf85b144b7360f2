"""Standard error of the `pmpo` command: text for people, or one JSON object a line for programs.

Always true:
- In the JSON format each line is one object with "time", "level", "logger" and "event", whoever wrote it:
  what libraries print past `logging`, from C too, is wrapped.
- What passes through here shows no secret: neither the value of an environment variable named like one, nor
  credentials within a URL.
- Untrusted text stays within its line, and no string is longer than LIMIT characters.
- A run outlives whoever reads its log: where nothing can be written any more, it goes on in silence.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from pmpo_ray.display.progress import progress_display
from pmpo_ray.protocols import Observer
from pmpo_ray.redaction import Redact, Redaction
from pmpo_ray.text import visible
from pmpo_ray.types import Progress

LogFormat = Literal["text", "json"]

LIMIT = 2000
"""Characters of a string in a log line; of a longer one the middle is left out."""
_OWN = "pmpo_ray"
"""The logger whose INFO records are events of a run; those of libraries are of use to their authors only."""
_DRAIN_SECONDS = 2.0
_LONGEST_LINE = 65_536
"""Bytes that are kept of a line of what others print."""


def bounded(text: str) -> str:
    """`text` in LIMIT characters at most: its beginning and its end."""
    if len(text) <= LIMIT:
        return text
    half = (LIMIT - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def one_line(text: str, redact: Redact) -> str:
    """`text` as a terminal may show it: on one line, bounded, without secrets."""
    return bounded(" ".join(visible(redact(text)).split()))


def text_line(record: logging.LogRecord, redact: Redact) -> str:
    """A log record for people: the message and its fields on one line; a traceback is indented below, so that
    nothing in it looks like a line of its own."""
    fields = (f"{name}={one_line(str(value), redact)}" for name, value in _fields(record).items())
    line = "  ".join((one_line(_message(record), redact), *fields))
    trace = bounded(visible(redact(_traceback(record))))
    return "\n".join((line, *(f"  {part}" for part in trace.splitlines())))


def json_line(record: logging.LogRecord, redact: Redact) -> str:
    """A log record as one JSON object. A field named like one of the four that every line has gets an
    underscore behind its name; a number that JSON lacks is null."""
    at = datetime.fromtimestamp(record.created, UTC)
    entry: dict[str, object] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _json_text(_message(record), redact),
    }
    for name, value in _fields(record).items():
        entry[f"{name}_" if name in entry else name] = _json_value(value, redact)
    if trace := _traceback(record):
        entry["exception"] = _json_text(trace, redact)
    return json.dumps(entry, allow_nan=False)


def _json_value(value: object, redact: Redact) -> object:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _json_text(str(value), redact)


def _json_text(text: str, redact: Redact) -> str:
    # JSON can spell half a surrogate pair, but many readers refuse it.
    return bounded(redact(text).encode("utf-8", "backslashreplace").decode())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError):
        # The arguments do not go with the message: a mistake of whoever logs, and no reason to lose it.
        return str(record.msg)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = record.__dict__.get("fields")
    return {str(name): value for name, value in fields.items()} if isinstance(fields, Mapping) else {}


def _traceback(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


class _LineHandler(logging.Handler):
    """Writes a line for every record, until nothing can be written any more."""

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


class JsonProgress:
    """An observer that logs whenever a task's state, round or note changes."""

    def __init__(self) -> None:
        self._log = logging.getLogger("pmpo_ray.progress")
        self._last: dict[str, tuple[str, int, str]] = {}

    def __call__(self, progress: Progress) -> None:
        now = (progress.state, progress.round, progress.note)
        if self._last.get(progress.task) == now:
            return
        self._last[progress.task] = now
        fields = {
            "task": progress.task,
            "state": progress.state,
            "round": progress.round,
            "rounds": progress.rounds,
            "loss": min(progress.losses, default=None),
            "tokens_scored": progress.tokens_scored,
            "tokens_generated": progress.tokens_generated,
            **({"note": progress.note} if progress.note else {}),
        }
        level = logging.ERROR if progress.state == "failed" else logging.INFO
        self._log.log(level, "progress", extra={"fields": fields})


@contextmanager
def progress_log(log_format: LogFormat) -> Iterator[Observer]:
    """An observer that shows progress on standard error."""
    if log_format == "json":
        yield JsonProgress()
        return
    with progress_display() as display:
        yield display


@contextmanager
def standard_error(log_format: LogFormat, environ: Mapping[str, str]) -> Iterator[None]:
    """Standard error in `log_format` while the context lasts. In text, log records of WARNING and above get a
    line and everything else is left alone. In JSON nothing but objects gets there, and an exception that
    leaves the context and ends the process is one, too."""
    redact = Redaction(environ)
    if log_format == "text":
        # The stream is looked up at each line: a live table puts its own in the place of sys.stderr.
        handler = _LineHandler(
            lambda record: text_line(record, redact), lambda line: print(line, file=sys.stderr, flush=True)
        )
        handler.setLevel(logging.WARNING)
        with _handling(handler):
            yield
        return
    # Kept open to the end of the process, for the exception hook.
    terminal = os.dup(2)
    handler = _LineHandler(lambda record: json_line(record, redact), lambda line: _write(terminal, line))
    hook = sys.excepthook

    def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        handler.handle(_record("pmpo_ray", logging.CRITICAL, "internal error", (kind, error, trace)))

    sys.excepthook = log_uncaught
    with _relayed(terminal, handler), _handling(handler, own_level=logging.INFO):
        logging.captureWarnings(True)
        try:
            yield
        finally:
            logging.captureWarnings(False)
    # Not after an exception, which may be on its way to the hook.
    sys.excepthook = hook


@contextmanager
def _handling(handler: logging.Handler, own_level: int = logging.NOTSET) -> Iterator[None]:
    """All records go to `handler`; those of this project from `own_level` on."""
    root, own = logging.getLogger(), logging.getLogger(_OWN)
    level = own.level
    own.setLevel(own_level)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        own.setLevel(level)


@contextmanager
def _relayed(terminal: int, handler: logging.Handler) -> Iterator[None]:
    """What anyone writes to this process's standard error, or to one inherited from it, goes to `handler`
    line by line. `terminal` is a copy of the real one, which has its place back in the end."""
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
        # The pipe has no end while a process that inherited it lives.
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
    # A progress bar draws over itself: what came last is what a terminal would show.
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
