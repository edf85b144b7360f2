"""The text in front of an answer: a template's generation prompt, compared with what the template shows.

Invariant: an answer stands where the template itself shows one. White space that it shows there belongs to
the answer, since tokenizers join it to the first word; a header is taken along; a thought that the generation
prompt opens is closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pmpo_ray.text import excerpt

_OPENED = re.compile(r"(?:<([^<>/|\s]+)>|\[([A-Z_]+)\]|◁([^◁▷/\s]+)▷)\s*$")
"""A tag that a text leaves open at its end, such as <think>, [THINK] or ◁think▷."""


def header_and_lead(asked: str, shown: str, close: Callable[[str], str]) -> tuple[str, str]:
    """The text between the input and an answer, and the white space at the answer's beginning.

    `asked` is the generation prompt, `shown` what the template shows in front of an assistant's content, both
    from the input on. `close` gives the text that closes the thought that `asked` opens.
    """
    if shown.startswith(asked):
        extra = shown[len(asked) :]
        return (asked, extra) if extra and not extra.strip() else _without_blanks(shown)
    if asked.startswith(shown):
        extra = asked[len(shown) :]
        if _OPENED.search(extra):
            return asked + close(asked), ""
        # An empty thought, for example, which the template leaves out of earlier turns.
        return _without_blanks(asked if extra.strip() else shown)
    return _without_blanks(shown)


def closing_tag(asked: str) -> str:
    """The usual end of an empty thought that `asked` opens."""
    found = _OPENED.search(asked)
    if found is None:
        return ""
    angle, square, arrow = found.groups()
    tag = f"</{angle}>" if angle else f"[/{square}]" if square else f"◁/{arrow}▷"
    return ("\n" if asked.endswith("\n") else "\n\n") + tag + "\n\n"


def header_note(asked: str, header: str) -> str:
    """A line for the user where answers are rated behind more than the generation prompt; empty elsewhere."""
    added = header.removeprefix(asked)
    if added == header or not added.strip():
        return ""
    if found := _OPENED.search(asked):
        return (
            f"the model reasons before it answers (its generation prompt opens {found[0].strip()}), but "
            "answers are scored without reasoning, behind a thought that is closed at once"
        )
    return (
        f"answers are scored behind {excerpt(added, 60)}, which the chat template shows in front of an "
        "answer and its generation prompt leaves to the model"
    )


def _without_blanks(text: str) -> tuple[str, str]:
    kept = text.rstrip(" \t")
    return kept, text[len(kept) :]
