"""The gate: which texts may become candidates.

Invariants: a text that passes is new, quotes no single training example, contains no tag of the meta-prompts
or of a chat template and no character that a reader cannot see, and can be written to any file. The same text
always gets the same verdict. A rewrite is never refused for a passage of the current instruction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

from pmpo_ray.text import is_hidden, normalise
from pmpo_ray.thoughts import THOUGHT_TAG
from pmpo_ray.types import Example

EMPTY = "empty"
DUPLICATE = "duplicate"
HIDDEN = "hidden or broken characters"
"""Reasons that are the same for every task."""
NOT_RELEVANT = "hardly likelier for this task than without one"
"""The reason why a text is refused that was read by the scorer (see `relevance`)."""
_COPIED_CHARS = 20
_COPIED_WORDS = 8
_COMMON = 3
"""A run of words that occurs in this many examples is the wording of the task, not of one example."""

_REFUSAL = re.compile(
    r"\W*(?:(?:i am|i'm) (?:(?:very |so |really )?sorry|afraid|unable|not able|an? (?:ai|language model)\b)"
    r"|sorry,|(?:my )?apolog|i apologi[sz]e|as an? (?:ai|(?:large )?language model)\b"
    r"|i (?:can't|cannot|can not|won't|don't|do not|could not|couldn't)\b)"
)
_TAG = re.compile(
    r"</?\s*(?:prompt|mask|instruction|system|user|assistant|(?:start|end)_of_turn|[be]os|s|pad|unk)\b[^<>]*>"
    rf"|<\|[^<>|]{{1,40}}\|>|\[/?inst\]|<</?sys>>|{THOUGHT_TAG}"
)
_META_TALK = re.compile(
    r"\bhere(?:'s| is| are) (?:the|an?|my|your|some)\b[^.:]{0,40}\b(?:prompt|instruction|version|rewrite)s?\b"
    r"|\b(?:improved|revised|rewritten|updated|refined) (?:version|prompts?|instructions?)\b"
    r"|\brewrit(?:e|ing|ten) (?:of )?(?:the|this|your) (?:current |original )?(?:prompt|instruction)s?\b"
    r"|\bmask analysis\b|\bhard example\b|\bexpected (?:output|answer):|\bmeta-?prompt\b"
)


def identity(text: str, shots: Sequence[str] = ()) -> str:
    """What a candidate is known by: its normalised text and the ids of its demonstrations, in their order."""
    return "\n".join((normalise(text), *shots))


def refusal_reason(
    text: str,
    *,
    shots: Sequence[str] = (),
    known: Collection[str],
    examples: Sequence[Example],
    max_chars: int,
    allowed: str = "",
) -> str | None:
    """The reason why this text may not become a candidate, a short stable phrase; None if it may.

    `shots` are the ids of its demonstrations, `known` holds the identities of all candidates so far (a set,
    for speed), `examples` are the training examples, `allowed` is the current instruction. A copy is the
    whole input of an example, if it has 20 characters or more, or 8 words in a row from its input or target.
    """
    plain = normalise(text)
    current = normalise(allowed)
    if not any(char.isalnum() for char in plain):
        return EMPTY
    if any(_is_hidden_or_broken(char) for char in text):
        return HIDDEN
    if len(text) > max_chars:
        return f"longer than {max_chars} characters"
    if identity(text, shots) in known:
        return DUPLICATE
    straight, straight_current = plain.replace("’", "'"), current.replace("’", "'")
    if _REFUSAL.match(straight) and not _REFUSAL.match(straight_current):
        return "refusal"
    if adds(_TAG, straight, straight_current):
        return "holds tags"
    if adds(_META_TALK, straight, straight_current):
        return "talks about the prompt"
    copied = _copied_example(plain, current, examples)
    return None if copied is None else f"copies example {copied}"


def adds(pattern: re.Pattern[str], text: str, current: str) -> bool:
    """True if the pattern matches a passage that is not in the current instruction."""
    return any(match.group().strip() not in current for match in pattern.finditer(text))


def _is_hidden_or_broken(char: str) -> bool:
    if char in "\n\r\t":
        return False
    # A decoder writes U+FFFD in place of broken bytes.
    return is_hidden(char) or char == "\ufffd"


def _copied_example(plain: str, current: str, examples: Sequence[Example]) -> str | None:
    """The id of the first example that the text copies from, None for none."""
    runs = _runs(plain) - _runs(current)
    holders: Counter[str] = Counter()
    copied: list[tuple[str, list[str]]] = []
    for example, (text, words) in zip(examples, _wordings(tuple(examples)), strict=True):
        if len(text) >= _COPIED_CHARS and text in plain and text not in current:
            return example.id
        held = [run for run in runs if run in words]
        holders.update(held)
        copied.append((example.id, held))
    for name, held in copied:
        if any(holders[run] < _COMMON for run in held):
            return name
    return None


@lru_cache(maxsize=1024)
def _wordings(examples: tuple[Example, ...]) -> tuple[tuple[str, str], ...]:
    """For each example its normalised input, and the words of its input and of its target, a line each."""
    wordings = []
    for example in examples:
        text = normalise(example.input)
        words = f" {' '.join(_words(text))} \n {' '.join(_words(normalise(example.target)))} "
        wordings.append((text, words))
    return tuple(wordings)


def _words(plain: str) -> list[str]:
    return re.findall(r"\w+", plain)


def _runs(plain: str) -> set[str]:
    """Every run of words in a normalised text, without punctuation, between spaces."""
    words = _words(plain)
    starts = range(len(words) - _COPIED_WORDS + 1)
    return {f" {' '.join(words[start : start + _COPIED_WORDS])} " for start in starts}
