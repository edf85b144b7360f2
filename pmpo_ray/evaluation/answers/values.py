"""Readers of answers that are numbers, lists of words, sequences of brackets, or any other text.

Invariants: two answers are equal exactly if their canonical forms are; texts are in their standard form
(`numerals.standard`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pmpo_ray.evaluation.answers.marks import (
    UNREADABLE,
    Mark,
    beginnings,
    first_line,
    first_sentence,
    plain,
    unwrapped,
)
from pmpo_ray.evaluation.answers.numerals import numbers, plain_math
from pmpo_ray.tasks.corruptions import answer_key

_NUMBER_WORD = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred"
    r"|zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|elf|zwölf"
    r"|deux|trois|quatre|cinq|sept|huit|neuf|dix|onze|douze"
    r"|dos|tres|cuatro|cinco|siete|ocho|nueve|diez|doce|due|tre|quattro|cinque|sette|otto|nove|dieci|dodici"
    r"|dois|duas|três|quatro|sete|oito|dez|doze)\b(?! of\b)"
    r"|[一二三四五六七八九十百千万]{1,10}(?=[个個只人元円つ本。]|です|\Z)",
    re.IGNORECASE,
)
_BEFORE_NUMBER = re.compile(r"[\s*_`\"'“‘「(\[{$€£¥₹~≈=:：\\]*")
_OPERATOR = re.compile(
    r"[+*/×÷·^)]|(?<![^\W\d_])[−-](?![^\W\d_])|(?<=[\s\d)])x(?=[\s\d($])|\\times|\\cdot|\\div"
)
_UNDECIDED = re.compile(r"\b(?:either|between)\b", re.IGNORECASE)
_OPEN_END = re.compile(r"\s?\^(?![^=]{0,80}=)|\s(?:\w+\s)?or\s(?!so\b)[$€£]?[0-9]", re.IGNORECASE)
"""An exponent without a result, and a second number to choose from."""
_EXPLAINED = re.compile(
    r"([^\w\n]{0,6}[0-9][^\n=+]{0,30})\n\s*[*_#]{0,4}(?:explanation|because|reason|reasoning|erklärung|解释|说明)\b",
    re.IGNORECASE,
)
"""A first line with the answer, and an explanation below it."""
_ASIDE = re.compile(r"[\w*]\s?\((?![^()=]{0,3}\))[^()]{2,300}\)[.!。*]{0,3}\s*\Z")
_ASIDE_CHARACTERS = 400
_STEP = re.compile(r"[;,]\s")
_REASON = re.compile(r"[.;!?]\s|\b(?:because|since|as|where|so|from|given|with|when|if|for)\b", re.IGNORECASE)

_WORD_BREAK = re.compile(r"[\s,;|<>→]+|->")
_WORD_EDGES = "*_`\"'“”‘’()[]{}.:!\\-"
_SENTENCE_OF_WORDS = re.compile(r"(?<=[^\W\d_][.!?])\s")
_ITEM = re.compile(r"\s*(?:[-*•]|\(?[0-9]{1,3}[.):])\s*\S+\s*")
_MOSTLY = 0.8
"""Minimum share of words from the input's list in a line that counts as an unmarked answer."""

_BRACKET = r"[()\[\]{}<>](?![^\W_])"
_BETWEEN = r"[ \t,`'\"“”‘’*_$\\]*"
_RUN = re.compile(rf"{_BETWEEN}((?:{_BRACKET}{_BETWEEN})+)")
_QUOTED_RUN = re.compile(rf"[`\"'“‘]({_BRACKET}(?:[ \t,]*{_BRACKET})*)[`\"'”’]")
_TRAILING_RUN = re.compile(r"[()\[\]{}<>][()\[\]{}<>\s]*\Z")
_CLOSING = frozenset(")]}>")


class Numbers:
    """Reads a number. The canonical form is the exact value as an integer or a reduced fraction."""

    def marked(self, mark: Mark) -> str | None:
        text = plain_math(mark.text).lstrip("\\[]$*: \t\n")
        sentence = first_sentence(text)
        first = next(iter(numbers(sentence)), None)
        reasons = mark.form in ("headed", "framed")
        later = numbers(text[len(sentence) :]) if reasons else []
        if first is None:
            if later:
                return later[-1][2]
            return UNREADABLE if _NUMBER_WORD.search(sentence) else None
        start, end, value = first
        begins = any(_BEFORE_NUMBER.fullmatch(rest) for rest in beginnings(sentence[:start]))
        if mark.form == "exact":
            return value if begins and _is_unit(text[end:]) else None
        if reasons and not begins:
            return numbers(text)[-1][2]
        if _UNDECIDED.search(sentence[:start]) or _OPEN_END.match(sentence, end):
            return UNREADABLE
        result = _result(sentence, end)
        if result is not None and later and "=" in text[len(sentence) :]:
            return later[-1][2]
        return result or value

    def unmarked(self, reply: str) -> str | None:
        text = plain_math(reply)
        if (explained := _EXPLAINED.match(text)) and (first := numbers(explained[1])):
            return first[0][2]
        aside = _ASIDE.search(text, max(0, len(text) - _ASIDE_CHARACTERS))
        stated = numbers(text[: aside.start()]) if aside is not None else []
        all_numbers = stated or numbers(text)
        return all_numbers[-1][2] if all_numbers else None


