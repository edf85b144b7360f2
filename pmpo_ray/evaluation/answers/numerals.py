"""Numbers in texts, as people of several languages write them.

Invariants: a number is an exact fraction, never rounded, without its unit; digits within a word are no
number, but a letter of a script that writes words without spaces is a border between words.

Separators are read by these rules. Both a comma and a point: the last one is the decimal sign. Blanks (also
thin and no-break ones) and apostrophes between groups of three digits separate thousands. A comma before
exactly three digits separates thousands unless the number begins with 0, as do commas between the groups of
India; otherwise it is a decimal comma, except in a list or a pair such as "1,2,3" or "(3,5)". A point is the
decimal sign; if it stands twice, or before exactly three digits in a text of a language that has the decimal
comma, it separates thousands.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from pmpo_ray.evaluation.answers.marks import unwrapped

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Letters of Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean."""
UNSPACED = re.compile(f"[{_UNSPACED}]")
# Without regard to case, compiling these ranges would take a millisecond for each.
SPACED = rf"(?-i:[^\W_{_UNSPACED}])"
"""A pattern of one letter or digit of a script that writes blanks between words."""
BORDER = rf"(?<!{SPACED})"
"""A pattern of the place before a word or number that no such letter or digit precedes."""
END = rf"(?!{SPACED})"
"""As `BORDER`, for the place after a word."""

_OTHER = re.compile(r"[^\x00-\x7f]")
_WIDE_SEPARATOR = re.compile(r"(?<=[０-９])[，．](?=[０-９])")
_KEPT_WIDE = "，．！？；"
_SIGNS = {"٫": ".", "٬": ",", "٪": "%", "￥": "¥", "\u3000": " "} | dict.fromkeys(
    "\u2007\u2009\u202f", "\u00a0"
)
_JOINERS = "\u200c\u200d"

