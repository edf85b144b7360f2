"""Differences between two configurations, and the keys that may change when a run is continued.

Invariant: a key may change if its field, or the field of a section around it, is marked `Changeable`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import zip_longest
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from pmpo_ray.config.base import Changeable, Fixed
from pmpo_ray.config.keys import section_in
from pmpo_ray.config.messages import KeyPath, dotted
from pmpo_ray.config.run import RunConfig


def _changeable(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The path and the reason of every key of a section that is marked as changeable."""
    for name, field in section.model_fields.items():
        path = f"{prefix}{name}"
        nested = section_in(field.annotation)
        marks = [mark for mark in field.metadata if isinstance(mark, Changeable | Fixed)]
        yield from ((path, mark.reason) for mark in marks if isinstance(mark, Changeable))
        if nested is not None and not marks:
            yield from _changeable(nested, f"{path}.")


CHANGEABLE: Mapping[str, str] = MappingProxyType(dict(_changeable(RunConfig)))
"""The keys, or whole sections, that may differ between the start of a run and its continuation, with the
reason. Those of the entries of `tasks` begin with tasks."""


def differences(old: RunConfig, new: RunConfig, ignored: Container[str] = CHANGEABLE) -> tuple[str, ...]:
    """The key paths whose values differ, in the order of the configuration, except those in `ignored`."""
    return tuple(_differing(old, new, (), ignored))


def _differing(old: Any, new: Any, path: KeyPath, ignored: Container[str]) -> Iterator[str]:
    if ".".join(part for part in path if isinstance(part, str)) in ignored:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        for key in type(old).model_fields:
            yield from _differing(getattr(old, key), getattr(new, key), (*path, key), ignored)
    elif path == ("tasks",):
        for index, (one, other) in enumerate(zip_longest(old, new)):
            yield from _differing(one, other, (*path, index), ignored)
    elif old != new:
        yield dotted(path)
