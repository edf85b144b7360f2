"""Reading and writing configurations: YAML text, `--set` overrides, and what may differ on a resume.

Invariants: whatever a user can get wrong in a configuration becomes a `ConfigError` of one line that names
the place (file and line, or the override) and the key path; loading what `dump_config` wrote gives an equal
configuration.

Plain YAML words mean what they look like: only true and false are booleans (so `masking: off` is the text
"off"), dates are text, and 1e-3 is a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pmpo_ray.config.keys import nearest_key
from pmpo_ray.config.messages import KeyPath, dotted, kind_of, override_name
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.yaml_text import parse_yaml, yaml_of
from pmpo_ray.errors import ConfigError

Origins = dict[KeyPath, str]
"""Where a key was set: "FILE:LINE" or the name of an override."""


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in the file `path`, changed by `overrides` ("a.b.c=VALUE"). Raises ConfigError."""
    return config_from_yaml(_read_local(path), path, overrides)


def config_from_yaml(text: str, source: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a YAML text, changed by `overrides`; `source` names the text in errors. Raises
    ConfigError."""
    document = parse_yaml(text, source)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: a configuration must be a mapping of keys to values, not {kind_of(value, ())}"
        )
    origins: Origins = {where: f"{source}:{line}" for where, line in document.lines.items()}
    return _overridden(value, overrides, source, origins)


def default_config(overrides: Sequence[str]) -> RunConfig:
    """The configuration of a run that was told nothing but `overrides`. Raises ConfigError."""
    return _overridden({}, overrides, "the defaults", {})


def _overridden(value: dict[str, Any], overrides: Sequence[str], source: str, origins: Origins) -> RunConfig:
    for override in overrides:
        value = _override(value, origins, override)
    return _validated(value, source, origins)


def config_from_mapping(mapping: Mapping[str, object], where: str) -> RunConfig:
    """The configuration that a mapping spells out; `where` names its source in errors. Raises ConfigError."""
    return _validated(mapping, where, {})


def dump_config(config: RunConfig) -> str:
    """YAML with every key, defaults included; loading it gives an equal configuration."""
    plain = config.model_dump(mode="json")
    return yaml_of(plain)


def _read_local(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _override(value: dict[str, Any], origins: Origins, override: str) -> dict[str, Any]:
    """`value` with one "a.b.c=VALUE" laid over it; VALUE is YAML."""
    key, equals, text = override.partition("=")
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    where = override_name(override)
    if not equals or "" in path or isinstance(path[0], int):
        raise ConfigError(f"{where}: write it as key=value, for example search.rounds=3")
    changed: dict[str, Any] = _with(value, path, 0, parse_yaml(text, where, path).value, where)
    for known in [known for known in origins if known[: len(path)] == path]:
        del origins[known]
    origins[path] = where
    return changed


def _with(value: Any, path: KeyPath, depth: int, leaf: Any, where: str) -> Any:
    """`value`, which stands at path[:depth], with `leaf` at `path`; missing sections are made on the way."""
    if depth == len(path):
        return leaf
    part, here = path[depth], dotted(path[:depth])
    if isinstance(part, int):
        if not isinstance(value, list) or part >= len(value):
            entries = len(value) if isinstance(value, list) else 0
            raise ConfigError(
                f"{where}: {here} has {entries} entries here (counted from 0), not one at {part}"
            )
        return [*value[:part], _with(value[part], path, depth + 1, leaf, where), *value[part + 1 :]]
    if value is None:
        value = {}
    elif isinstance(value, str) and path[: depth - 1] == ("tasks",):
        value = {"name": value}
    elif not isinstance(value, dict):
        name = dotted(path[: depth + 1]).rpartition(".")[2]
        raise ConfigError(f"{where}: {here} is {kind_of(value, path[:depth])}, which has no key {name}")
    return {**value, part: _with(value.get(part), path, depth + 1, leaf, where)}


def _validated(value: Mapping[str, Any], source: str, origins: Origins) -> RunConfig:
    # Strict, or else true would be read as the number 1 and "3" as 3; strict wants tuples for lists.
    try:
        return RunConfig.model_validate(_tupled(value), strict=True)
    except ValidationError as error:
        details = _causes(error.errors(include_url=False))
    first = details[0]
    place = next(
        (origins[first["loc"][:n]] for n in range(len(first["loc"]), 0, -1) if first["loc"][:n] in origins),
        source,
    )
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    key = f"{dotted(first['loc'])}: " if first["loc"] else ""
    raise ConfigError(f"{place}: {key}{_complaint(first)}{more}")


def _causes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the errors of lists that only count as too short because of an error in an entry."""
    places = [detail["loc"] for detail in details]
    return [
        detail
        for detail, loc in zip(details, places, strict=True)
        if detail["type"] != "too_short"
        or not any(len(p) > len(loc) and p[: len(loc)] == loc for p in places)
    ]


def _tupled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(_tupled(item) for item in value) if isinstance(value, list | tuple) else value


def _complaint(detail: ErrorDetails) -> str:
    """What is wrong with a key's value, and where it can be told, what to write instead."""
    given = kind_of(detail["input"], detail["loc"])
    match detail["type"]:
        case "extra_forbidden":
            nearest = nearest_key(detail["loc"])
            return "unknown key" + (f"; did you mean {nearest}?" if nearest else "; see configs/README.md")
        case "missing":
            return "missing: it has to be given"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case "tuple_type":
            return f"should be a list, as in [a, b], not {given}"
        case "model_type" | "model_attributes_type":
            return f"should be a section with keys of its own, not {given}"
        case "string_type":
            hint = "" if detail["input"] is None else ": write it in quotes"
            return f"should be text, not {given}{hint}"
        case "too_short":
            return "should have at least one entry"
        case _:
            wanted = (
                detail["msg"].removeprefix("Input should be ").replace("a valid integer", "a whole number")
            )
            wanted = wanted.replace("a valid ", "a ")
            return f"should be {wanted}, not {given}"
