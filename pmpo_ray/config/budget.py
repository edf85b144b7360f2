"""The section about the budget of a whole run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pmpo_ray.config.base import Seconds, Section


class BudgetConfig(Section):
    """The budget of a run, in tokens that a bill would count, and in seconds. Each search gets an equal part
    of the tokens, and all of the seconds: searches run at the same time. Its limits in `search` remain."""

    max_tokens: Annotated[int | None, Field(ge=1, le=10**15)] = None
    max_seconds: Seconds | None = None
