"""The sections about tasks: their data, and the split of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from pmpo_ray.config.base import Changeable, NonNegative, Positive, Section
from pmpo_ray.config.import_paths import is_import_path
from pmpo_ray.config.messages import kind_of
from pmpo_ray.config.paths import DataPath
from pmpo_ray.text import normalise

_MOVED = "the same data may be in another place on another machine"
_MOST_STARTS = 1000
"""Start instructions, each of which is scored on all training rows before anything else."""


def fault_of_starts(texts: Sequence[str]) -> str | None:
    """What is wrong with several start instructions, with what to do; None if nothing is. A text without
    words is wrong, and so are two that differ only in white space and case."""
    if not texts:
        return "should have at least one text; leave it out for the task's own instruction"
    if len(texts) > _MOST_STARTS:
        return f"has {len(texts):,} texts; give at most {_MOST_STARTS:,}"
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            return f"text {number} of {len(texts)} should hold words; remove it"
        first = seen.setdefault(normalise(text), number)
        if first != number:
            but = "" if text == texts[first - 1] else " but for white space and case"
            return f"texts {first} and {number} of {len(texts)} are the same{but}; keep one"
    return None


class ColumnsConfig(Section):
    """The columns of a data file."""

    input: str = "input"
    target: str = "target"
    negatives: str | None = None
    weight: str | None = None


class TaskConfig(Section):
    """A task: the name of a registered one, or user data from a file, a hub data set, or a function that
    returns a Task or rows. With `given` the data were passed in Python, and the run folder keeps them.
    `labels` are names, or names with their meanings. `instruction` is one start instruction or several."""

    name: str = Field(min_length=1)
    path: Annotated[DataPath | None, Changeable(_MOVED)] = None
    hub: str | None = None
    hub_config: str | None = None
    hub_split: str = "train"
    function: str | None = None
    given: bool = False
    test_path: Annotated[DataPath | None, Changeable(_MOVED)] = None
    columns: ColumnsConfig = ColumnsConfig()
    labels: tuple[str, ...] | dict[str, str] | None = None
    instruction: str | tuple[str, ...] | None = None
    description: str | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _names_or_meanings(cls, value: object) -> object:
        """The check of both forms. Without it the error would be about the list alone."""
        if isinstance(value, Mapping):
            for label, meaning in value.items():
                if not isinstance(meaning, str) or not meaning.strip():
                    raise ValueError(
                        f"{label!r:.80} should have a meaning; give every label one, or list them"
                    )
            return dict(value)
        texts = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        if not (value is None or texts):
            raise ValueError("should be a list of texts, or a mapping from each to its meaning")
        return value

    @property
    def meanings(self) -> tuple[str, ...]:
        """What each label stands for, in the order of the labels; empty if that is not said."""
        if not isinstance(self.labels, dict):
            return ()
        return tuple(" ".join(meaning.split()).rstrip(".") for meaning in self.labels.values())

    @field_validator("instruction", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        """The check of both forms. Without it the error would be about the first of them alone. A list of one
        text is that text, so that a run continues with either."""
        if value is None:
            return None
        if isinstance(value, str):
            if not value.strip():
                raise ValueError("should hold words; leave it out for the task's own instruction")
            return value
        if not isinstance(value, list | tuple):
            raise ValueError(f"should be a text, or a list of texts, not {kind_of(value, ())}")
        for number, text in enumerate(value, start=1):
            if not isinstance(text, str):
                found = kind_of(text, ())
                raise ValueError(f"text {number} of {len(value)} is {found}: write a text, in quotes")
        if (fault := fault_of_starts(value)) is not None:
            raise ValueError(fault)
        return value[0] if len(value) == 1 else tuple(value)

    @property
    def instructions(self) -> tuple[str, ...]:
        """The start instructions that are set; empty for the task's own."""
        if self.instruction is None:
            return ()
        return (self.instruction,) if isinstance(self.instruction, str) else self.instruction

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> TaskConfig:
        if self.path is not None and self.hub is not None:
            raise ValueError("give either path or hub, not both")
        no_files = self.path is self.hub is self.test_path is None
        if self.given and not (no_files and self.function is None):
            raise ValueError("given=true names data from Python: leave out path, hub, function and test_path")
        if self.function is not None and not no_files:
            raise ValueError("a function provides all of the data: leave out path, hub and test_path")
        if self.function is not None and not is_import_path(self.function):
            raise ValueError(f"function: {self.function!r:.80} should be module:name")
        return self


class SplitConfig(Section):
    """The split of a task's examples (paper: 20%, at most 50, drawn at random). `train_fraction` None is a
    fifth or, if the data set defines a test part, all that no other part needs. `validation` examples are
    drawn after the training ones, to choose the final instruction on (paper: none); None is as many as the
    training examples where rows suffice, and none elsewhere."""

    train_fraction: float | None = Field(default=None, gt=0, le=1)
    train_max: Positive = 50
    shots: Annotated[NonNegative, Field(le=10_000)] = 0
    validation: NonNegative | None = None

    def train_share(self, examples: int, *, has_test: bool) -> float:
        """The number of `examples` that are for training, before it is limited and rounded."""
        if self.train_fraction is None and has_test:
            return examples - self.shots - (self.validation or 0)
        return (0.2 if self.train_fraction is None else self.train_fraction) * examples
