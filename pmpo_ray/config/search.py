"""The section about the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pmpo_ray.config.base import (
    Calibrate,
    Changeable,
    NonNegative,
    Positive,
    Seconds,
    Section,
    name_or_path,
    true_false_or,
)
from pmpo_ray.config.import_paths import is_import_path
from pmpo_ray.types import WRITING_OPERATORS

OBJECTIVES = ("auto", "cross_entropy", "preference", "listwise")
"""The names of the built-in objectives."""

OPERATORS = (*WRITING_OPERATORS, "compose")
"""The names of the built-in operators that `search.operators` may hold."""
AUTO_OPERATORS = ("rewrite", "compose")
"""What "auto" stands for, unless the rewriter is too small to write instructions."""

HARD_CASES = ("highest_loss", "balanced", "random", "rewarding")
"""The names of the built-in rules for hard cases."""

PAPER: Mapping[str, Any] = {
    "rounds": 20,
    "hard_examples": 3,
    "variants": 4,
    "population": 1,
    "masking": "model",
    "mask_mode": "drop",
    "demonstrations": 0,
    "hard_cases": "highest_loss",
    "operators": ("rewrite",),
    "calibrate": False,
    "bandit": False,
    "racing": None,
    "sense": False,
    "relevance": None,
    "readability": None,
    "reasks": 0,
    "patience": None,
}
"""The settings of the preset "paper": Algorithm 1."""

_STOPPING_RULE = Changeable("a stopping rule: finished rounds stay as they are")


class SearchConfig(Section):
    """The settings of the method. `preset` gives the settings that are not named themselves. `operators`
    propose instructions ("auto": AUTO_OPERATORS, without those that write in tasks with labels whose
    rewriter is small); masking and demonstrations have their own settings. `demonstrations` is the most
    training examples that a candidate shows (0: none). `per_token` divides log-likelihoods by the number of
    tokens (None: in the cross-entropy of free text alone). `sense` refuses texts that are no instructions,
    also rewrites that the task's description makes less than `relevance` nats per token likelier.
    `readability` weighs the surprisal of a text behind that description, in nats per token, beside its loss
    (None: candidates are ranked by the loss alone). With `bandit` the operators whose candidates lowered the
    loss propose more of the next ones.
    `racing` is the level at which a candidate that is worse on some of the examples is not scored on the
    rest. `calibrate` subtracts from each answer's log-likelihood its log-likelihood after inputs without
    content (true) or its mean over the training inputs (inputs), in tasks with a closed set of answers;
    "auto" is "inputs" in tasks whose answers are such a set and are chosen by likelihood, and nothing in
    others. The defaults are those of `preset: best`."""

    preset: Literal["best", "paper"] = "best"
    rounds: Annotated[NonNegative, Field(le=1_000_000), _STOPPING_RULE] = 20
    hard_examples: Annotated[Positive, Field(le=10_000)] = 3
    variants: Annotated[Positive, Field(le=1000)] = 4
    population: Annotated[Positive, Field(le=1000)] = 1
    max_siblings: Positive | None = None
    masking: Literal["model", "rules", "off"] = "model"
    mask_mode: Literal["drop", "token"] = "drop"
    mask_token: str = "[MASK]"
    max_segments: Annotated[Positive, Field(le=1000)] = 5
    hard_cases: Annotated[str, name_or_path(HARD_CASES, "a rule")] = "highest_loss"
    objective: Annotated[str, name_or_path(OBJECTIVES, "an objective")] = "auto"
    operators: tuple[str, ...] | Literal["auto"] = "auto"
    demonstrations: Annotated[NonNegative, Field(le=1000)] = 4
    bandit: bool = True
    beta: float = Field(default=1.0, gt=0, le=1e6)
    per_token: bool | None = None
    calibrate: Annotated[Calibrate | Literal["auto"], true_false_or("inputs", "auto")] = "auto"
    meta_prompt: Literal["auto", "long", "short"] = "auto"
    max_instruction_chars: Annotated[Positive, Field(le=1_000_000)] = 4000
    racing: float | None = Field(default=0.2, gt=0, le=0.5)
    sense: bool = True
    relevance: Annotated[float, Field(gt=0, le=100)] | None = 0.6
    readability: Annotated[float, Field(gt=0, le=100)] | None = None
    reasks: Annotated[NonNegative, Field(le=100)] = 1
    patience: Annotated[Positive | None, _STOPPING_RULE] = None
    target_loss: Annotated[float | None, _STOPPING_RULE] = None
    max_tokens: Annotated[int | None, _STOPPING_RULE] = Field(default=None, ge=1, le=10**15)
    max_seconds: Annotated[Seconds | None, _STOPPING_RULE] = None

    @property
    def calibrates(self) -> Calibrate:
        """The calibration that `calibrate` names; none for "auto", which has to be resolved for a task."""
        return False if self.calibrate == "auto" else self.calibrate

    @property
    def named_operators(self) -> tuple[str, ...]:
        """The operators that `operators` names; none for "auto", which has to be resolved for a rewriter."""
        return () if self.operators == "auto" else self.operators

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, value: Any) -> Any:
        """The configurations of run folders have the key that `hard_cases` replaced."""
        if isinstance(value, dict) and isinstance(value.get("hard_case_selection"), bool):
            kept = {key: item for key, item in value.items() if key != "hard_case_selection"}
            return {"hard_cases": "highest_loss" if value["hard_case_selection"] else "random", **kept}
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_the_preset(cls, value: Any) -> Any:
        """The settings of the preset for all that is not set."""
        return {**PAPER, **value} if isinstance(value, dict) and value.get("preset") == "paper" else value

    @classmethod
    def of_preset(cls, preset: object) -> dict[str, Any]:
        """The settings that a preset chooses; none for anything that is no preset."""
        defaults = {key: cls.model_fields[key].default for key in PAPER}
        return {"best": defaults, "paper": dict(PAPER)}.get(str(preset), {})

    @field_validator("operators", mode="before")
    @classmethod
    def _auto_or_names(cls, value: object) -> object:
        """The check of both forms. Without it the error would be about the list alone."""
        if value == "auto":
            return value
        if not isinstance(value, list | tuple):
            raise ValueError("should be auto, or a list of names such as [rewrite, compose]")
        for operator in value:
            # Functions and classes that are passed in Python are import paths by now.
            if not isinstance(operator, str):
                raise ValueError(
                    f"{operator!r:.80} should be a name such as compose, module:name of a custom operator, "
                    "or in Python a class or a function made with def"
                )
        return value

    @field_validator("operators")
    @classmethod
    def _known_or_custom(cls, value: tuple[str, ...] | Literal["auto"]) -> tuple[str, ...] | Literal["auto"]:
        if value == "auto":
            return value
        for operator in value:
            if operator not in OPERATORS and not is_import_path(operator):
                names = ", ".join(OPERATORS)
                raise ValueError(f"{operator!r:.80} should be {names}, or module:name of a custom operator")
        if len(set(value)) < len(value):
            raise ValueError("an operator is named twice; name each once")
        return value
