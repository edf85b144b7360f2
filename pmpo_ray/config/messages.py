"""Keys, values and overrides of a configuration as errors show them.

Invariants: errors show nothing from an `endpoint` section, where an API key may have been put by mistake: no
value, and of the name of a key only the beginning that consists of letters, digits, underscores and hyphens.
Nowhere do they show a text in the form of a known kind of key.
"""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

from pmpo_ray.redaction import key_form
from pmpo_ray.text import shortened

KeyPath = tuple[str | int, ...]

_LARGE = 10**30
_WIDTH = 200
"""The maximum number of characters of a user's text in an error."""
_SECRETIVE = "endpoint"
_MAY_HOLD_SECRET = re.compile(
    rf"{_SECRETIVE}|key|token(?!s)|secret|passw|credential|authorization|:\S*@", re.IGNORECASE
)
_PLAIN_NAME = re.compile(r"[\w-]*")
_PLAIN_PATH = re.compile(r"[\w.]*")
_NAMES_IN_YAML_ERRORS = re.compile(r"\b(alias|handle) ['\"].*['\"]")


def secretive(path: KeyPath) -> bool:
    """True if no value at `path` may be shown."""
    return _SECRETIVE in path


def dotted(path: KeyPath) -> str:
    """A key path as a user writes it: tasks.0.columns.input."""
    return ".".join(
        _cut(str(part), _PLAIN_NAME) if secretive(path[:index]) else shown(part)
        for index, part in enumerate(path)
    )


def shown(part: object) -> str:
    """A part of the user's text in characters that a terminal can show safely."""
    if key_form(str(part)) is not None:
        return "…"
    text = shortened(str(part), _WIDTH)
    return text if text.isprintable() else ascii(text)


def override_name(override: str) -> str:
    """The name in errors of the override "a.b.c=VALUE": all of its text or, if that may contain a secret, its
    key path alone."""
    if not _MAY_HOLD_SECRET.search(override) and key_form(override) is None:
        return f"--set {shown(override)}"
    return f"--set {_cut(override.partition('=')[0].strip(), _PLAIN_PATH)}"


def yaml_problem(problem: str | None) -> str:
    """A problem that PyYAML reports, without names that are part of a value."""
    return _NAMES_IN_YAML_ERRORS.sub(r"\1", problem or "unreadable")


def value_problem(detail: ErrorDetails) -> str:
    """The problem with a key's value and, where it is clear, the value to write instead."""
    actual = kind_of(detail["input"], detail["loc"])
    match detail["type"]:
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case "tuple_type":
            return f"should be a list, as in [a, b], not {actual}"
        case "model_type" | "model_attributes_type":
            return f"should be a section with keys, not {actual}"
        case "string_type":
            hint = "" if detail["input"] is None else ": write it in quotes"
            return f"should be text, not {actual}{hint}"
        case "too_short":
            return "should have at least one entry"
        case _:
            expected = detail["msg"].removeprefix("Input should be ")
            expected = expected.replace("a valid integer", "a whole number").replace("a valid ", "a ")
            return f"should be {expected}, not {actual}"


def kind_of(value: object, path: KeyPath) -> str:
    """A description of the value at `path`: the value itself, unless it is long, has parts, or must not be
    shown."""
    match value:
        case None:
            return "empty"
        case dict():
            return "a section"
        case list() | tuple():
            return "a list"
        case str():
            hidden = secretive(path) or key_form(value) is not None
            return "a text" if hidden else f"the text '{shown(value[:40])}'"
        case _ if secretive(path):
            return "the present value"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= _LARGE:
            return "a very large number"
        case int() | float():
            return str(value)
        case _:
            return f"a {type(value).__name__}"


def _cut(text: str, plain: re.Pattern[str]) -> str:
    """The beginning of `text` that `plain` matches."""
    begins = plain.match(text)
    kept = begins.group() if begins else ""
    if key_form(kept) is not None:
        return "…"
    return kept if kept == text else f"{kept}…"
