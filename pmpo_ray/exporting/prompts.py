"""The prompt that a search optimised, as parts from which the formats of all tools are made.

Invariants: turns and running text are those of `pmpo_ray.engines.conversation`, in the layout that the
run's scorer had; every text can be encoded as UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pmpo_ray.config.run import RunConfig
from pmpo_ray.engines.conversation import PLAIN_OUTPUT, chat_messages, running_text
from pmpo_ray.errors import DataError
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.prepared_task import tasks_from_python
from pmpo_ray.store import RunStore, data_hash
from pmpo_ray.tasks import load_task, split_task
from pmpo_ray.types import Example, Layout, Split, Task

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class ExportedPrompt:
    """A task's best instruction and the prompt around it. `url` is the address of the model's server, None if
    none is configured; `local` is true if the run loaded the model itself."""

    history: TaskHistory
    layout: Layout
    model: str
    local: bool
    url: str | None
    shots: tuple[Example, ...]

    @property
    def task(self) -> str:
        return self.history.task

    @property
    def instruction(self) -> str:
        return self.history.best.candidate.text

    def turns(self) -> tuple[Turn, ...]:
        """The messages of a chat. The last one is the user's: the input follows its text, which is empty if
        the message is the input alone."""
        messages = chat_messages(self.layout, self.instruction, self.shots, "")
        return tuple(Turn(cast(Role, one["role"]), one["content"]) for one in messages)

    def running_text(self) -> tuple[str, str]:
        """The text before and after the input in a prompt that a base model completes. Its answer begins with
        a space."""
        return running_text(self.instruction, self.shots), PLAIN_OUTPUT


def prompts_of(
    history: RunHistory, tasks: Sequence[TaskHistory], *, shots: bool
) -> tuple[ExportedPrompt, ...]:
    """The prompts of some tasks of a run, with or without their shots.

    Raises DataError or ConfigError if the run used shots that cannot be read any more, DataError for a text
    that is not valid Unicode.
    """
    for task in tasks:
        _check_unicode(task)
        if shots and len(task.demonstrations) < len(task.best.candidate.shots):
            raise DataError(
                f"{history.location}: examples.parquet of task {task.task} is lost or damaged, and with it "
                "the demonstrations of its best instruction; restore it, or export the instruction alone "
                "with --format text"
            )
    with_shots = shots and history.config.split.shots > 0
    data = data_of(history, [task.task for task in tasks]) if with_shots else {}
    scorer = history.manifest.scorer if history.manifest is not None else None
    config = history.config.scorer
    remote = config.engine == "openai" or (scorer is not None and scorer.engine == "openai")
    return tuple(
        ExportedPrompt(
            history=task,
            layout=_layout(scorer.layout if scorer is not None else config.layout),
            model=scorer.model if scorer is not None else config.model or history.config.model,
            local=not remote,
            url=config.endpoint.url if remote else None,
            shots=(
                *(data[task.task].split.shots if with_shots else ()),
                *(task.demonstrations if shots else ()),
            ),
        )
        for task in tasks
    )


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task with its parts."""

    task: Task
    split: Split


def data_of(history: RunHistory, names: Sequence[str]) -> Mapping[str, TaskData]:
    """The data of the searches called `names`, as the run split them. No code of the configuration is
    imported: the data that a function returned are those that the run folder keeps.

    Raises DataError or ConfigError if the data cannot be read, DataError if they have changed since the run.
    """
    config = history.config
    needed = tuple(task for task in config.tasks if set(config.named_searches(task.name)) & set(names))
    data: dict[str, TaskData] = {}
    try:
        chosen = config.model_copy(update={"tasks": needed})
        tasks = tasks_from_python(chosen, history.location, {}) | _from_functions(chosen, history.location)
        for settings in needed:
            task = tasks.get(settings.name) or load_task(settings, config.data_dir, config.seed)
            part = TaskData(task, split_task(task, config.split, config.seed))
            data |= dict.fromkeys(config.named_searches(settings.name), part)
    except DataError as error:
        raise DataError(
            f"{history.location}: this export needs the data of its tasks, and {error}"
        ) from error
    for name in names:
        known = history.manifest.data.get(name) if history.manifest is not None else None
        if known is not None and known != data_hash(data[name].task.examples):
            raise DataError(
                f"{history.location}: the data of task {name} have changed since the run; restore them, or "
                "export with --format text, which needs no data"
            )
    return data


def _from_functions(config: RunConfig, location: str) -> dict[str, Task]:
    """The kept tasks whose data a function returned."""
    store = RunStore.open(location)
    tasks: dict[str, Task] = {}
    for settings in config.tasks:
        if settings.function is not None:
            task = store.read_task(settings.name)
            if task is None:
                raise DataError(
                    f"those of task {settings.name} come from the function {settings.function}, which no "
                    "export calls; continue the run, which then keeps them, or export with --format text"
                )
            tasks[settings.name] = task
    return tasks


def _layout(named: str) -> Layout:
    # A run that was stopped before its model was loaded does not know; most chat models have a system turn.
    return cast(Layout, named) if named in ("system", "user", "plain") else "system"


def _check_unicode(task: TaskHistory) -> None:
    for shot in task.demonstrations:
        try:
            f"{shot.input}{shot.target}".encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"task {task.task}: row {shot.id}, a demonstration, has a lone surrogate, which cannot be "
                "written to a file; write the row as valid Unicode and run again"
            ) from error
    for scored in (task.start, task.best):
        try:
            scored.candidate.text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"task {task.task}: candidate {scored.candidate.id} has a lone surrogate, which cannot be "
                "written to a file; write the instruction as valid Unicode and run again"
            ) from error
