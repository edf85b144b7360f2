"""Texts quoted for the languages of other tools.

Always true: a template that was made here renders to the quoted text alone, whatever stands in it; documents
hold no character that would steer a terminal or turn the direction of text, and read back as they were.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import yaml

Value: TypeAlias = "bool | int | float | str | Sequence[Value] | Mapping[str, Value] | None"
"""What a document consists of; a float is finite."""

_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_TAG = re.compile(r"\{|\r|#(?=\})")
_IN_EXPRESSION = {"\r": r"\r"}


def expression_quoted(text: str) -> str:
    """A template of Jinja or Nunjucks that renders to `text`.

    Every "{" is an expression of its own, so that no tag can begin. So is the "#" of "#}", at which Nunjucks
    stops outside a comment, too, and every carriage return, which Jinja would turn into a line feed.
    """
    return _TAG.sub(lambda match: f"{{{{ '{_IN_EXPRESSION.get(match[0], match[0])}' }}}}", text)


def brace_quoted(text: str) -> str:
    """A template of Python's format language that renders to `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def json_line(value: Value) -> str:
    """A JSON document on one line."""
    return _escaped(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n"


def json_document(value: Value) -> str:
    """A JSON document, indented."""
    return _escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def yaml_document(value: Value) -> str:
    """A YAML document; texts of several lines stand in it line by line where YAML can hold them so."""
    dumped = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=math.inf)
    return _escaped(str(dumped))


def _escaped(document: str) -> str:
    """A document with such characters as escapes, which JSON and double-quoted YAML share."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and those with characters to escape in double quotes."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (a tool may not know aliases)
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _STEERING.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
