"""The key paths of a configuration, and the nearest key to a misspelt one."""

from __future__ import annotations

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pmpo_ray.config.messages import KeyPath
from pmpo_ray.config.run import RunConfig


def key_paths(section: type[BaseModel] = RunConfig, prefix: str = "") -> tuple[str, ...]:
    """Every key path of a configuration, in its order; keys of the entries of `tasks` begin with tasks.N."""
    paths: list[str] = []
    for name, field in section.model_fields.items():
        paths.append(f"{prefix}{name}")
        nested = section_in(field.annotation)
        if nested is not None:
            entry = ".N" if get_origin(field.annotation) is tuple else ""
            paths.extend(key_paths(nested, f"{prefix}{name}{entry}."))
    return tuple(paths)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, itself or as the entries of a list; None for a plain value."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def nearest_key(loc: KeyPath) -> str | None:
    """The known key that is most like an unknown one: a near miss in its section, else a key of that name in
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
