"""Token ids of texts in which only marked special tokens are special.

Invariants:
- The ids of a text are those that the model's tokenizer gives for the whole of it, except that special tokens
  are taken only where they are marked. A string such as "<|im_end|>" that is not marked is plain characters.
- How texts are cut, batched and remembered never changes their ids.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pmpo_ray.engines.answer_tree import Tokens, common_prefix

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_WINDOW = 256
"""Characters in front of a place that are tokenised again to learn what a text behind it changes there."""
_SETTLED = 12
"""Tokens of a window that must agree with those of the whole text before those behind them are believed."""
_KEPT_CHARACTERS = 4_000_000
"""Characters of the texts whose ids are remembered: with their ids about 50 MB."""


class TextTokens:
    """The token ids of one tokenizer.

    `mark` turns the text of a template into a marked text, in which each special token is replaced by a mark;
    contents that were put through `guard` before stay plain. A mark stands for the special token in a copy of
    the tokenizer, with its id and its properties, so that the tokenizer's own rules apply at the borders:
    blanks in front of a text, white space that a token takes along.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder
        special = {token.content: index for index, token in added.items() if token.special and token.content}
        # Letters, which no normaliser changes; unpredictable, so that no text contains them.
        mark, guard = random_word(), random_word()
        self._marks = {content: f"{mark}{_letters(index)}x" for content, index in special.items()}
        self._guards = {content: f"{guard}{_letters(index)}x" for content, index in special.items()}
        self._guarded = {word: content for content, word in self._guards.items()}
        self._special = _any_of(special)
        # Some vocabularies add runs of white space, which end nothing.
        self._added = _any_of([token.content for token in added.values() if token.content.strip()])
        self._guard = re.compile(f"{guard}[a-p]+x")
        self._mark = re.compile(f"({mark}[a-p]+x)")
        self._indexes = {self._marks[content]: index for content, index in special.items()}
        self._contents = {word: content for content, word in self._marks.items()}
        self._tokenizer = tokenizer
        self._copy = _marking_copy(tokenizer, self._marks) if tokenizer.is_fast else None
        self._known: dict[str, Tokens] = {}
        self._known_characters = 0

    def guard(self, content: str) -> str:
        """The content without any special token; `mark` restores them as plain text."""
        return self._special.sub(lambda found: self._guards[found[0]], content)

    def mark(self, text: str) -> str:
        """The marked text of a template's text with guarded contents."""
        marked = self._special.sub(lambda found: self._marks[found[0]], text)
        return self._guard.sub(lambda found: self._guarded.get(found[0], found[0]), marked)

    def up_to_added(self, text: str) -> str | None:
        """A template's text up to its first special or other added token, inclusive; None without one."""
        found = self._added.search(text)
        return None if found is None else text[: found.end()]

    def last_mark(self, text: str) -> str:
        """A marked text from its last mark on; the whole text without one."""
        return text[max((found.start() for found in self._mark.finditer(text)), default=0) :]

    def ids(self, text: str) -> Tokens:
        """The ids of a marked text, without a beginning-of-sequence token that it does not show."""
        return self.ids_of_all([text])[0]

    def ids_of_all(self, texts: Sequence[str]) -> list[Tokens]:
        """The ids of several marked texts, in their order."""
        found = {text: self._known[text] for text in texts if text in self._known}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        new = dict(zip(missing, self._encode(missing), strict=True))
        self._known_characters += sum(map(len, new))
        if self._known_characters > _KEPT_CHARACTERS:
            self._known.clear()
            self._known_characters = 0
        else:
            self._known |= new
        found |= new
        return [found[text] for text in texts]

    def ids_behind_mark(self, text: str) -> Tokens:
        """The ids of a text that stands behind a special token; without any, those of the text alone."""
        mark = next(iter(self._indexes), None)
        return self.ids(text) if mark is None else self.ids(mark + text)[1:]

    def continued(self, head: str, tails: Sequence[str]) -> list[Tokens]:
        """The ids of `head + tail` for each tail. What they share is tokenised once where that gives the
        same."""
        rest = self.last_mark(head)
        fixed = head.removesuffix(rest)
        long = len(rest) > 2 * _WINDOW and len(tails) > 2
        ids = self._settled(rest, tails) if long else self.ids_of_all([rest + tail for tail in tails])
        if not fixed:
            return ids
        # A token in front of the mark may depend on it, or the mark on what is in front of it.
        first = self.ids(fixed)
        if self._encode([head + tails[0]])[0] != first + ids[0]:
            return self._encode([head + tail for tail in tails])
        return [first + part for part in ids]

    def _settled(self, head: str, tails: Sequence[str]) -> list[Tokens]:
        """As `continued`, for a long head without a mark inside. The end of the head is tokenised with every
        tail; where its ids have settled to those of the whole text, they are believed."""
        whole = self._encode([head + tails[0]])[0]
        windows = self._encode([head[-_WINDOW:] + tail for tail in tails])
        same = common_prefix(whole[::-1], windows[0][::-1])
        start = len(windows[0]) - same
        settled = windows[0][start : start + _SETTLED]
        agree = [window[start : start + _SETTLED] == settled for window in windows]
        # Longer than any tail's influence, and inside the head, or else each text is tokenised whole.
        believed = len(settled) == _SETTLED and len(windows[0]) - len(self.ids(tails[0])) > start + _SETTLED
        again = [index for index, agrees in enumerate(agree) if not (agrees and believed)]
        repeated = dict(zip(again, self._encode([head + tails[index] for index in again]), strict=True))
        before = whole[: len(whole) - same]
        return [repeated.get(index) or before + window[start:] for index, window in enumerate(windows)]

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        if self._copy is None:
            return [self._encode_parts(text) for text in texts]
        encoded = self._copy.encode_batch_fast(texts, add_special_tokens=False)
        return [self._with_marks(text, tuple(one.ids)) for text, one in zip(texts, encoded, strict=True)]

    def _with_marks(self, text: str, ids: Tokens) -> Tokens:
        """The ids of a text. A special token whose properties hide it from the tokenizer itself at its place,
        such as `single_word`, stays plain text there, or is put in where other special tokens are plain."""
        marks = self._mark.findall(text)
        meant = {self._indexes[word] for word in marks}
        if len(marks) == sum(index in meant for index in ids):
            return ids
        restored = self._mark.sub(lambda found: self._contents[found[0]], text)
        if len(marks) < len(self._special.findall(restored)):
            return self._encode_parts(text)
        return tuple(self._tokenizer(restored, add_special_tokens=False)["input_ids"])

    def _encode_parts(self, text: str) -> Tokens:
        """The ids by a tokenizer that is written in Python, which itself tokenises the parts between special
        tokens one by one."""
        ids: list[int] = []
        for part in filter(None, self._mark.split(text)):
            if part in self._indexes:
                ids.append(self._indexes[part])
            else:
                ids += self._tokenizer(part, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(ids)


def _marking_copy(tokenizer: PreTrainedTokenizerBase, marks: Mapping[str, str]) -> Tokenizer:
    """The tokenizer with marks in place of its special tokens, also in the vocabulary of its model: some
    models would find the special tokens there in plain text."""
    from tokenizers import Tokenizer

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in document["added_tokens"]:
        token["content"] = marks.get(token["content"], token["content"])
    model = document["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {marks.get(piece, piece): index for piece, index in vocabulary.items()}
    else:
        model["vocab"] = [[marks.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in marks:
        model["unk_token"] = marks[model["unk_token"]]
    document |= {"post_processor": None, "padding": None, "truncation": None}
    return Tokenizer.from_str(json.dumps(document))


def _any_of(words: Collection[str]) -> re.Pattern[str]:
    """A pattern for the longest of `words` at a place; it finds nothing without words."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")


def random_word() -> str:
    """A word of letters that no text contains."""
    return "q" + secrets.token_hex(12).translate(_TO_LETTERS) + "z"


def _letters(number: int) -> str:
    return f"{number:x}".translate(_TO_LETTERS)


_TO_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
