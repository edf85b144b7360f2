"""The base of every section of a configuration, and the types and marks that fields share.

Invariants: an unknown key is an error that names its path; a loaded configuration is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    # Errors show no value, since it may be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)


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
