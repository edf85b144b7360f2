"""Prompts for libraries that programs are built with: DSPy and LangChain.

Always true: nothing here imports them. The documents have the forms that their own savers write.
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
    """What `dspy.Predict("input -> answer").load(FILE)` takes, the shots as its demonstrations.

    DSPy tidies every instruction like a docstring: it drops blank lines and white space around it, and the
    indentation that all lines but the first share.
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
            # Versions of DSPy that one need not have.
            "metadata": {"dependency_versions": {}},
        }
    )


def langchain_template(prompt: ExportedPrompt) -> str:
    """What `langchain_core.load.loads(TEXT, allowed_objects="core")` takes: a ChatPromptTemplate, or a
    PromptTemplate for a run in the plain layout. Its only variable is `input`."""
    if prompt.layout == "plain":
        before, after = prompt.running_text()
        return json_document(_template(brace_quoted(before) + _INPUT + brace_quoted(after)))
    *told, last = prompt.turns()
    asked = _object(
        ("prompts", "chat", "HumanMessagePromptTemplate"),
        {"prompt": _template(brace_quoted(last.text) + _INPUT)},
    )
    return json_document(
        _object(
            ("prompts", "chat", "ChatPromptTemplate"),
            {"input_variables": ["input"], "messages": [*(_message(turn) for turn in told), asked]},
        )
    )


def _message(turn: Turn) -> Value:
    # A message, unlike a template of one, stands as it is.
    name, kind = _MESSAGES[turn.role]
    return _object(("schema", "messages", name), {"content": turn.text, "type": kind})


def _template(text: str) -> Value:
    return _object(
        ("prompts", "prompt", "PromptTemplate"),
        {"input_variables": ["input"], "template": text, "template_format": "f-string"},
    )


def _object(path: tuple[str, ...], arguments: Mapping[str, Value]) -> Value:
    return {"lc": 1, "type": "constructor", "id": ["langchain", *path], "kwargs": arguments}
