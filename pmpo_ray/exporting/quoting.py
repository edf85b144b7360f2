"""Texts quoted for the languages of other tools.

Invariants: a template made here renders to exactly the quoted text, whatever it contains. Documents contain
no hidden character (`pmpo_ray.text.is_hidden`), and read back as the values they were made of.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import yaml

from pmpo_ray.text import is_hidden

Value: TypeAlias = "bool | int | float | str | Sequence[Value] | Mapping[str, Value] | None"
"""The values of a document; a float is finite."""

_TAG = re.compile(r"\{|\r|#(?=\})")
_IN_EXPRESSION = {"\r": r"\r"}


def expression_quoted(text: str) -> str:
    """A template of Jinja or Nunjucks that renders to `text`.

    Every "{" becomes an expression, so that no tag can begin. So does the "#" of "#}", which Nunjucks rejects
    even outside of a comment, and every carriage return, which Jinja would turn into a line feed.
    """
    return _TAG.sub(lambda match: f"{{{{ '{_IN_EXPRESSION.get(match[0], match[0])}' }}}}", text)


def brace_quoted(text: str) -> str:
    """A template of Python's format language that renders to `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def json_line(value: Value) -> str:
    """A JSON document on one line."""
    return _escaped(json.dumps(value, ensure_ascii=False, allow_nan=False), _json_escape) + "\n"


def json_document(value: Value) -> str:
    """A JSON document, indented."""
    return _escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2), _json_escape) + "\n"


def yaml_document(value: Value) -> str:
    """A YAML document; texts of several lines are written line by line where YAML allows it."""
    dumped = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=math.inf)
    return _escaped(str(dumped), _yaml_escape)


def _escaped(document: str, escape: Callable[[str], str]) -> str:
    """A document with every hidden character written by `escape`."""
    return "".join(escape(character) if is_hidden(character) else character for character in document)


def _json_escape(character: str) -> str:
    """The escaped UTF-16 code units of a character: JSON has no other escapes above U+FFFF."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _yaml_escape(character: str) -> str:
    """The escape of a character within double quotes. Above U+FFFF it cannot be JSON's: YAML does not join
    code units."""
    return f"\\U{ord(character):08x}" if ord(character) > 0xFFFF else _json_escape(character)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and those with characters to escape in double quotes."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (a tool may not know aliases)
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(map(is_hidden, text)) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
