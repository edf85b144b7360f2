"""The instructions that an evaluation compares: a run's first and best, free baselines, and the user's.

Invariant: within a task every name stands for one instruction; the names of the run's instructions and of the
baselines are reserved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.config.evaluation import Baseline
from pmpo_ray.config.instruction_files import Instruction, instruction_text
from pmpo_ray.errors import ConfigError
from pmpo_ray.evaluation.conditions import BEST, START
from pmpo_ray.tasks.benchmarks import STEP_BY_STEP
from pmpo_ray.types import RoundRecord, Task

BASELINES: Mapping[Baseline, str | None] = {
    "answer_only": "Give the answer and nothing else.",
    "step_by_step": STEP_BY_STEP,
    "rephrase": (
        "First say the question again in your own words, with whatever it leaves unsaid. Then answer it."
    ),
    "step_back": (
        "First take a step back: name the general rule, principle or fact that the question rests on. "
        "Then use it to find the answer."
    ),
    "description": None,
}
"""The paper's baselines (AO, CoT, RaR, Step-Back) and the plain description of the task. They are free: they
need no optimisation."""


@dataclass(frozen=True, slots=True)
class NamedInstruction:
    """An instruction with its name. `free` is True if it needed no optimisation. `train_loss` is its loss on
    the training part in nats, if the run scored it."""

    name: str
    instruction: str
    free: bool = False
    train_loss: float | None = None


def configured_instructions(
    instructions: Mapping[str, Instruction], task: str, folder: Path
) -> list[NamedInstruction]:
    """The instructions of `evaluation.instructions` for a task. Each is a text, or maps tasks to texts. Run
    folders of earlier versions name files as @PATH; these have to be below `folder`.

    Raises ConfigError for a reserved name, a file that may not or cannot be read, and an empty text.
    """
    named = []
    for name, text in instructions.items():
        key = f"evaluation.instructions.{name}"
        if name in (START, BEST, *BASELINES):
            raise ConfigError(f"{key}: the name {name!r} is reserved; choose another")
        found: Instruction = instruction_text(text, key, folder)
        instruction = found.get(task) if isinstance(found, dict) else found.removeprefix("@")
        if instruction is not None:
            if not instruction.strip():
                raise ConfigError(f"{key}: the instruction is empty; write one, or remove the key")
            named.append(NamedInstruction(name, instruction))
    return named


def baselines(names: Sequence[Baseline], task: Task) -> list[NamedInstruction]:
    """The free baselines of a task."""
    return [NamedInstruction(name, BASELINES[name] or task.description, free=True) for name in names]


def run_instructions(
    records: Sequence[RoundRecord], start: str, best: str, *, every_candidate: bool
) -> list[NamedInstruction]:
    """The start and the best instruction of a run; with `every_candidate` also its other scored candidates,
    named by their ids."""
    losses: dict[str, float] = {}
    others: list[NamedInstruction] = []
    for record in records:
        for scored in record.candidates:
            text = scored.candidate.text
            if text not in losses:
                losses[text] = scored.loss
                if text not in (start, best):
                    others.append(NamedInstruction(scored.candidate.id, text, train_loss=scored.loss))
    named = [
        NamedInstruction(START, start, free=True, train_loss=losses.get(start)),
        NamedInstruction(BEST, best, train_loss=losses.get(best)),
    ]
    return named + others if every_candidate else named
