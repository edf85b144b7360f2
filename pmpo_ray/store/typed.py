"""JSON values as the types that they were written from.

Invariant: the result has, all through, the types that its class declares, or ValueError is raised; so no
document, whatever it holds, causes an error later.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NOT_FINITE = ("inf", "-inf", "nan")
"""The texts that stand for numbers that JSON lacks."""


def typed(kind: type[T], value: object) -> T:
    """The value of a dataclass that a JSON value represents. Fields with a default may be absent. Raises
    ValueError if a field is unknown, missing or of another type."""
    result: T = _typed(kind, value, kind.__name__)
    return result


def _typed(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        [own] = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else _typed(own, value, place)
    if origin is Mapping:
        return {key: _typed(get_args(kind)[1], item, place) for key, item in _object(value, place).items()}
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{place} is none of {get_args(kind)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{place} is not a list")
        return tuple(_typed(get_args(kind)[0], item, place) for item in value)
    if is_dataclass(kind) and isinstance(kind, type):
        return _object_of(kind, _object(value, place), place)
    if kind is float and (type(value) is int or (type(value) is str and value in _NOT_FINITE)):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{place} is not of type {kind.__name__}")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is not an object")
    return value


def _object_of(kind: type, value: dict[str, Any], place: str) -> Any:
    hints = _hints(kind)
    unknown = value.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ValueError(f"{place} has an unknown field {sorted(unknown)[0]!r}")
    try:
        return kind(**{name: _typed(hints[name], item, f"{place}.{name}") for name, item in value.items()})
    except TypeError as error:
        raise ValueError(f"{place} lacks a field") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
