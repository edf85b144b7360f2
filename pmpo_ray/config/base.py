"""The base of every section of a configuration.

Invariants: an unknown key is an error that names its path; a loaded configuration is frozen.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    # No value in errors of a model that is made in Python: it may be a key that was put in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True)
