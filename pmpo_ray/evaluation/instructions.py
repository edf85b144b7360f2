"""The instructions that an evaluation compares: a run's starts and best, free baselines, and the user's.

Invariant: within a task every name stands for one instruction; the names of the run's instructions and of the
baselines are reserved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pmpo_ray.config.evaluation import Baseline
from pmpo_ray.config.instruction_files import Instruction, instruction_text
from pmpo_ray.errors import ConfigError
from pmpo_ray.evaluation.conditions import BEST, names_a_start, start_name
from pmpo_ray.tasks.benchmarks import STEP_BY_STEP
from pmpo_ray.types import RoundRecord, ScoredCandidate, Task

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
    the training part in nats, if the run scored it. `shots` are ids of training examples: the demonstrations
    that belong to it."""

    name: str
    instruction: str
    free: bool = False
    train_loss: float | None = None
    shots: tuple[str, ...] = ()


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
        if names_a_start(name) or name in (BEST, *BASELINES):
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


def starts_of(task: Task) -> list[NamedInstruction]:
    """The instructions that a task starts from."""
    return [
        NamedInstruction(start_name(number), text, free=True)
        for number, text in enumerate(task.instructions, start=1)
    ]


def run_instructions(
    records: Sequence[RoundRecord], best: ScoredCandidate, *, every_candidate: bool
) -> list[NamedInstruction]:
    """The first start, the best instruction and the further starts of a run; with `every_candidate` also its
    other scored candidates, named by their ids. Each has its own demonstrations."""
    start, *further = (
        replace(_named(start_name(number), scored), free=True)
        for number, scored in enumerate(records[0].candidates, start=1)
    )
    named = [start, _named(BEST, best), *further]
    seen = {(one.instruction, one.shots) for one in named}
    for record in records if every_candidate else ():
        for scored in record.candidates:
            other = _named(scored.candidate.id, scored)
            if (other.instruction, other.shots) not in seen:
                seen.add((other.instruction, other.shots))
                named.append(other)
    return named


def _named(name: str, scored: ScoredCandidate) -> NamedInstruction:
    candidate = scored.candidate
    # A loss on some of the examples cannot be compared with the others.
    loss = None if scored.left else scored.loss
    return NamedInstruction(name, candidate.text, train_loss=loss, shots=candidate.shots)