def _is_unit(text: str) -> bool:
    """True if the text after a number may be a unit: at most 3 words, and not a heading such as "2. Then"."""
    return len(text.split()) <= 3 and not re.match(r"[.):]\s*\w", text)


def _result(text: str, end: int) -> str | None:
    """The result of a calculation such as "3 + 4 = 7", whose first number ends at `end`; None if the text is
    not a calculation, as in "7 apples, since x = 3"."""
    calculation, equals, result = text[end:].replace("≈", "=").rpartition("=")
    steps = _STEP.split(calculation)
    if not equals or not _OPERATOR.search(calculation.split("=")[0]):
        return None
    if _REASON.search(calculation) and not (len(steps) > 1 and all("=" in step for step in steps[:-1])):
        return None
    first = next(iter(numbers(result)), None)
    return first[2] if first else None


class Words:
    """Reads an arrangement of the words of a list. The canonical form has lower case and single spaces."""

    def __init__(self, words: Sequence[str]) -> None:
        self._known = frozenset(words)
        self._count = len(words)

    def marked(self, mark: Mark) -> str | None:
        text = plain(mark.text).lstrip()
        line = first_line(text)
        sentence = _SENTENCE_OF_WORDS.split(line, maxsplit=1)[0]
        blocks = self._blocks(text if sentence.strip() == line.strip() else sentence)
        if blocks:
            return " ".join(blocks[0])
        words = self._words(sentence)
        return " ".join(words) if mark.form != "exact" and self._share(words) >= 0.5 else None

    def unmarked(self, reply: str) -> str | None:
        blocks = self._blocks(plain(reply))
        return " ".join(blocks[-1]) if blocks else None

    def _words(self, line: str) -> list[str]:
        """The words of a line, after its last colon if it has one."""
        words = words_of(line.rstrip(" :").rpartition(":")[2])
        return [word for word in words if word in self._known or not (word == "and" or word.isdecimal())]

    def _share(self, words: Sequence[str]) -> float:
        """The share of `words` that are in the list."""
        return sum(word in self._known for word in words) / max(1, len(words))

    def _blocks(self, text: str) -> list[list[str]]:
        """Runs of lines of words of the list, each run at least half as long as the list. A run joins lines
        of one word, and neighbouring lines whose words together are at most as many as the list's."""
        blocks: list[list[str]] = []
        joins = blank = False
        for line in text.split("\n"):
            if not line.strip():
                blank = True
                continue
            words = self._words(line)
            listed = bool(words) and (self._share(words) >= _MOSTLY or _ITEM.fullmatch(line) is not None)
            if listed and joins and _joins(blocks[-1], words, blank, self._count):
                blocks[-1] += words
            elif listed:
                blocks.append(words)
            joins, blank = listed, False
        return [block for block in blocks if 2 * len(block) >= self._count and self._share(block) >= _MOSTLY]


def _joins(block: Sequence[str], words: Sequence[str], blank: bool, count: int) -> bool:
    return len(words) == 1 if blank else len(words) == 1 or len(block) + len(words) <= count


def words_of(text: str) -> list[str]:
    """The words of a list, without separators, quotes and capitals."""
    pieces = _WORD_BREAK.split(text.replace("’", "'"))
    return [word for piece in pieces if (word := piece.strip(_WORD_EDGES).casefold())]


class Brackets:
    """Reads the brackets that close a sequence, or the whole closed sequence. The canonical form is the
    closing part, separated by single spaces."""

    def __init__(self, text: str) -> None:
        opened = _TRAILING_RUN.search(text)
        self._opened = "".join(opened.group().split()) if opened else ""

    def canonical(self, run: str) -> str:
        """The canonical form of a run of brackets."""
        brackets = "".join(character for character in run if character in "()[]{}<>")
        if len(brackets) > len(self._opened) and brackets.startswith(self._opened):
            brackets = brackets[len(self._opened) :]
        return " ".join(brackets)

    def marked(self, mark: Mark) -> str | None:
        line = first_line(unwrapped(mark.text))
        if match := _RUN.match(line):
            return self.canonical(match.group(1))
        return self._line(line)

    def unmarked(self, reply: str) -> str | None:
        for line in reversed(reply.split("\n")):
            answer = self._line(line)
            if answer is not None and _CLOSING.issuperset(answer.split()):
                return answer
        return None

    def _line(self, line: str) -> str | None:
        """The brackets of a line that has nothing else (or nothing else after its last colon), or the only
        quoted ones."""
        for text in (line, line.rpartition(":")[2]):
            if match := _RUN.fullmatch(text.strip().rstrip(".")):
                return self.canonical(match.group(1))
        quoted = {self.canonical(run) for run in _QUOTED_RUN.findall(line)}
        return quoted.pop() if len(quoted) == 1 else None


class Text:
    """Reads any other text. White space, case, and surrounding quotes and full stops do not count."""

    def __init__(self, target: str) -> None:
        self._whole = "\n" in target.strip()
        self._sentence = re.search(r"[.!?]\s", target) is None

    def marked(self, mark: Mark) -> str | None:
        text = mark.text
        if mark.form in ("stated", "headed") and not self._whole:
            text = first_sentence(text) if self._sentence else first_line(text)
        return self.unmarked(text)

    def unmarked(self, reply: str) -> str | None:
        stripped = (
            unwrapped(reply)
            .strip()
            .strip("*_`\"'“”‘’ ")
            .removesuffix(".")
            .removesuffix("。")
            .strip("*_`\"'“”‘’ ")
        )
        return answer_key(stripped or reply) or None
