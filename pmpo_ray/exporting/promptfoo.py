"""A configuration for promptfoo, which runs prompts on examples and shows the outputs side by side.

Invariants: the prompt renders to the prompt that was optimised, with the variable `input` in its place. The
examples are training examples and are labelled as such; none of them has a text that promptfoo would
interpret as a template, a file or a package.
"""

from __future__ import annotations

import json
import re

from pmpo_ray.engines.conversation import PLAIN_END
from pmpo_ray.exporting.prompts import ExportedPrompt
from pmpo_ray.exporting.quoting import Value, expression_quoted, yaml_document
from pmpo_ray.types import Example

_EXAMPLES = 8
_LONGEST_ANSWER = 80
"""The length up to which a target is short enough to compare an output with it exactly, in characters."""
_LOCAL_SERVER = "http://localhost:8000/v1"
"""The default address of a model served by vLLM and by compatible servers."""
_INPUT = "{{ input }}"
_ADDRESS = re.compile(r"[A-Za-z]+:")
"""The beginning of a prompt that promptfoo might run or fetch instead ("exec:", "langfuse:")."""
_SPECIAL = re.compile(r"\A(?:file|package):|\A[a-z]+://|\{[{%#]|\n\Z")
"""Texts that promptfoo would load, render or cut."""
_HEAD = """\
# yaml-language-server: $schema=https://promptfoo.dev/config-schema.json
# Run it with: promptfoo eval -c THIS_FILE
# The provider is an example. The tests are training examples: before you compare prompts, replace them
# with examples that the optimisation did not see.
"""


def configuration(prompt: ExportedPrompt) -> str:
    """The file for `promptfoo eval -c FILE`."""
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
    *earlier, last = prompt.turns()
    messages = [{"role": turn.role, "content": expression_quoted(turn.text)} for turn in earlier]
    messages.append({"role": last.role, "content": expression_quoted(last.text) + _INPUT})
    # On several lines, because promptfoo would look for a file named like a single line.
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
    """The first examples that the prompt does not show and whose texts promptfoo does not interpret."""
    shown = {shot.input for shot in prompt.shots}
    ordinary = [
        example
        for example in prompt.history.examples
        if example.input not in shown
        and not any(map(_SPECIAL.search, (example.input, example.target, *example.also_right)))
    ]
    return ordinary[:_EXAMPLES]


def _test(number: int, example: Example) -> Value:
    test: dict[str, Value] = {
        "description": f"training example {number}",
        "vars": {"input": example.input},
        "metadata": {"part": "training"},
    }
    if "\n" not in example.target and len(example.target) <= _LONGEST_ANSWER:
        test["assert"] = [_assertion((example.target, *example.also_right))]
    return test


def _assertion(right: tuple[str, ...]) -> Value:
    """The assertion that an output equals one of the right answers."""
    equal: list[Value] = [{"type": "equals", "value": answer} for answer in right]
    return (
        equal[0] if len(equal) == 1 else {"type": "assert-set", "threshold": 1 / len(equal), "assert": equal}
    )
