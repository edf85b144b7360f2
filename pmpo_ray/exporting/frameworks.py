"""Prompts for the libraries DSPy and LangChain.

Invariant: the documents have the formats in which the libraries save prompts; the libraries are not imported.
"""

from __future__ import annotations

from collections.abc import Mapping

from pmpo_ray.exporting.prompts import ExportedPrompt, Turn
from pmpo_ray.exporting.quoting import Value, brace_quoted, json_document

_INPUT = "{input}"
_MESSAGES = {"system": ("SystemMessage", "system"), "user": ("HumanMessage", "human")} | {
    "assistant": ("AIMessage", "ai")
}


def dspy_state(prompt: ExportedPrompt) -> str:
    """The state that `dspy.Predict("input -> answer").load(FILE)` loads, with the shots as demonstrations.

    DSPy cleans every instruction like a docstring: it removes blank lines and white space around it, and the
    indentation that all lines except the first share.
    """
    return json_document(
        {
            "traces": [],
            "train": [],
            "demos": [{"input": shot.input, "answer": shot.target} for shot in prompt.shots],
            "signature": {
                "instructions": prompt.instruction,
                "fields": [
                    {"prefix": "Input:", "description": "${input}"},
                    {"prefix": "Answer:", "description": "${answer}"},
                ],
            },
            "lm": None,
            # No requirements on the versions of DSPy and its dependencies.
            "metadata": {"dependency_versions": {}},
        }
    )


def langchain_template(prompt: ExportedPrompt) -> str:
    """The template that `langchain_core.load.loads(TEXT, allowed_objects="core")` loads: a
    ChatPromptTemplate, or a PromptTemplate for a run in the plain layout. Its only variable is `input`."""
    if prompt.layout == "plain":
        before, after = prompt.running_text()
        return json_document(_template(brace_quoted(before) + _INPUT + brace_quoted(after)))
    *earlier, last = prompt.turns()
    question = _object(
        ("prompts", "chat", "HumanMessagePromptTemplate"),
        {"prompt": _template(brace_quoted(last.text) + _INPUT)},
    )
    return json_document(
        _object(
            ("prompts", "chat", "ChatPromptTemplate"),
            {"input_variables": ["input"], "messages": [*map(_message, earlier), question]},
        )
    )


def _message(turn: Turn) -> Value:
    # A message, unlike a message template, is not rendered.
    name, kind = _MESSAGES[turn.role]
    return _object(("schema", "messages", name), {"content": turn.text, "type": kind})


def _template(text: str) -> Value:
    return _object(
        ("prompts", "prompt", "PromptTemplate"),
        {"input_variables": ["input"], "template": text, "template_format": "f-string"},
    )


def _object(path: tuple[str, ...], arguments: Mapping[str, Value]) -> Value:
    return {"lc": 1, "type": "constructor", "id": ["langchain", *path], "kwargs": arguments}
