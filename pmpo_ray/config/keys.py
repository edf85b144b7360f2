"""The key paths of a configuration, and the keys that an unknown one may stand for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from pmpo_ray.config.messages import KeyPath, dotted
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


def advice_on_key(loc: KeyPath) -> str:
    """Advice on an unknown key: the known one that is most like it, or the keys of its section."""
    known = key_paths()
    parent = "".join("N." if isinstance(part, int) else f"{part}." for part in loc[:-1])
    siblings = [
        path[len(parent) :] for path in known if path.startswith(parent) and "." not in path[len(parent) :]
    ]
    nearest = _nearest_key(loc, parent, siblings, known)
    if nearest is not None:
        return f"did you mean {nearest}?"
    if parent and siblings:
        return f"{dotted(loc[:-1])} has the keys {', '.join(siblings)}"
    return "see configs/README.md"


def _nearest_key(loc: KeyPath, parent: str, siblings: Sequence[str], known: Sequence[str]) -> str | None:
    """The known key that is most like an unknown one: a near miss in its section, else a key of that name in
    another section, else a near miss of its whole path if there is no such section."""
    numbers = [str(part) for part in loc if isinstance(part, int)]
    name = str(loc[-1])
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.7)
    if near:
        path = parent + near[0]
        for number in numbers:
            path = path.replace("N.", f"{number}.", 1)
        return path
    same = [path for path in known if path.rpartition(".")[2] == name]
    anywhere = [] if siblings else difflib.get_close_matches(parent + name, known, n=1, cutoff=0.7)
    return next(iter(same + anywhere), None)
