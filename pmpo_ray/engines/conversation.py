"""Conversations: the instruction, the demonstrations and the input of a prompt as messages or running text.

Invariants: every engine, and every export, shows a prompt as the same conversation; an empty instruction adds
nothing to it, so that what stands there is what the model's own template shows without a system turn.
"""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.types import Example, Layout

Message = dict[str, str]
"""A message of a chat template: its role and its content."""

PLAIN_INPUT = "Input: "
PLAIN_OUTPUT = "\nOutput:"
PLAIN_END = "\n\n"
USER_GAP = "\n\n"
"""Text between the instruction and the input if both are in the user's turn."""


def chat_messages(layout: Layout, instruction: str, shots: Sequence[Example], prompt: str) -> list[Message]:
    """The messages up to the user's last one. `layout` is "system", or "user": the instruction stands at the
    head of the first user turn."""
    head = instruction + USER_GAP if instruction and layout == "user" else ""
    messages = [message("system", instruction)] if instruction and layout == "system" else []
    for shot in shots:
        messages += [message("user", head + shot.input), message("assistant", shot.target)]
        head = ""
    return [*messages, message("user", head + prompt)]


def message(role: str, content: str) -> Message:
    """One message."""
    return {"role": role, "content": content}


def running_text(instruction: str, shots: Sequence[Example]) -> str:
    """The layout "plain" up to the input, which PLAIN_OUTPUT follows; its answer begins with a space and ends
    with PLAIN_END."""
    shown = "".join(f"{PLAIN_INPUT}{shot.input}{PLAIN_OUTPUT} {shot.target}{PLAIN_END}" for shot in shots)
    return (instruction + PLAIN_END if instruction else "") + shown + PLAIN_INPUT
