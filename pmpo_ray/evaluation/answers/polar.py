"""Answers to a yes-no question in the question's own words: "Elanor lies" to "Does Elanor tell the truth?".

Invariants: only a main clause that has all words of the question, in their order, and none besides is an
answer, so a condition, a doubt, a report of what somebody says, and a statement about another subject are
none; clauses that contradict each other are no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pmpo_ray.evaluation.answers.marks import Mark, Reader, first_sentence, plain

_AUXILIARIES = (
    "does|do|did|is|are|was|were|can|could|will|would|should|has|have|had|must|may|might|am|be|being|been"
)
_QUESTION = re.compile(
    rf"(?:\A|[.!?:,\n\"”]\s{{0,3}})(?:{_AUXILIARIES})\s{{1,3}}([^?\n]{{3,200}}?)(?:[?:]|\Z)", re.IGNORECASE
)
_SENTENCE = re.compile(r"[^.!?\n]{1,400}[.!?\n]?")
_BREAK = re.compile(
    r"[,;:—]\s|\b(?:therefore|thus|hence|which means|this means|that means)\b|(?<!says )(?<!said )\bso\b"
)
_NO_CLAIM = re.compile(
    r"\b(?:if|unless|whether|suppose|supposing|assume|assuming|provided|case|option|maybe|perhaps|question|asks?"
    r"|or|either|might|may)\b"
)
_REPORT = re.compile(r"\b(?:says?|said|claims?|claimed|states?|tells us)\b(?P<last>[\s\"']*\Z)?")
_JOINED = re.compile(r"\s*(?:and|but)\b")
_REASON = re.compile(r"\s*(?:because|since|as|for|given|when|after|while)\b")
_OPENING = re.compile(
    r"(?:\s|\b(?:so|therefore|thus|hence|then|that|and|but|in fact|indeed|finally|overall|in conclusion"
    r"|we can|we|i|conclude|see|think|believe|it follows|this means|that means|which means)\b)*"
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_LEFT_OUT = frozenset(
    {"the", "a", "an", "this", "that", "these", "those", "following", "given", "above", "also", "really"}
)
_PRONOUNS = frozenset({"it", "he", "she", "they", "you", "we", "one"})
_NOT = frozenset({"not", "never", "cannot"})
_STEMS = {
    "lying": "li",
    "lied": "li",
    "liar": "li",
    "told": "tell",
    "truthful": "truth",
    "truthfully": "truth",
}
_OPPOSITES = (
    (("li",), ("tell", "truth")),
    (("tell", "li"), ("tell", "truth")),
    (("fals",), ("tru",)),
    (("wrong",), ("right",)),
)
_PREFIXES = ("un", "in", "im", "ir", "il", "non")


class PolarQuestion:
    """The last yes-no question of an input."""

    def __init__(self, text: str) -> None:
        matches = list(_QUESTION.finditer(text))
        words = _words(matches[-1].group(1)) if matches else []
        self._words = [] if _NOT & set(words) else words

    def answer(self, reply: str) -> bool | None:
        """True for yes, False for no, None for a reply that answers in other words or in none."""
        if len(self._words) < 2:
            return None
        found = {
            value
            for sentence in _SENTENCE.finditer(plain(reply).replace("’", "'"))
            if (value := self._of_sentence(sentence.group().lower())) is not None
        }
        return found.pop() if len(found) == 1 else None

    def _of_sentence(self, sentence: str) -> bool | None:
        """The answer of a sentence: that of its last clause that is no reason."""
        if sentence.endswith("?") or _NO_CLAIM.search(sentence):
            return None
        clauses = [clause for clause in _BREAK.split(sentence) if clause.strip(" .!\n")]
        while len(clauses) > 1 and _REASON.match(clauses[-1]):
            clauses.pop()
        if not clauses:
            return None
        report = _REPORT.search(clauses[-2]) if len(clauses) > 1 else None
        if report is not None and (report["last"] is not None or _JOINED.match(clauses[-1])):
            return None
        return self._of_words(_words(_OPENING.sub("", clauses[-1], count=1)))

    def _of_words(self, words: Sequence[str]) -> bool | None:
        negated = bool(_NOT & set(words))
        stated = [word for word in words if word not in _NOT and word not in _AUXILIARIES.split("|")]
        asked = [word for word in self._words if word not in _AUXILIARIES.split("|")]
        if stated[:1] != asked[:1]:
            if not stated or stated[0] not in _PRONOUNS:
                return None
            stated = [asked[0], *stated[1:]]
        for wording, opposite in _wordings(asked):
            if len(stated) == len(wording) and all(map(_same, stated, wording)):
                return negated == opposite
        for number, (word, other) in enumerate(zip(stated, asked, strict=False)):
            if any(word == prefix + other for prefix in _PREFIXES) and len(other) > 3:
                rest = [*stated[:number], other, *stated[number + 1 :]]
                return negated if len(rest) == len(asked) and all(map(_same, rest, asked)) else None
        return None


class PolarLabels:
    """Reads labels that mean yes and no, also in the words of the question. `yes` and `no` are the labels."""

    def __init__(self, labels: Reader, question: PolarQuestion, yes: str, no: str) -> None:
        self._labels = labels
        self._question = question
        self._yes = yes
        self._no = no

    def marked(self, mark: Mark) -> str | None:
        answer = self._labels.marked(mark)
        return self._own_words(first_sentence(mark.text)) if answer is None else answer

    def unmarked(self, reply: str) -> str | None:
        return self._labels.unmarked(reply) or self._own_words(reply)

    def _own_words(self, text: str) -> str | None:
        answer = self._question.answer(text)
        return None if answer is None else self._yes if answer else self._no


def answering(text: str, labels: Sequence[str], reader: Reader) -> Reader:
    """`reader`, which also reads answers in the words of the input `text` if its labels are yes and no, or
    true and false."""
    meanings = {label.strip().casefold(): label for label in labels}
    for yes, no in (("yes", "no"), ("true", "false")):
        if set(meanings) == {yes, no}:
            return PolarLabels(reader, PolarQuestion(text), meanings[yes], meanings[no])
    return reader


def _wordings(asked: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """The wordings of a statement that answers: the question's own, and those with an opposite at the end
    (True)."""
    yield list(asked), False
    stems = [_stem(word) for word in asked]
    for pair in _OPPOSITES:
        for words, others in (pair, pair[::-1]):
            if tuple(stems[-len(words) :]) == words:
                yield [*asked[: -len(words)], *others], True


def _words(text: str) -> list[str]:
    """The words of a text in lower case, without articles; "n't" is a word of its own."""
    words: list[str] = []
    for match in _WORD.finditer(text.lower().replace("’", "'")):
        word = match.group()
        if word.endswith("n't"):
            words += [word.removesuffix("n't"), "not"]
        elif word not in _LEFT_OUT:
            words.append(word)
    return [word for word in words if word not in ("ca", "wo", "cannot")] + (
        ["not"] if "cannot" in words else []
    )


def _same(word: str, other: str) -> bool:
    return word == other or _stem(word) == _stem(other)


def _stem(word: str) -> str:
    if word in _STEMS:
        return _STEMS[word]
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) > 2 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    return word.removesuffix("e")
