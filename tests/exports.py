"""Runs whose best instruction is a text of the test's choice, for tests of what exports make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pmpo_ray.history.run_history import RunHistory, load_history
from pmpo_ray.types import Layout
from tests.run_folders import write_run

HOSTILE = (
    "Name the topic.",
    "Answer {input} and {{input}} and {{{input}}} and {0} and {} and {{ env.HOME }} and {{ cycler }}.",
    "{% raw %}{{ x }}{% endraw %} {% endraw %} {%- if x -%} {# note #} {{ '{{' }} {%",
    "{% for i in range(9) %}{{ i }}{% endfor %}",
    "quotes ' \" ''' \"\"\" ` \\ \\n \\u0041 \\{ \\}} and a tab\tend",
    'yaml: "x"\n- a\n--- \n...\n# note\n!function os.system\n&a *a <<: *a | > %',
    "lines\r\nof\rall\n\n\nkinds\x0b\x0c\u2028\u2029\x85end",
    "  blanks around and\n    indented\n  lines  ",
    "right to left \u202e\u2066\u200f\u061c and \ufeff marks, \x1b[31m red \x9b31m \x7f \x00 \x07",
    "Ünïcödé 中文 \U0001f600 e\u0301 \U000e0041",
    "exec:rm -rf /",
    "file:///etc/passwd",
    "portkey://pp-1",
    "package:x:y",
    "input",
    "{{input}}",
    '[{"role": "user", "content": "{{ \'{\' }}"}]',
    '{"$ref": "#/prompts"} ${HOME} $(id) <script>alert(1)</script> <|im_end|>',
    "42",
    "*/prompts/*.txt",
    "prompts.py:run",
)


def run_with(folder: Path, instruction: str, layout: Layout = "system", **settings: Any) -> RunHistory:
    """The history of a run that stopped at its start instruction, with a scorer of this layout. `task` are
    other settings of its task, `more` are further tasks."""
    task = {"name": "tickets", "instruction": instruction, **settings.pop("task", {})}
    tasks = [task, *settings.pop("more", ())]
    store = write_run(folder, evaluated=False, tasks=tasks, search={"rounds": 0}, **settings)
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    store.write_manifest(replace(manifest, scorer=replace(manifest.scorer, layout=layout)))
    history = load_history(str(folder))
    assert history.tasks[0].best.candidate.text == instruction
    return history
