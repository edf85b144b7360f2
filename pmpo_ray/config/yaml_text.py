"""YAML text of configurations: read with the line of every key, and written so that it reads back equal.

Invariant: plain words mean what they look like. Only true and false are booleans (so `masking: off` is the
text "off"), dates are text, and 1e-3 is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pmpo_ray.config.messages import KeyPath, dotted, secretive, shown, yaml_problem
from pmpo_ray.errors import ConfigError

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


class _Loader(yaml.SafeLoader):
    """A safe loader in which plain words mean what they look like."""


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes every text that this loader or a common one would read as something else."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """A text as YAML; quoted with escapes if plain YAML would fold or lose a character."""
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
    """`value`, made of mappings, lists and plain values, as YAML."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def parse_yaml(text: str, source: str, path: KeyPath = ()) -> Document:
    """The value and the lines of a text: a whole configuration, or the value of an override at `path`, whose
    errors name no line. Raises ConfigError; `source` names the text in errors."""
    survey = _Survey(source, one_line=bool(path))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Document(None, {})
        survey.visit(node, path)
        return Document(loader.construct_document(node), survey.lines)
    except yaml.MarkedYAMLError as error:
        # From None here and below: the causes quote the text.
        place = survey.place(error.problem_mark or error.context_mark)
        raise ConfigError(
            f"{place}: not valid YAML: {yaml_problem(error.problem or error.context)}"
        ) from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(f"{source}: not valid YAML: character {error.position} is not allowed") from None
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


@dataclass(frozen=True, slots=True)
class _Survey:
    """A walk over the nodes of a text. It notes the line of every key and refuses repeated keys, keys that
    are not text, and special tags."""

    source: str
    one_line: bool
    lines: dict[KeyPath, int] = field(default_factory=dict)
    visits: dict[int, bool] = field(default_factory=dict)
    """The nodes seen so far, by id: shared (aliased) ones are visited once. True during the visit."""

    def place(self, mark: yaml.Mark | None) -> str:
        """The place of a mark, as errors name it."""
        return self.source if mark is None or self.one_line else f"{self.source}:{mark.line + 1}"

    def visit(self, node: yaml.Node, path: KeyPath) -> None:
        """Visit the node at `path` and those below it. Raises ConfigError."""
        if self.visits.get(id(node)):
            raise ConfigError(f"{self.place(node.start_mark)}: {dotted(path)}: contains itself")
        if node.tag not in _PLAIN_TAGS:
            tag = "this YAML tag" if secretive(path) else f"YAML tag {shown(node.tag)}"
            raise ConfigError(f"{self.place(node.start_mark)}: {tag} is not allowed")
        if id(node) in self.visits:
            return
        self.visits[id(node)] = True
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[*path, index] = item.start_mark.line + 1
                self.visit(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            for key, item in node.value:
                self.visit(item, self._key(key, path))
        self.visits[id(node)] = False

    def _key(self, key: yaml.Node, path: KeyPath) -> KeyPath:
        """The path of a mapping's key, whose line is noted. Keys merged in by "<<" are noted under "<<", so
        the mapping may set them again."""
        place = self.place(key.start_mark)
        if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
            raise ConfigError(f"{place}: a key must be text: write it in quotes")
        here = (*path, key.value)
        if here in self.lines:
            first = self.lines[here]
            raise ConfigError(f"{place}: {dotted(here)}: given twice (first on line {first}): keep one")
        self.lines[here] = key.start_mark.line + 1
        return here
