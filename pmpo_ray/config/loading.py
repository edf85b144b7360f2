"""Configurations read from YAML or from Python values, and written as YAML.

Invariants: every mistake that a user can make in a configuration raises a `ConfigError` of one line with the
place (file and line, or the override) and the key path; loading what `dump_config` wrote gives an equal
configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pmpo_ray.config.instruction_files import with_texts
from pmpo_ray.config.keys import advice_on_key
from pmpo_ray.config.messages import KeyPath, dotted, kind_of, value_problem
from pmpo_ray.config.overrides import Override, overridden
from pmpo_ray.config.paths import missing_file
from pmpo_ray.config.run import PLACED, RunConfig
from pmpo_ray.config.secrets import without_keys
from pmpo_ray.config.yaml_text import parse_yaml, yaml_of
from pmpo_ray.errors import ConfigError
from pmpo_ray.redaction import Redaction

_MAX_BYTES = 1_000_000
"""The size of a configuration file; a thousand tasks with all their keys take half of it."""

_YAML = (".yaml", ".yml")

Origins = dict[KeyPath, str]
"""Where each key was set: "FILE:LINE" or the name of an override."""


def load_config(path: str, overrides: Sequence[Override] = ()) -> RunConfig:
    """The configuration in the file `path`, changed by `overrides`. Raises ConfigError."""
    value, origins = _read_mapping(_read_local(path), path)
    try:
        value = with_texts(value, Path(path).parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return _changed(value, overrides, path, origins)


def config_from_yaml(text: str, source: str, overrides: Sequence[Override] = ()) -> RunConfig:
    """The configuration in a YAML text, changed by `overrides`; `source` names the text in errors. Raises
    ConfigError."""
    value, origins = _read_mapping(text, source)
    return _changed(value, overrides, source, origins)


def config_for_reading(text: str, source: str) -> tuple[RunConfig, tuple[str, ...]]:
    """As `config_from_yaml`, for what only shows a configuration: keys and passwords among its settings are
    masked, and not refused. The second part are their paths."""
    value, origins = _read_mapping(text, source)
    masked, paths = without_keys(value)
    return _validated(masked, source, origins), paths


def default_config(overrides: Sequence[Override]) -> RunConfig:
    """The defaults, changed by `overrides`. Raises ConfigError."""
    # Written out as far as an override can name a part of a list.
    tasks = [task.model_dump(exclude_defaults=True) for task in RunConfig().tasks]
    return _changed({"tasks": tasks}, overrides, "the defaults", {})


def config_from_mapping(mapping: Mapping[str, object], where: str) -> RunConfig:
    """The configuration in a mapping; `where` names its source in errors. Raises ConfigError."""
    return _validated(with_texts(mapping, None), where, {})


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, with every key and its value; loading it gives an equal configuration."""
    plain = config.model_dump(mode="json")
    return yaml_of(plain)


def _read_local(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_BYTES:,} bytes: is this a configuration?")
        return content.decode()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; {missing_file(path, _YAML)}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _read_mapping(text: str, source: str) -> tuple[dict[str, Any], Origins]:
    document = parse_yaml(text, source)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: a configuration must be a mapping of keys to values, not {kind_of(value, ())}"
        )
    return value, {path: f"{source}:{line}" for path, line in document.lines.items()}


def _changed(
    value: dict[str, Any], overrides: Sequence[Override], source: str, origins: Origins
) -> RunConfig:
    for override in overrides:
        path = override.path
        value = overridden(value, replace(override, value=with_texts(override.value, None, path)))
        origins = {key: origin for key, origin in origins.items() if key[: len(path)] != path}
        origins[path] = override.name
    return _validated(value, source, origins)


def _validated(value: Mapping[str, Any], source: str, origins: Origins) -> RunConfig:
    # Strict: otherwise true counts as the number 1 and "3" as 3. Strict lists have to be tuples.
    try:
        return RunConfig.model_validate(_tupled(value), strict=True)
    except RecursionError:
        raise ConfigError(f"{source}: sections or lists are nested too deeply") from None
    except ValidationError as error:
        details = _causes(error.errors(include_url=False))
    first = details[0]
    path: KeyPath = first["ctx"]["path"] if first["type"] == PLACED else first["loc"]
    place = next((origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins), source)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    key = f"{dotted(path)}: " if path else ""
    # A check may quote a value, which may be a key in the wrong place.
    raise ConfigError(Redaction({})(f"{place}: {key}{_complaint(first)}{more}"))


def _causes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without those of lists that count as too short only because an entry is wrong."""
    places = [detail["loc"] for detail in details]
    return [
        detail
        for detail, loc in zip(details, places, strict=True)
        if detail["type"] != "too_short"
        or not any(len(p) > len(loc) and p[: len(loc)] == loc for p in places)
    ]


def _tupled(value: Any) -> Any:
    """`value` with tuples in the place of lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _tupled(item) for key, item in value.items()}
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def _complaint(detail: ErrorDetails) -> str:
    """The problem with a key or its value and, where it is clear, what to write instead."""
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key; {advice_on_key(detail['loc'])}"
        case "missing":
            return "missing: this key is required"
        case _ if detail["type"] == PLACED:
            return str(detail["ctx"]["problem"])
        case _:
            return value_problem(detail)
