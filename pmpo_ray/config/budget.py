"""The section about the budget of a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from pmpo_ray.config.base import Seconds, Section

Level: TypeAlias = Literal["light", "medium", "heavy"]

TEXTS: Mapping[Level, int] = {"light": 30, "medium": 100, "heavy": 300}
"""The token limit of each search by level, in texts: scorings of the start instruction."""


class BudgetConfig(Section):
    """The budget of a run, in tokens that a bill would count, and in seconds. Each search gets an equal part
    of the tokens, and all of the seconds: searches run at the same time. `level` limits the tokens of each
    search in proportion to the size of its task (see `TEXTS`); the name of a level stands for a section with
    this key alone. Of several limits the lowest holds, those in `search` included."""

    level: Level | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=10**15)] = None
    max_seconds: Seconds | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """The section that the name of a level stands for."""
        if isinstance(value, str):
            return {"level": value}
        if isinstance(value, Mapping | BudgetConfig):
            return value
        raise ValueError("should be light, medium or heavy, or a section with keys")
