"""The base of every section of a configuration, and the types and marks that fields share.

Invariants: an unknown key is an error that names its path; a loaded configuration is frozen; every number is
finite and within bounds, far above what a run can use, that keep a slip of the finger from being carried out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pmpo_ray.config.import_paths import is_import_path

MOST = 10**9
"""The bound of whole numbers that have no tighter one."""

Positive = Annotated[int, Field(ge=1, le=MOST)]
NonNegative = Annotated[int, Field(ge=0, le=MOST)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]
Units = Annotated[float, Field(ge=0, le=1e5)]
"""A number of processors or GPUs, or a share of one."""
Temperature = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(gt=0, le=1)]


Calibrate: TypeAlias = bool | Literal["inputs"]
"""A calibration: none (False), by inputs without content (True), or by the training inputs."""


class Section(BaseModel):
    # Errors show no value, since it may be a secret in the wrong place.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


def _finite(options: dict[str, Any]) -> dict[str, Any]:
    if not _is_finite(options):
        raise ValueError("holds a number that is infinite or not a number; give finite ones")
    return options


def _is_finite(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case Mapping():
            return all(map(_is_finite, value.values()))
        case str():
            return True
        case Sequence():
            return all(map(_is_finite, value))
        case _:
            return True


Options = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Settings that are passed on to other software as they are."""


def name_or_path(names: Sequence[str], custom: str) -> BeforeValidator:
    """The check of a text that is one of `names`, or the import path of what `custom` describes."""

    def check(value: object) -> object:
        if not isinstance(value, str) or not (value in names or is_import_path(value)):
            raise ValueError(f"should be {', '.join(names)}, or module:name of {custom}")
        return value

    return BeforeValidator(check)


def true_false_or(*names: str) -> BeforeValidator:
    """The check of a value that is true, false, nothing, or one of `names`. Without it the error would be
    about the first of these kinds alone."""

    def check(value: object) -> object:
        if not (value is None or isinstance(value, bool) or value in names):
            raise ValueError(f"should be true, false, {' or '.join(names)}")
        return value

    return BeforeValidator(check)


@dataclass(frozen=True, slots=True)
class Changeable:
    """Marks a key, or a whole section, that may be changed when a run is continued, because the finished part
    of the run would be the same. `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fixed:
    """Marks a section in which no key may be changed when a run is continued, although it shares fields with
    sections where some may."""

    reason: str
