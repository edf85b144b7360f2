"""YAML text of configurations, read with the place of every key and written so that it reads back equal.

Invariant: plain words mean what they look like. Only true and false are booleans (so `masking: off` is the
text "off"), dates are text, and 1e-3 is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from pmpo_ray.config.messages import KeyPath, dotted, secretive, shown, yaml_problem
from pmpo_ray.errors import ConfigError

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


class _Loader(yaml.SafeLoader):
    """A safe loader for the plain YAML that the module's docstring promises."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either this loader or a common one would read as something else."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Quoted with escapes where plain YAML would fold or lose a character."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Loader.yaml_implicit_resolvers = {
    first: [
        entry
        for entry in entries
        if entry[0] not in {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}
    ]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
for _resolving in (_Loader, _Dumper):
    _resolving.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML text: its value, and the line (from 1) of every key."""

    value: Any
    lines: dict[KeyPath, int]


def yaml_of(value: object) -> str:
    """`value`, which is made of mappings, lists and plain values, as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse_yaml(text: str, source: str, path: KeyPath = ()) -> Document:
    """The value and the lines of a text that is the whole configuration, or what stands at `path`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is None:
            return Document(None, lines)
        _survey(node, path, lines, source, {})
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        # From None here and below: the causes quote the text.
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"{_place(source, mark)}: not valid YAML: {yaml_problem(error.problem or error.context)}"
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{source}: not valid YAML: character {error.position} is not allowed") from None
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


def _place(source: str, mark: yaml.Mark | None) -> str:
    """The place of a mark for a user: an override is one line anyway."""
    return source if mark is None or source.startswith("--set ") else f"{source}:{mark.line + 1}"


def _survey(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], source: str, seen: dict[int, bool]
) -> None:
    """Note the line of every key; refuse repeated keys, keys that are not text, and special tags.

    `seen` keeps shared (aliased) nodes from being visited again; it holds True for those still being visited.
    """
    if seen.get(id(node)):
        raise ConfigError(f"{_place(source, node.start_mark)}: {dotted(path)}: contains itself")
    if node.tag not in _PLAIN_TAGS:
        tag = "this YAML tag" if secretive(path) else f"YAML tag {shown(node.tag)}"
        raise ConfigError(f"{_place(source, node.start_mark)}: {tag} is not allowed")
    if id(node) in seen:
        return
    seen[id(node)] = True
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
            _survey(item, (*path, index), lines, source, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            _survey(item, _key(key, path, lines, source), lines, source, seen)
    seen[id(node)] = False


def _key(key: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], source: str) -> KeyPath:
    """The path of a mapping's key, its line noted. Keys that "<<" brings in stand under "<<" and so may be
    given again beside it."""
    place = _place(source, key.start_mark)
    if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
        raise ConfigError(f"{place}: a key must be text: write it in quotes")
    here = (*path, key.value)
    if here in lines:
        raise ConfigError(f"{place}: {dotted(here)}: given twice (first on line {lines[here]}): keep one")
    lines[here] = key.start_mark.line + 1
    return here
