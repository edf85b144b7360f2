"""YAML text of configurations: read with the line of every key, and written so that it reads back equal.

Invariants:
- Plain words mean what they look like. Only true and false are booleans (so `masking: off` is the text
  "off"), dates are text, and 1e-3 is a number.
- The work is in proportion to the length of the text: nesting, aliases and numbers are bounded.
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
_NUMBER_TAGS = ("tag:yaml.org,2002:int", _FLOAT_TAG)
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}

_MAX_DEPTH = 50
"""Levels of sections and lists in each other; a configuration has six."""
_MAX_REPEATED = 10_000
"""Values that aliases repeat. A few nested aliases may stand for more values than memory holds."""
_MAX_DIGITS = 100
"""Characters of a number; the conversion of a longer one is slow or fails."""


class _Loader(yaml.SafeLoader):
    """A safe loader in which plain words mean what they look like. It refuses a text that is nested too
    deeply as soon as it reads it."""

    depth = 0

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        # The scanner reads up to 1,024 characters ahead, in quadratic time if all of them are brackets.
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._check_depth(self.depth)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _check_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=self.get_mark())


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
    except ValueError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


@dataclass(slots=True)
class _Survey:
    """A walk over the nodes of a text. It notes the line of every key and refuses repeated keys, keys that
    are not text, special tags, overlong numbers, and aliases that repeat too much."""

    source: str
    one_line: bool
    lines: dict[KeyPath, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """The number of values that each visited node stands for, by its id, with aliases written out; 0 during
    the visit. Shared (aliased) nodes are visited once."""
    repeated: int = 0
    """The number of values that the aliases so far stand for."""

    def place(self, mark: yaml.Mark | None) -> str:
        """The place of a mark, as errors name it."""
        return self.source if mark is None or self.one_line else f"{self.source}:{mark.line + 1}"

    def visit(self, node: yaml.Node, path: KeyPath) -> int:
        """Visit the node at `path` and those below it, and return its size. Raises ConfigError."""
        size = self.sizes.get(id(node))
        if size == 0:
            raise self._error(node, f"{dotted(path)}: contains itself")
        if node.tag not in _PLAIN_TAGS:
            raise self._error(
                node,
                f"{'this YAML tag' if secretive(path) else f'YAML tag {shown(node.tag)}'} is not allowed",
            )
        if size is not None:
            self.repeated += size
            if self.repeated > _MAX_REPEATED:
                problem = f"aliases (*name) repeat more than {_MAX_REPEATED:,} values; write them out"
                raise self._error(node, f"{dotted(path)}: {problem}")
            return size
        self.sizes[id(node)] = 0
        self.sizes[id(node)] = size = 1 + self._visit_parts(node, path)
        return size

    def _visit_parts(self, node: yaml.Node, path: KeyPath) -> int:
        """The size of all that is in the node."""
        size = 0
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[*path, index] = item.start_mark.line + 1
                size += self.visit(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            for key, item in node.value:
                size += self.visit(item, self._key(key, path))
        elif node.tag in _NUMBER_TAGS and len(node.value) > _MAX_DIGITS:
            raise self._error(
                node, f"{dotted(path)}: a number of more than {_MAX_DIGITS} characters; put a text in quotes"
            )
        return size

    def _error(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.place(node.start_mark)}: {problem}")

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
