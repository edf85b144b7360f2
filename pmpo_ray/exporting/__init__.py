"""The optimised instructions of a run in the forms that other tools load.

Always true: what a tool makes of an export is the instruction that was optimised, character for character,
with the input and the shots where the search had them. Texts from models and data are quoted for the
language they are written into: no template, file name or code in them has any effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pmpo_ray.exporting import documents, frameworks, lm_eval, openai_bodies, promptfoo
from pmpo_ray.exporting.prompts import ExportedPrompt, prompts_of
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.store import task_folder

Form = Literal["text", "json", "yaml", "dspy", "langchain", "promptfoo", "lm-eval", "openai"]
Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Format:
    """How a format is written, and whether its text shows the shots, which are read from the task's data."""

    write: Callable[[RunHistory, tuple[ExportedPrompt, ...]], Files]
    shots: bool = True


def export(history: RunHistory, task: str | None, form: Form) -> Files:
    """The texts of the files of an export by their names; one that is alone is a document of its own.

    Without `task` all tasks with a finished round are exported:

    - text, dspy, langchain, promptfoo: a file for each task, named after it
    - json, yaml: one document with all of them
    - openai: a request body; for several tasks an input file of the batch interface, a line each
    - lm-eval: for each task its configuration and its test part, and the code that reads such a part

    Shots, where the run showed some, and the test part for lm-eval are read from the data of the task.

    Raises RunFolderError for a task that the run does not have, DataError or ConfigError where the data are
    needed and cannot be read or are others than the run saw, and DataError for texts that are no Unicode.
    """
    chosen = history.tasks if task is None else (history.task(task),)
    described = _FORMATS[form]
    return described.write(history, prompts_of(history, chosen, shots=described.shots))


def _a_file_each(
    suffix: str, document: Callable[[ExportedPrompt], str]
) -> Callable[[RunHistory, tuple[ExportedPrompt, ...]], Files]:
    def write(_: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> Files:
        return {f"{task_folder(prompt.task)}.{suffix}": document(prompt) for prompt in prompts}

    return write


def _instruction(prompt: ExportedPrompt) -> str:
    return prompt.instruction


_FORMATS: Mapping[Form, _Format] = {
    "text": _Format(_a_file_each("txt", _instruction), shots=False),
    "json": _Format(documents.as_json),
    "yaml": _Format(documents.as_yaml),
    "dspy": _Format(_a_file_each("json", frameworks.dspy_state)),
    "langchain": _Format(_a_file_each("json", frameworks.langchain_template)),
    "promptfoo": _Format(_a_file_each("yaml", promptfoo.configuration)),
    "lm-eval": _Format(lm_eval.task_files),
    "openai": _Format(openai_bodies.request_bodies),
}
