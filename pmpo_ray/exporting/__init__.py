"""The optimised instructions of a run in the formats of other tools.

Invariants: a tool that loads an export gets exactly the instruction that was optimised, with the input and
the shots where the search had them. Texts from models and data are quoted for the language of the export, so
no template, file name or code in them has any effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pmpo_ray.exporting import documents, frameworks, lm_eval, openai_bodies, promptfoo
from pmpo_ray.exporting.prompts import ExportedPrompt, prompts_of
from pmpo_ray.history.run_history import RunHistory, TaskHistory
from pmpo_ray.store import task_folder

Form = Literal["text", "json", "yaml", "dspy", "langchain", "promptfoo", "lm-eval", "openai"]
Files = Mapping[str, str]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Format:
    """A writer, if its files contain the shots, which are read from the task's data, and if they contain the
    constants of calibrated choices."""

    write: Callable[[RunHistory, tuple[ExportedPrompt, ...]], Files]
    shots: bool = True
    biases: bool = False


def export(history: RunHistory, task: str | None, form: Form) -> Files:
    """The files of an export: their contents by name.

    `task` is the task to export, None for all tasks with a finished round:

    - text, dspy, langchain, promptfoo: one file for each task, named after it
    - json, yaml: one document with all tasks
    - openai: a request body; for several tasks an input file of the batch API, with one line for each
    - lm-eval: for each task its configuration and its test part, and the code that reads a test part

    Shots of every prompt, if the run used any, and the test part for lm-eval are read from the data of the
    task; the demonstrations that belong to an instruction, from the run folder.

    Raises RunFolderError for a task that the run does not have, DataError or ConfigError if needed data
    cannot be read or have changed since the run, and DataError for texts that are not valid Unicode.
    """
    chosen = history.tasks if task is None else (history.task(task),)
    chosen_format = _FORMATS[form]
    if not chosen_format.shots:
        _report_left_out(history, chosen, form)
    if not chosen_format.biases:
        _report_uncalibrated(chosen, form)
    return chosen_format.write(history, prompts_of(history, chosen, shots=chosen_format.shots))


def _report_left_out(history: RunHistory, tasks: Sequence[TaskHistory], form: Form) -> None:
    for task in tasks:
        left_out = history.config.split.shots + len(task.best.candidate.shots)
        if left_out:
            _log.warning(
                "task %s: --format %s leaves out the demonstrations (%d) that the instruction was optimised "
                "with; --format json has them",
                task.task,
                form,
                left_out,
            )


def _report_uncalibrated(tasks: Sequence[TaskHistory], form: Form) -> None:
    for task in tasks:
        if task.biases:
            _log.warning(
                "task %s: its accuracy is that of calibrated choices, and --format %s has no place for their "
                "constants; --format json has them: choose the answer with the highest log-likelihood less "
                "its bias",
                task.task,
                form,
            )


def _file_per_task(
    suffix: str, document: Callable[[ExportedPrompt], str]
) -> Callable[[RunHistory, tuple[ExportedPrompt, ...]], Files]:
    def write(_: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> Files:
        return {f"{task_folder(prompt.task)}.{suffix}": document(prompt) for prompt in prompts}

    return write


def _instruction(prompt: ExportedPrompt) -> str:
    return prompt.instruction


_FORMATS: Mapping[Form, _Format] = {
    "text": _Format(_file_per_task("txt", _instruction), shots=False),
    "json": _Format(documents.as_json, biases=True),
    "yaml": _Format(documents.as_yaml, biases=True),
    "dspy": _Format(_file_per_task("json", frameworks.dspy_state)),
    "langchain": _Format(_file_per_task("json", frameworks.langchain_template)),
    "promptfoo": _Format(_file_per_task("yaml", promptfoo.configuration)),
    "lm-eval": _Format(lm_eval.task_files),
    "openai": _Format(openai_bodies.request_bodies),
}
