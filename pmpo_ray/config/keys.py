"""The keys of a configuration, and the key that a misspelt one was meant to be."""

from __future__ import annotations

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pmpo_ray.config.messages import KeyPath
from pmpo_ray.config.run import RunConfig


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


def nearest_key(loc: KeyPath) -> str | None:
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
