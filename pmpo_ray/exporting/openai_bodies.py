"""Request bodies for OpenAI-compatible servers.

Invariants: the last "{{input}}" of a body is the place of the input, whatever the instruction contains. A run
in the plain layout has bodies for completions, the others have bodies for chat completions.
"""

from __future__ import annotations

from pmpo_ray.engines.conversation import PLAIN_END
from pmpo_ray.exporting.prompts import ExportedPrompt
from pmpo_ray.exporting.quoting import Value, json_document, json_line
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.store import task_folder

INPUT = "{{input}}"


def request_bodies(_: RunHistory, prompts: tuple[ExportedPrompt, ...]) -> dict[str, str]:
    """One body, or for several tasks an input file of the batch API, whose lines have tasks as their ids."""
    if len(prompts) == 1:
        return {f"{task_folder(prompts[0].task)}.json": json_document(_body(prompts[0]))}
    lines = (
        {
            "custom_id": prompt.task,
            "method": "POST",
            "url": "/v1/completions" if prompt.layout == "plain" else "/v1/chat/completions",
            "body": _body(prompt),
        }
        for prompt in prompts
    )
    return {"requests.jsonl": "".join(json_line(line) for line in lines)}


def _body(prompt: ExportedPrompt) -> Value:
    if prompt.layout == "plain":
        before, after = prompt.running_text()
        return {
            "model": prompt.model,
            "prompt": before + INPUT + after,
            "stop": [PLAIN_END],
            "temperature": 0,
        }
    *earlier, last = prompt.turns()
    messages: list[Value] = [{"role": turn.role, "content": turn.text} for turn in earlier]
    messages.append({"role": last.role, "content": last.text + INPUT})
    return {"model": prompt.model, "messages": messages, "temperature": 0}
