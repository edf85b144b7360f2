"""The configuration of a run. It and its sections are the only place where defaults are defined.

Invariant: loading a configuration imports neither ray nor torch. configs/README.md documents every key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from pmpo_ray.config.base import Changeable, Fixed, NonNegative, Positive, Seconds, Section
from pmpo_ray.config.budget import BudgetConfig
from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig, ScorerConfig
from pmpo_ray.config.evaluation import EvaluationConfig
from pmpo_ray.config.messages import KeyPath, dotted, value_problem
from pmpo_ray.config.paths import DataPath
from pmpo_ray.config.search import PAPER, SearchConfig
from pmpo_ray.config.secrets import key_among_settings
from pmpo_ray.config.tasks import SplitConfig, TaskConfig
from pmpo_ray.config.tracking import TrackingConfig

PLACED = "placed"
"""The type of the validation errors that name their own place. Their context has the path and the problem."""


def _found(path: KeyPath, problem: str) -> PydanticCustomError:
    """The error about what stands at `path`."""
    return PydanticCustomError(
        PLACED, "{key}: {problem}", {"key": dotted(path), "problem": problem, "path": path}
    )


class RayConfig(Section):
    """The Ray cluster. `address` None: the cluster that RAY_ADDRESS names, else a local Ray of this process.

    Timeouts in seconds: `start_timeout` for a placed replica to load its model, `outage_timeout` for a pool
    without any working replica, `idle_timeout` for an idle surplus replica before it is removed.
    """

    address: str | None = None
    num_cpus: Positive | None = None
    num_gpus: NonNegative | None = None
    autoscaling: bool = False
    start_timeout: Seconds = 300.0
    outage_timeout: Seconds = 600.0
    idle_timeout: float = Field(default=60.0, ge=0, le=1e9)


USES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "choose": {"search": {"calibrate": "auto"}, "evaluation": {"method": "likelihood"}},
    "generate": {
        "search": {"objective": "cross_entropy", "calibrate": False},
        "evaluation": {"method": "generation"},
    },
}
"""What an application does with the instruction, and the settings of loss, calibration and evaluation for it:
it chooses the likeliest of given answers, or it lets the model write one."""


class RunConfig(Section):
    """One run: its tasks, models, search and run folder. `use` gives the settings of `USES` that are not
    named themselves. With a `grid` every task is optimised once for each of the grid's entries, which change
    `search`, over the same pools."""

    tasks: tuple[TaskConfig, ...] = Field(default=(TaskConfig(name="tickets"),), min_length=1)
    use: Literal["choose", "generate"] | None = None
    data_dir: Annotated[
        DataPath | None, Changeable("the same data may be in another place on another machine")
    ] = None
    model: str = DEFAULT_MODEL
    scorer: ScorerConfig = ScorerConfig()
    rewriter: RewriterConfig = RewriterConfig()
    search: SearchConfig = SearchConfig()
    grid: dict[str, dict[str, Any]] = Field(default_factory=dict)
    budget: Annotated[BudgetConfig, Changeable("a stopping rule: finished rounds stay as they are")] = (
        BudgetConfig()
    )
    split: SplitConfig = SplitConfig()
    evaluation: Annotated[EvaluationConfig, Fixed("all tasks of a run are evaluated in the same way")] = (
        EvaluationConfig()
    )
    ray: Annotated[RayConfig, Changeable("the place where the work runs does not change its outcome")] = (
        RayConfig()
    )
    tracking: Annotated[TrackingConfig, Changeable("following a run does not change its outcome")] = (
        TrackingConfig()
    )
    run_dir: Annotated[
        str | None, Changeable("the folder may have been moved, or be named by another path")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="before")
    @classmethod
    def _for_the_use(cls, value: Any) -> Any:
        """The settings of the use for all that is not set."""
        use = USES.get(str(value.get("use"))) if isinstance(value, dict) else None
        if use is None:
            return value
        sections = {}
        for name, settings in use.items():
            given = value.get(name, {})
            if isinstance(given, dict):
                # A preset that is named says more than the use.
                named = PAPER if name == "search" and given.get("preset") == "paper" else {}
                unnamed = {key: item for key, item in settings.items() if key not in named}
                sections[name] = {**unnamed, **given}
        return {**value, **sections}

    @model_validator(mode="after")
    def _distinct_tasks(self) -> RunConfig:
        counts = Counter(task.name for task in self.tasks)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"task {twice[0]!r} is named more than once; give each task its own name")
        return self

    @model_validator(mode="after")
    def _grid_of_searches(self) -> RunConfig:
        for name, changes in self.grid.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
                raise ValueError(f"grid: {name!r} should be a name of small letters, digits and hyphens")
            unknown = sorted(changes.keys() - SearchConfig.model_fields.keys())
            if unknown:
                raise _found(("grid", name, unknown[0]), "search has no such key")
            try:
                self._changed_search(changes)
            except ValidationError as error:
                detail = error.errors(include_url=False)[0]
                raise _found(("grid", name, *detail["loc"]), value_problem(detail)) from None
        return self

    @model_validator(mode="after")
    def _without_keys(self) -> RunConfig:
        found = key_among_settings(self)
        if found is not None:
            raise _found(*found)
        return self

    @model_validator(mode="after")
    def _one_model_in_both_roles(self) -> RunConfig:
        changed = self.rewriter.changed_replica_keys()
        if self.scorer.role == "both" and changed:
            raise ValueError(
                f"rewriter.{changed[0]} has no effect with scorer.role=both, where the scorer's replicas "
                "rewrite; leave it out"
            )
        if self.scorer.role == "both" and self.scorer.has_custom_engine:
            raise ValueError("scorer.role=both: a custom engine has one role; leave out the role")
        if self.scorer.role == "both" and not self.scorer.serves_both_roles:
            raise ValueError(
                "scorer.role=both needs an engine that runs in this run's replicas; give scorer and rewriter "
                "the same endpoint.url instead"
            )
        return self

    def searches(self) -> dict[str, SearchConfig]:
        """The search settings of each task, within the budget of the run, by the name of the grid's entry; ""
        without a grid."""
        changed = {name: self._changed_search(changes) for name, changes in self.grid.items()}
        return {name: self._limited(search) for name, search in (changed or {"": self.search}).items()}

    def _limited(self, search: SearchConfig) -> SearchConfig:
        """The settings with this search's part of the run's budget, where that is below its own limits."""
        budget = self.budget
        searches = len(self.tasks) * max(1, len(self.grid))
        tokens = [search.max_tokens, None if budget.max_tokens is None else budget.max_tokens // searches]
        seconds = [search.max_seconds, budget.max_seconds]
        limits = {
            "max_tokens": min((limit for limit in tokens if limit is not None), default=None),
            "max_seconds": min((limit for limit in seconds if limit is not None), default=None),
        }
        return search.model_copy(update=limits)

    def _changed_search(self, changes: dict[str, Any]) -> SearchConfig:
        preset = SearchConfig.of_preset(changes.get("preset"))
        return SearchConfig.model_validate(self.search.model_dump() | preset | changes, strict=True)

    def named_searches(self, task: str | None = None) -> dict[str, SearchConfig]:
        """The search settings of all tasks, or of one task, in the configuration's order. A search has the
        name of its task, or TASK.NAME for each entry of the grid."""
        variants = self.searches()
        return {
            self.search_name(settings.name, variant): search
            for settings in self.tasks
            if task in (None, settings.name)
            for variant, search in variants.items()
        }

    @staticmethod
    def search_name(task: str, variant: str) -> str:
        """The name of a task's search under an entry of the grid; `variant` is "" without a grid."""
        return f"{task}.{variant}" if variant else task

    @property
    def scorer_model(self) -> str:
        """The model that instructions are optimised for."""
        return self.scorer.model or self.model

    @property
    def rewriter_model(self) -> str:
        """The model that writes instructions."""
        return self.scorer_model if self.scorer.role == "both" else self.rewriter.model or self.model
