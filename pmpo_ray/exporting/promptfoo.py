"""A configuration for promptfoo, which runs prompts over examples and shows the outputs side by side.

Always true: the prompt renders to the prompt that was optimised with the variable `input` in its place. The
examples are training examples and say so; what promptfoo would take for a template, a file or a package is
left out of them.
"""

from __future__ import annotations

import json
import re

from pmpo_ray.engines.prompt_encoder import PLAIN_END
from pmpo_ray.exporting.prompts import ExportedPrompt
from pmpo_ray.exporting.quoting import Value, expression_quoted, yaml_document
from pmpo_ray.types import Example

_EXAMPLES = 8
_LONGEST_ANSWER = 80
"""Characters of a target that an output can be expected to equal."""
_LOCAL_SERVER = "http://localhost:8000/v1"
"""Where vLLM, and what follows it, serves a model unless told otherwise."""
_INPUT = "{{ input }}"
_ADDRESS = re.compile(r"[A-Za-z]+:")
"""The beginning of a prompt that promptfoo might run or fetch instead ("exec:", "langfuse:")."""
_MEANT = re.compile(r"\A(?:file|package):|\A[a-z]+://|\{[{%#]|\n\Z")
"""What promptfoo would load, render or cut."""
_HEAD = """\
# yaml-language-server: $schema=https://promptfoo.dev/config-schema.json
# Run it with: promptfoo eval -c THIS_FILE
# The provider is an example. The tests are training examples: replace them with examples that the
# optimisation did not see before you compare prompts.
"""


def configuration(prompt: ExportedPrompt) -> str:
    """The file that `promptfoo eval -c FILE` takes."""
    tests = [_test(number, example) for number, example in enumerate(_shown(prompt), start=1)]
    return _HEAD + yaml_document(
        {
            "description": "Optimised instruction",
            "prompts": [{"label": "optimised", "raw": _prompt(prompt)}],
            "providers": [_provider(prompt)],
            "defaultTest": {"options": {"transform": "output.trim()"}},
            "tests": tests or [{"vars": {"input": "Replace this with an input."}}],
        }
    )


def _prompt(prompt: ExportedPrompt) -> str:
    if prompt.layout == "plain":
        before, after = (expression_quoted(text) for text in prompt.running_text())
        guard = "{{ '' }}" if _ADDRESS.match(before) else ""
        return guard + before + _INPUT + after
    *told, last = prompt.turns()
    messages = [{"role": turn.role, "content": expression_quoted(turn.text)} for turn in told]
    messages.append({"role": last.role, "content": expression_quoted(last.text) + _INPUT})
    # On several lines, or promptfoo would look for a file of this name.
    return json.dumps(messages, ensure_ascii=False, indent=2)


def _provider(prompt: ExportedPrompt) -> Value:
    plain = prompt.layout == "plain"
    settings: dict[str, Value] = {"temperature": 0}
    if prompt.local or prompt.url is not None:
        settings["apiBaseUrl"] = prompt.url or _LOCAL_SERVER
    if plain:
        settings["stop"] = [PLAIN_END]
    return {"id": f"openai:{'completion' if plain else 'chat'}:{prompt.model}", "config": settings}


def _shown(prompt: ExportedPrompt) -> list[Example]:
    """The first examples that promptfoo takes as they are."""
    ordinary = [
        example
        for example in prompt.history.examples
        if not _MEANT.search(example.input) and not _MEANT.search(example.target)
    ]
    return ordinary[:_EXAMPLES]


def _test(number: int, example: Example) -> Value:
    test: dict[str, Value] = {
        "description": f"training example {number}",
        "vars": {"input": example.input},
        "metadata": {"part": "training"},
    }
    if "\n" not in example.target and len(example.target) <= _LONGEST_ANSWER:
        test["assert"] = [{"type": "equals", "value": example.target}]
    return test
