"""Reading and writing configurations: YAML text, `--set` overrides, and what may differ on a resume.

Invariants: whatever a user can get wrong in a configuration becomes a `ConfigError` of one line that names
the place (file and line, or the override) and the key path; loading what `dump_config` wrote gives an equal
configuration.

Plain YAML words mean what they look like: only true and false are booleans (so `masking: off` is the text
"off"), dates are text, and 1e-3 is a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pmpo_ray.config.messages import KeyPath, dotted, kind_of, override_name, secretive, shown, yaml_problem
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError

Origins = dict[KeyPath, str]
"""Where a key was set: "FILE:LINE" or the name of an override."""

CHANGEABLE: Mapping[str, str] = {
    "run_dir": "the folder may have been moved, or be named by another path",
    "data_dir": "the same data may lie elsewhere on another machine",
    "ray": "where the work runs does not change its outcome",
    "tracking": "who follows a run does not change its outcome",
    "scorer.replicas": "how many replicas share the work does not change its outcome",
    "scorer.min_replicas": "how many replicas share the work does not change its outcome",
    "scorer.tensor_parallel": "a share of a machine, not a setting of the method",
    "scorer.cpus": "a share of a machine, not a setting of the method",
    "scorer.gpus": "a share of a machine, not a setting of the method",
    "scorer.memory_gb": "a share of a machine, not a setting of the method",
    "scorer.working_memory_gb": "how work is cut does not change its outcome",
    "scorer.threads": "a share of a machine, not a setting of the method",
    "scorer.vllm.kv_cache_gb": "a share of a machine, not a setting of the method",
    "scorer.endpoint.url": "the same model may be served elsewhere",
    "scorer.endpoint.api_key_env": "who pays does not change the outcome",
    "scorer.endpoint.concurrency": "how work is sent does not change its outcome",
    "scorer.endpoint.retries": "how work is sent does not change its outcome",
    "scorer.endpoint.timeout": "how work is sent does not change its outcome",
    "rewriter.replicas": "how many replicas share the work does not change its outcome",
    "rewriter.min_replicas": "how many replicas share the work does not change its outcome",
    "rewriter.tensor_parallel": "a share of a machine, not a setting of the method",
    "rewriter.cpus": "a share of a machine, not a setting of the method",
    "rewriter.gpus": "a share of a machine, not a setting of the method",
    "rewriter.memory_gb": "a share of a machine, not a setting of the method",
    "rewriter.threads": "a share of a machine, not a setting of the method",
    "rewriter.vllm.kv_cache_gb": "a share of a machine, not a setting of the method",
    "rewriter.endpoint.url": "the same model may be served elsewhere",
    "rewriter.endpoint.api_key_env": "who pays does not change the outcome",
    "rewriter.endpoint.concurrency": "how work is sent does not change its outcome",
    "rewriter.endpoint.retries": "how work is sent does not change its outcome",
    "rewriter.endpoint.timeout": "how work is sent does not change its outcome",
    "search.rounds": "a stopping rule: finished rounds stay as they are",
    "search.patience": "a stopping rule: finished rounds stay as they are",
    "search.target_loss": "a stopping rule: finished rounds stay as they are",
    "search.max_tokens": "a stopping rule: finished rounds stay as they are",
    "search.max_seconds": "a stopping rule: finished rounds stay as they are",
}
"""Keys (or whole sections) that may differ between a run's start and its resume, each with the reason: the
finished part of the run would have come out the same."""

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
class _Document:
    """A parsed YAML text: its value, and the line (from 1) of every key."""

    value: Any
    lines: dict[KeyPath, int]


def load_config(path: str | None, overrides: Sequence[str] = (), run_dir: str | None = None) -> RunConfig:
    """The configuration in the file `path` with `overrides` ("a.b.c=VALUE") laid over it.

    Without `path`, the configuration that the run folder `run_dir` keeps. `run_dir`, where given, wins over
    the configuration's own. Raises ConfigError, or RunFolderError if `run_dir` holds no run.
    """
    if path is not None:
        source, text = path, _read_local(path)
    elif run_dir is not None:
        source, text = _read_run_folder(run_dir)
    else:
        raise ConfigError("no configuration: name a YAML file, or an existing run folder with --run-dir")
    document = _parse(text, source)
    value = {} if document.value is None else document.value
    if not isinstance(value, dict):
        raise ConfigError(
            f"{source}: a configuration must be a mapping of keys to values, not {kind_of(value, ())}"
        )
    origins: Origins = {where: f"{source}:{line}" for where, line in document.lines.items()}
    config = _overridden(value, overrides, source, origins)
    return config if run_dir is None else config.model_copy(update={"run_dir": run_dir})


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
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def differences(old: RunConfig, new: RunConfig, ignored: Container[str] = CHANGEABLE) -> tuple[str, ...]:
    """Key paths whose values differ, in the order of the configuration, apart from those in `ignored`."""
    return tuple(_differing(old, new, (), ignored))


def _differing(old: Any, new: Any, path: KeyPath, ignored: Container[str]) -> Iterator[str]:
    if dotted(path) in ignored:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for key in type(old).model_fields:
            yield from _differing(getattr(old, key), getattr(new, key), (*path, key), ignored)
    elif path == ("tasks",):
        for index, (one, other) in enumerate(zip_longest(old, new)):
            yield from _differing(one, other, (*path, index), ignored)
    elif old != new:
        yield dotted(path)


def _read_local(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _read_run_folder(run_dir: str) -> tuple[str, str]:
    """Name and text of the configuration that a run folder keeps, on disk or in object storage."""
    from pmpo_ray.store import RunStore

    return f"config.yaml of {run_dir}", RunStore.open(run_dir).config_yaml()


def _parse(text: str, source: str, path: KeyPath = ()) -> _Document:
    """The value and the lines of a text that is the whole configuration, or what stands at `path`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[KeyPath, int] = {}
        if node is None:
            return _Document(None, lines)
        _survey(node, path, lines, source, {})
        return _Document(loader.construct_document(node), lines)
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


