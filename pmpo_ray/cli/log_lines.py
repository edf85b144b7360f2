"""Log records as lines: text for people, JSON objects for programs.

Invariants:
- No line shows a secret: neither the value of an environment variable with a secret's name, nor credentials
  in a URL.
- Untrusted text stays within its line, and no string is longer than LIMIT characters.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from pmpo_ray.redaction import Redact
from pmpo_ray.text import shortened, visible

LogFormat = Literal["text", "json"]

LIMIT = 2000
"""Maximum number of characters of a string in a log line; a longer one loses its middle."""


def one_line(text: str, redact: Redact) -> str:
    """`text` as a terminal can show it safely: on one line of bounded length, without secrets."""
    return _bounded(" ".join(visible(redact(text)).split()))


def text_line(record: logging.LogRecord, redact: Redact) -> str:
    """A log record as text: the message and its fields on one line. A traceback follows indented, so that no
    part of it looks like another record."""
    fields = (f"{name}={one_line(str(value), redact)}" for name, value in _fields(record).items())
    line = "  ".join((one_line(_message(record), redact), *fields))
    trace = _bounded(visible(redact(_traceback(record))))
    return "\n".join((line, *(f"  {part}" for part in trace.splitlines())))


def json_line(record: logging.LogRecord, redact: Redact) -> str:
    """A log record as one JSON object on one line. A field with the name of one of the four keys that every
    line has gets an underscore appended to its name; numbers that JSON cannot represent are null."""
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
    # JSON can represent a lone surrogate, but many readers reject it.
    return _bounded(redact(text).encode("utf-8", "backslashreplace").decode())


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, LookupError):
        # The arguments do not fit the message: a mistake of the caller, and no reason to lose the message.
        return str(record.msg)


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = record.__dict__.get("fields")
    return {str(name): value for name, value in fields.items()} if isinstance(fields, Mapping) else {}


def _traceback(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


def _bounded(text: str) -> str:
    return shortened(text, LIMIT, tail=0.5)
