"""The gate: which texts may become candidates.

Invariants: a text that passes is new, says nothing verbatim about one training example, holds no markup of
ours or of a chat template, and can be written to any file; the same text always meets the same answer.
What the current instruction already holds is never held against its rewrite.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pmpo_ray.text import is_hidden
from pmpo_ray.types import Example

_COPIED_CHARS = 20
_COPIED_WORDS = 8
_COMMON = 3
"""A run of words that stands in this many examples is the task's own wording, not one example's."""

_REFUSAL = re.compile(
    r"\W*(?:(?:i am|i'm) (?:(?:very |so |really )?sorry|afraid|unable|not able|an? (?:ai|language model)\b)"
    r"|sorry,|(?:my )?apolog|i apologi[sz]e|as an? (?:ai|(?:large )?language model)\b"
    r"|i (?:can't|cannot|can not|won't|don't|do not|could not|couldn't)\b)"
)
_TAG = re.compile(
    r"</?\s*(?:prompt|mask|think|instruction|system|user|assistant|(?:start|end)_of_turn|[be]os|s|pad|unk)\b[^<>]*>"
    r"|<\|[^<>|]{1,40}\|>|\[/?inst\]|<</?sys>>"
)
_META_TALK = re.compile(
    r"\bhere(?:'s| is| are) (?:the|an?|my|your|some)\b[^.:]{0,40}\b(?:prompt|instruction|version|rewrite)s?\b"
    r"|\b(?:improved|revised|rewritten|updated|refined) (?:version|prompts?|instructions?)\b"
    r"|\brewrit(?:e|ing|ten) (?:of )?(?:the|this|your) (?:current |original )?(?:prompt|instruction)s?\b"
    r"|\bmask analysis\b|\bhard example\b|\bexpected (?:output|answer):|\bmeta-?prompt\b"
)


def normalise(text: str) -> str:
    """The text up to white space and case: equal results mean the same instruction."""
    return " ".join(text.split()).casefold()


def refusal_reason(
    text: str,
    *,
    known: Collection[str],
    examples: Sequence[Example],
    max_chars: int,
    allowed: str = "",
) -> str | None:
    """Why this text may not become a candidate, None where it may.

    `known` holds the normalised texts of every candidate so far (a set, for speed), `examples` are the
    training examples, `allowed` is the current instruction. A copy is an example's whole input of 20
    characters or more, or 8 words in a row from its input or target. The reason is a short stable phrase.
    """
    plain = normalise(text)
    current = normalise(allowed)
    if not any(char.isalnum() for char in plain):
        return "empty"
    if any(_is_control(char) for char in text):
        return "control characters"
    if len(text) > max_chars:
        return f"longer than {max_chars} characters"
    if plain in known:
        return "duplicate"
    straight, straight_current = plain.replace("’", "'"), current.replace("’", "'")
    if _REFUSAL.match(straight) and not _REFUSAL.match(straight_current):
        return "refusal"
    if _adds(_TAG, straight, straight_current):
        return "holds tags"
    if _adds(_META_TALK, straight, straight_current):
        return "talks about the prompt"
    copied = _copied_example(plain, current, examples)
    return None if copied is None else f"copies example {copied}"


def _adds(pattern: re.Pattern[str], text: str, current: str) -> bool:
    return any(match.group() not in current for match in pattern.finditer(text))


def _is_control(char: str) -> bool:
    if char in "\n\r\t":
        return False
    # U+FFFD is what remains of broken bytes.
    return is_hidden(char) or char == "\ufffd"


def _copied_example(plain: str, current: str, examples: Sequence[Example]) -> str | None:
    runs = _runs(plain) - _runs(current)
    if not _traces(tuple(examples)).may_be_in(plain, runs):
        return None
    holders: Counter[tuple[str, ...]] = Counter()
    shared: list[tuple[str, set[tuple[str, ...]]]] = []
    for example in examples:
        text = normalise(example.input)
        if len(text) >= _COPIED_CHARS and text in plain and text not in current:
            return example.id
        if runs:
            found = runs & (_runs(text) | _runs(normalise(example.target)))
            holders.update(found)
            shared.append((example.id, found))
    for name, found in shared:
        if any(holders[run] < _COMMON for run in found):
            return name
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Traces:
    """What a copy of one of many examples leaves in a text: a run of words (their hashes, sorted), or a short
    input as it is. 8 bytes for each word of the examples, where their runs would take a hundred."""

    runs: npt.NDArray[np.int64]
    short: tuple[str, ...]

    def may_be_in(self, plain: str, runs: Collection[tuple[str, ...]]) -> bool:
        """False only where nothing is copied."""
        if any(text in plain for text in self.short):
            return True
        wanted = _hashes(runs)
        return bool(
            len(self.runs) and (self.runs[self.runs.searchsorted(wanted) % len(self.runs)] == wanted).any()
        )


@lru_cache(maxsize=1024)
def _traces(examples: tuple[Example, ...]) -> _Traces:
    inputs = [normalise(example.input) for example in examples]
    targets = [normalise(example.target) for example in examples]
    runs = set().union(*map(_runs, inputs), *map(_runs, targets))
    # A longer input that is copied whole leaves a run, even if its first and last word grow together with
    # their neighbours.
    short = {text for text in inputs if len(text) >= _COPIED_CHARS and len(_words(text)) < _COPIED_WORDS + 2}
    return _Traces(np.unique(_hashes(runs)), tuple(sorted(short)))


def _hashes(runs: Collection[tuple[str, ...]]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, runs), np.int64, len(runs))


def _words(plain: str) -> list[str]:
    return re.findall(r"\w+", plain)


def _runs(plain: str) -> set[tuple[str, ...]]:
    """Every run of words in a normalised text, punctuation apart."""
    words = _words(plain)
    return set(zip(*(words[start:] for start in range(_COPIED_WORDS)), strict=False))