def _override(value: dict[str, Any], origins: Origins, override: str) -> dict[str, Any]:
    """`value` with one "a.b.c=VALUE" laid over it; VALUE is YAML."""
    key, equals, text = override.partition("=")
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    where = override_name(override)
    if not equals or "" in path or isinstance(path[0], int):
        raise ConfigError(f"{where}: write it as key=value, for example search.rounds=3")
    changed: dict[str, Any] = _with(value, path, 0, _parse(text, where, path).value, where)
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
            nearest = _nearest(detail["loc"])
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


def key_paths(section: type[BaseModel] = RunConfig, prefix: str = "") -> tuple[str, ...]:
    """Every key of a configuration in its order; the entries of `tasks` stand as tasks.N."""
    found: list[str] = []
    for name, field in section.model_fields.items():
        found.append(f"{prefix}{name}")
        nested = _section_in(field.annotation)
        if nested is not None:
            listed = ".N" if get_origin(field.annotation) is tuple else ""
            found.extend(key_paths(nested, f"{prefix}{name}{listed}."))
    return tuple(found)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The configuration section that a key holds, itself or as entries of a list."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _nearest(loc: KeyPath) -> str | None:
    """The known key most like an unknown one: a near miss in its own section, else a key of that name in
    another section, else a near miss anywhere."""
    numbers = [str(part) for part in loc if isinstance(part, int)]
    parent = "".join("N." if isinstance(part, int) else f"{part}." for part in loc[:-1])
    name = str(loc[-1])
    known = key_paths()
    siblings = [path for path in known if path.startswith(parent) and "." not in path[len(parent) :]]
    near = difflib.get_close_matches(name, [path[len(parent) :] for path in siblings], n=1, cutoff=0.7)
    if near:
        path = parent + near[0]
        for number in numbers:
            path = path.replace("N.", f"{number}.", 1)
        return path
    same = [path for path in known if path.rpartition(".")[2] == name]
    anywhere = difflib.get_close_matches(parent + name, known, n=1, cutoff=0.7)
    return next(iter(same + anywhere), None)
