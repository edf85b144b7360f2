"""The workloads: deterministic, from real data.

Invariants: a workload is a list of requests, a request the items of one instruction, as the optimiser asks
for them; every contestant gets the same token ids; equal data give equal workloads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.scoring.instructions import INSTRUCTIONS, PARENT, candidates
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.engines.answer_tree import Item
from pmpo_ray.engines.prompt_encoder import LayoutSetting, PromptEncoder
from pmpo_ray.errors import ConfigError
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.negatives import with_hard_negatives
from pmpo_ray.types import Example, ScoreRequest, Task

Request = tuple[Item, ...]

WINDOW_MODEL = "google/gemma-3-270m"
_ORDERING = "bbh/logical_deduction_five_objects"
# Options of several numbers, yes or no, and free text, about as frequent as among the 27 tasks of BBH.
_ROUND = (
    ("bbh/logical_deduction_seven_objects", 9),
    ("bbh/date_understanding", 9),
    ("bbh/disambiguation_qa", 8),
    ("bbh/navigate", 8),
    ("bbh/formal_fallacies", 8),
    ("bbh/word_sorting", 8),
)
_FURTHER_OPTIONS = ("(F)", "(G)", "(H)", "(I)", "(J)")
# Eight solved questions are more than 1,000 tokens: twice the window of the model they are for.
_LONG_SHOTS = 8

_CANDIDATES = 50

NAMES = (
    "small",
    "options",
    "options2",
    "round",
    "solutions",
    "labels",
    "window_small",
    "window_long",
    "precision",
)


@dataclass(frozen=True, slots=True)
class Texts:
    """A workload before it is tokenised: every instruction is scored on every example.

    `closed` False leaves out the end-of-turn token behind an answer.
    """

    model: str
    instructions: tuple[str, ...]
    examples: tuple[Example, ...]
    shots: tuple[Example, ...] = ()
    layout: LayoutSetting = "auto"
    closed: bool = True

    def score_requests(self) -> tuple[ScoreRequest, ...]:
        """The workload as scorers take it."""
        return tuple(ScoreRequest(text, self.examples, self.shots) for text in self.instructions)


@dataclass(frozen=True, slots=True)
class Workload:
    """The input of the contestants: the requests as token ids, and the model that reads them."""

    name: str
    model: str
    requests: tuple[Request, ...]

    @property
    def triples(self) -> int:
        """The number of triples (instruction, input, answer)."""
        return sum(len(item.answers) for request in self.requests for item in request)

    def cut(self, requests: int, items: int) -> Workload:
        """The first `items` items of the first `requests` requests."""
        return replace(self, requests=tuple(request[:items] for request in self.requests[:requests]))


def default_data_dir() -> Path:
    """The folder of the benchmark files: the one that PMPO_DATA_DIR names, else shared/data next to the
    project."""
    named = os.environ.get("PMPO_DATA_DIR")
    return Path(named) if named else Path(__file__).parents[3] / "shared" / "data"


def workload_texts(name: str, data_dir: Path) -> Texts:
    """The texts of the workload `name`.

    Raises ConfigError for an unknown name, DataError where its data is missing.
    """
    if name in ("small", "options", "options2"):
        examples = _task(_ORDERING, data_dir).examples[:16]
        if name == "options2":
            examples = tuple(_with_more_options(example) for example in examples)
        return Texts(DEFAULT_MODEL, (PARENT,) if name == "small" else INSTRUCTIONS, examples)
    if name == "round":
        parts = [_with_negatives(_task(task, data_dir), count) for task, count in _ROUND]
        return Texts(DEFAULT_MODEL, INSTRUCTIONS, tuple(example for part in parts for example in part))
    if name == "solutions":
        task = _task("gsm8k", data_dir)
        return Texts(DEFAULT_MODEL, (task.instruction,), _with_negatives(task, 40))
    if name == "labels":
        task = _task("sst2", data_dir)
        return Texts(DEFAULT_MODEL, (task.instruction,), task.examples[:200], closed=False)
    if name == "precision":
        task = _task("bbh/navigate", data_dir)
        return Texts(DEFAULT_MODEL, candidates(_CANDIDATES), task.examples[:50])
    if name in ("window_small", "window_long"):
        examples = _task(_ORDERING, data_dir).examples
        shots = examples[16 : 16 + _LONG_SHOTS] if name == "window_long" else ()
        return Texts(WINDOW_MODEL, (PARENT,), examples[:16], shots, layout="plain")
    raise ConfigError(f"workload {name!r}: there is none of this name; choose one of {', '.join(NAMES)}")


def encode(name: str, texts: Texts, encoder: PromptEncoder) -> Workload:
    """The workload as token ids."""
    requests = tuple(
        tuple(encoder.items(instruction, texts.shots, texts.examples, closed=texts.closed))
        for instruction in texts.instructions
    )
    return Workload(name, texts.model, requests)


def _with_more_options(example: Example) -> Example:
    return replace(example, negatives=(*example.negatives, *_FURTHER_OPTIONS))


def _with_negatives(task: Task, count: int) -> tuple[Example, ...]:
    """The first `count` examples of a task; free text has negatives only where they are asked for."""
    return with_hard_negatives(task, task.examples[:count], 0)


def _task(name: str, data_dir: Path) -> Task:
    return load_task(TaskConfig(name=name), str(data_dir), 0)
