"""Overrides: new values for single keys of a configuration.

Invariant: the value of an override is a Python value. Only `parse_override` reads text, as `--set` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pmpo_ray.config.messages import KeyPath, dotted, kind_of, override_name
from pmpo_ray.config.yaml_text import parse_yaml
from pmpo_ray.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Override:
    """The value that the key at `path` gets. `name` identifies the override in errors: "--set seed=1" for
    text, the option or the called function for a value."""

    path: KeyPath
    value: object
    name: str


def parse_override(text: str) -> Override:
    """The override that "a.b.c=VALUE" stands for; VALUE is YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    name = override_name(text)
    if not equals or "" in path or isinstance(path[0], int):
        raise ConfigError(f"{name}: write it as key=value, for example search.rounds=3")
    return Override(path, parse_yaml(value, name, path).value, name)


def parse_overrides(texts: Iterable[str]) -> list[Override]:
    """The overrides that texts such as "search.rounds=3" stand for, in order. Raises ConfigError."""
    return [parse_override(text) for text in texts]


def section_overrides(section: str, values: Mapping[str, object], name: str) -> list[Override]:
    """An override for each key of a section in `values`; `name` identifies all of them in errors."""
    return [Override((section, key), value, name) for key, value in values.items()]


def run_dir_override(run_dir: str | None) -> list[Override]:
    """The override for a run folder that was named outside of the configuration, if any."""
    return [] if run_dir is None else [Override(("run_dir",), run_dir, "--run-dir")]


def overridden(document: Mapping[str, Any], override: Override) -> dict[str, Any]:
    """A copy of `document` with the override applied; missing sections are created. Raises ConfigError if
    the path leads through something that is not a section or a list."""
    changed: dict[str, Any] = _replaced(document, override, 0)
    return changed


def _replaced(value: Any, override: Override, depth: int) -> Any:
    """`value`, which is at the first `depth` parts of the path, with the override applied."""
    path = override.path
    if depth == len(path):
        return override.value
    part, here = path[depth], dotted(path[:depth])
    if isinstance(part, int):
        if not isinstance(value, list | tuple) or part >= len(value):
            entries = len(value) if isinstance(value, list | tuple) else 0
            raise ConfigError(
                f"{override.name}: {here} has {entries} entries (counted from 0), and none at {part}"
            )
        return [*value[:part], _replaced(value[part], override, depth + 1), *value[part + 1 :]]
    if value is None:
        value = {}
    elif isinstance(value, str) and path[: depth - 1] == ("tasks",):
        value = {"name": value}
    elif isinstance(value, str) and path[:depth] == ("budget",):
        value = {"level": value}
    elif not isinstance(value, Mapping):
        key = dotted(path[: depth + 1]).rpartition(".")[2]
        raise ConfigError(
            f"{override.name}: {here} is {kind_of(value, path[:depth])}, which has no key {key}"
        )
    return {**value, part: _replaced(value.get(part), override, depth + 1)}