_DECIMALS = r"(?:[.,][0-9]{1,30}(?![0-9]))?"
_UNIT_AND_THINGS = (
    r"(?:-[A-Za-z]|\s?(?:[gGlmW]|kg|mg|ml|cm|mm|km|[MG]B|dollar|euro|pound|page|piece|mile|met(?:er|re)|foot|inch"
    r"|gram|lit(?:er|re)|point|year|day|minute|hour|watt)\s[a-z]{2,20}s\b)"
)
_DIGITS = rf"""(?:
    (?!0)[0-9]{{1,3}}(?P<gap>[ \u00a0'’])[0-9]{{3}}(?:(?P=gap)[0-9]{{3}}){{0,9}}
    (?![0-9]|{_UNIT_AND_THINGS}){_DECIMALS}
  | (?!0)[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,10}}(?![0-9])(?:\.[0-9]{{1,30}}(?![0-9]))?
  | [1-9][0-9]?(?:,[0-9]{{2}}){{1,8}},[0-9]{{3}}(?![0-9])(?:\.[0-9]{{1,30}}(?![0-9]))?
  | (?!0)[0-9]{{1,3}}(?:(?:\.[0-9]{{3}}){{1,10}},[0-9]{{1,30}}(?!\.?[0-9])|(?:\.[0-9]{{3}}){{2,10}}(?![0-9]))
  | (?<![0-9],)(?:(?<![(\[{{])|(?![0-9]+,[0-9]+\s?[)\]}}]))
    (?:[0-9]{{1,3}},[0-9]{{1,30}}|[0-9]{{4,30}},[0-9]{{1,3}})(?![0-9]|,[0-9])
  | [0-9]{{1,30}}(?![0-9])(?:\.[0-9]{{1,30}}(?![0-9]))?(?:[eE][+-]?[0-9]{{1,2}}(?!\w|\.[0-9]))?
)"""
_NUMBER = re.compile(
    rf"""(?:(?P<sign>(?<![\w)\]}}%])[-−–+])[$€£¥₹]?)?
    {BORDER}(?<![0-9]\.)(?<!\^)(?<!\^\{{)(?<!\bstep\ )(?<!\bStep\ )
    (?: (?:(?P<whole>[0-9]{{1,9}})\s)?(?<!/)
        (?P<top>[0-9]{{1,30}})\s?[/⁄]\s?(?P<bottom>[0-9]{{1,30}})(?![0-9]|\s?/)
      | (?P<digits>{_DIGITS}|\.[0-9]{{1,30}}(?![0-9])) )""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"([0-9]?)\\[dt]?frac\s{0,3}\{\s?([0-9]{1,30})\s?\}\s{0,3}\{\s?([0-9]{1,30})\s?\}")
_MATH_MARKUP = re.compile(r"\\[!,;:]|\\(?=[$%])")
_POWER_OF_TEN = re.compile(
    r"(?<=[0-9])\s?(?:[×x*·]|\\times|\\cdot)\s?10\s?(?:\^\s?\{?\s?([-−]?[0-9]{1,2})\s?\}?|([⁻]?[⁰¹²³⁴-⁹]{1,2}))(?![0-9])"
)
_SUPERSCRIPTS = str.maketrans("⁻−⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")

_POINT_GROUPS = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2}(?:\.[0-9]{3}){1,10}(?![0-9]|[.,][0-9]{3})")
_WORD = re.compile(r"[^\W\d_]+")
_WITH_COMMA = frozenset({
    "und", "der", "das", "ist", "nicht", "ein", "eine", "einen", "sind", "für", "mit", "insgesamt",
    "zusammen", "kostet", "kosten", "antwort", "le", "les", "des", "du", "est", "sont", "une", "pour",
    "donc", "réponse", "el", "los", "las", "es", "son", "por", "para", "cuesta", "cuestan", "respuesta",
    "il", "gli", "che", "sono", "per", "di", "totale", "fanno", "costa", "risposta", "os", "uma", "são",
    "não", "custa", "custam", "é", "resposta",
})  # fmt: skip
_WITH_POINT = frozenset({
    "the", "is", "of", "and", "are", "that", "this", "she", "he", "they", "we", "it", "to", "so", "how",
    "each", "answer",
})  # fmt: skip


def standard(text: str, point_groups: bool = False) -> str:
    """The text with the digits of all scripts, and letters, digits and signs of other widths, in ASCII, and
    without format characters. With `point_groups`, points that separate thousands are left out."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        text = _WIDE_SEPARATOR.sub(lambda sign: _narrow(sign.group()), text)
        text = _OTHER.sub(lambda match: _standard_character(match.group()), text)
    return _POINT_GROUPS.sub(lambda match: match.group().replace(".", ""), text) if point_groups else text


def has_decimal_comma(text: str) -> bool:
    """True for a text in German, French, Spanish, Italian or Portuguese, judged by its frequent words."""
    words = _WORD.findall(text.lower())
    return sum(word in _WITH_COMMA for word in words) > sum(word in _WITH_POINT for word in words)


@lru_cache(maxsize=4096)
def _standard_character(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if (digit := unicodedata.decimal(character, None)) is not None:
        return str(digit)
    if "！" <= character <= "～" and character not in _KEPT_WIDE:
        return _narrow(character)
    if unicodedata.category(character) == "No" and "⁄" in unicodedata.normalize("NFKC", character):
        return " " + unicodedata.normalize("NFKC", character)
    return "" if unicodedata.category(character) == "Cf" and character not in _JOINERS else character


def _narrow(character: str) -> str:
    return chr(ord(character) - ord("！") + ord("!"))


def numbers(text: str) -> list[tuple[int, int, str]]:
    """The numbers in a standard text: start, end and canonical form. Digits within a word, and exponents, do
    not count."""
    return [
        (match.start(), match.end(), value)
        for match in _NUMBER.finditer(text)
        if (value := _value(match)) is not None
    ]


def only_number(text: str) -> str | None:
    """The canonical form of the only number in a text; None if there are none or several."""
    all_numbers = numbers(plain_math(text))
    return all_numbers[0][2] if len(all_numbers) == 1 else None


def whole_number(text: str) -> str | None:
    """The canonical form of a text that is only a number, such as "-5", "$1,234.50", "12%" or "1/2";
    otherwise None."""
    stripped = text.strip().rstrip("%").lstrip("$€£¥₹")
    first = next(iter(numbers(stripped)), None)
    return first[2] if first and first[:2] == (0, len(stripped)) else None


def plain_math(text: str) -> str:
    """The text with LaTeX fractions, thousands separators and spacing as plain text, and with powers of ten
    as "e3"."""
    if "10" in text:
        text = _POWER_OF_TEN.sub(
            lambda match: "e" + (match[1] or match[2]).translate(_SUPERSCRIPTS),
            text,
        )
    if "\\" not in text and "{,}" not in text:
        return text
    text = _MATH_MARKUP.sub("", unwrapped(text).replace("{,}", ","))
    return _FRACTION.sub(lambda match: f"{match[1]}{' ' if match[1] else ''}{match[2]}/{match[3]}", text)


def _value(match: re.Match[str]) -> str | None:
    if match.group("digits") is not None:
        value = Fraction(_english(match.group("digits")))
    elif int(match.group("bottom")) == 0:
        return None
    else:
        value = Fraction(int(match.group("top")), int(match.group("bottom"))) + int(match.group("whole") or 0)
    return str(-value if match.group("sign") not in (None, "+") else value)


def _english(digits: str) -> str:
    """The digits of a number with a decimal point and without other separators."""
    plain = re.sub(r"[ \u00a0'’]", "", digits)
    commas, points = plain.count(","), plain.count(".")
    last = max(plain.rfind(","), plain.rfind("."))
    if last < 0:
        return plain
    if commas and points:
        decimal = True
    elif commas + points > 1:
        decimal = False
    else:
        head, tail = plain[:last], plain[last + 1 :]
        grouped = len(head) <= 3 and head != "0" and len(tail) == 3
        decimal = points == 1 or len(plain) < len(digits) or not grouped
    whole = re.sub(r"[.,]", "", plain[:last])
    return f"{whole}.{plain[last + 1 :]}" if decimal else whole + plain[last + 1 :]
