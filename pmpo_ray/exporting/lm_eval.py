"""Tasks for lm-evaluation-harness, with the test part of each task next to its configuration.

Invariants: the folder can be moved, because rows are found next to the code that reads them. The harness gets
rows as data, and the instruction as a template that renders to it. The test part is that of the run, so
accuracies of the harness and of the run refer to the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pmpo_ray.engines.conversation import PLAIN_END, PLAIN_INPUT, PLAIN_OUTPUT
from pmpo_ray.errors import DataError
from pmpo_ray.evaluation.answers.reader import AnswerReader
from pmpo_ray.exporting.prompts import ExportedPrompt, TaskData, data_of
from pmpo_ray.exporting.quoting import Value, expression_quoted, json_line, yaml_document
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.store import task_folder
from pmpo_ray.types import Example

_INPUT, _CHOICES, _ANSWER = _COLUMNS = ("input", "choices", "answer")
_READER = "pmpo_rows.py"
_READER_CODE = '''\
"""Rows of the exported tasks in this folder, for lm-evaluation-harness."""

import json
from pathlib import Path

from datasets import Dataset


def rows(file, **_):
    """The test part in `file`, which is next to this code."""
    with Path(__file__).with_name(file).open(encoding="utf-8", newline="\\n") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}
'''
_ENDS = ("</s>", "<|im_end|>", "<|eot_id|>")
"""Ends of a chat model's turn; without any, the harness would cut replies at their first empty line."""
_PATTERNS: Mapping[Literal["number", "letter"], str] = {
    "number": r"(-?\d[\d,]*(?:\.\d+)?)",
    "letter": r"\(([A-Z])\)",
}
"""Patterns whose last match in a reply is its answer, by the kind of answer."""


def task_files(history: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> dict[str, str]:
    """TASK.yaml and TASK.jsonl for each task, and the code that reads the latter.

    Raises DataError or ConfigError if the data cannot be read, DataError for an empty test part.
    """
    data = data_of(history, [prompt.task for prompt in prompts])
    files = {_READER: _READER_CODE}
    for prompt in prompts:
        task_data, name = data[prompt.task], task_folder(prompt.task)
        if not task_data.split.test:
            raise DataError(
                f"{history.location}: task {prompt.task} has no test part to evaluate on; "
                "lower split.train_fraction or split.validation and run again, or choose another format"
            )
        part = _part(task_data)
        files[f"{name}.jsonl"] = "".join(json_line(row) for row in part.rows)
        files[f"{name}.yaml"] = _configuration(prompt, part, f"pmpo_{name}", f"{name}.jsonl")
    return files


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a test part. `answers` is their kind: one of several choices, or text that is searched for
    in a reply."""

    rows: Sequence[Value]
    answers: Literal["choice", "number", "letter", "text"]


def _part(data: TaskData) -> _Part:
    test = data.split.test
    if data.task.kind != "text" and all(example.negatives for example in test):
        return _Part([_choice_row(example) for example in test], "choice")
    reader = AnswerReader(data.task)
    kinds = {reader.kind(example) for example in test}
    for kind in _PATTERNS:
        if kinds == {kind}:
            return _Part([_row(example, reader.canonical_target(example)) for example in test], kind)
    return _Part([_row(example, example.target) for example in test], "text")


def _choice_row(example: Example) -> Value:
    # In alphabetical order, so that the right answer does not win a tie.
    choices = sorted({example.target, *example.negatives})
    return {_INPUT: example.input, _CHOICES: choices, _ANSWER: choices.index(example.target)}


def _row(example: Example, answer: str) -> Value:
    return {_INPUT: example.input, _ANSWER: answer}


def _configuration(prompt: ExportedPrompt, part: _Part, name: str, data: str) -> str:
    plain = prompt.layout == "plain"
    document: dict[str, Value] = {
        "task": name,
        "tag": "pmpo",
        "dataset_kwargs": {"file": data},
        "test_split": "test",
        **_texts(prompt),
        "doc_to_target": _ANSWER,
        "target_delimiter": " " if plain else "",
        "fewshot_delimiter": PLAIN_END,
        "num_fewshot": len(prompt.shots),
        **(_by_choice() if part.answers == "choice" else _by_reply(part, plain=plain)),
        "metadata": {"version": 1},
    }
    flags = "" if plain else " --apply_chat_template --fewshot_as_multiturn true"
    return (
        f"# Run it with: lm-eval run --tasks {name} --include_path THIS_FOLDER{flags} ...\n"
        "# The tag pmpo names all exported tasks of a folder.\n"
        f"{yaml_document(document)}custom_dataset: !function {_READER.removesuffix('.py')}.rows\n"
    )


def _texts(prompt: ExportedPrompt) -> dict[str, Value]:
    """The settings that build the prompt around a row's input."""
    texts: dict[str, Value]
    if prompt.layout == "plain":
        texts = {
            "description": expression_quoted(prompt.instruction + PLAIN_END),
            "doc_to_text": f"{PLAIN_INPUT}{{{{ {_INPUT} }}}}{PLAIN_OUTPUT}",
        }
        shots = [(shot.input, shot.target) for shot in prompt.shots]
    else:
        *earlier, last = prompt.turns()
        texts = {"description": _description(earlier.pop(0).text)} if prompt.layout == "system" else {}
        head = expression_quoted(last.text)
        texts["doc_to_text"] = f"{head}{{{{ {_INPUT} }}}}" if head else _INPUT
        shots = [(user.text, reply.text) for user, reply in zip(earlier[::2], earlier[1::2], strict=True)]
    if shots:
        texts["fewshot_config"] = {
            "sampler": "first_n",
            "samples": [{_INPUT: text, _CHOICES: [answer], _ANSWER: answer} for text, answer in shots],
        }
    return texts


def _description(instruction: str) -> str:
    # The harness would replace a text that equals a column's name by the column.
    return f"{{{{ '{instruction}' }}}}" if instruction in _COLUMNS else expression_quoted(instruction)


def _by_choice() -> dict[str, Value]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": _CHOICES,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _by_reply(part: _Part, *, plain: bool) -> dict[str, Value]:
    settings: dict[str, Value] = {
        "output_type": "generate_until",
        "generation_kwargs": {
            "until": [PLAIN_END] if plain else list(_ENDS),
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": 1024,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "ignore_punctuation": True,
            }
        ],
    }
    for kind, pattern in _PATTERNS.items():
        if part.answers == kind:
            last_match: Value = {"function": "regex", "group_select": -1, "regex_pattern": pattern}
            settings["filter_list"] = [
                {"name": f"last_{kind}", "filter": [last_match, {"function": "take_first"}]}
            ]
    return settings
