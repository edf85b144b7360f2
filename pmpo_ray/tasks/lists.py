"""Lists that stand in a text, as programs write them into a cell: JSON, Python and NumPy notation.

Invariants: nothing is evaluated but single string literals; a text that is not wholly a list is no list.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Sequence

_MAX_CHARS = 1_000_000
_MAX_DEPTH = 8
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_TOKEN = re.compile(
    rf"\s*(?:(?P<quoted>{_QUOTED})|(?P<open>[\[({{])|(?P<close>[\])}}])|(?P<comma>,)|(?P<bare>[^\s,'\"\[\](){{}}]+))",
    re.DOTALL,
)
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_CONSTANTS = {"None": None, "nan": None, "null": None, "True": True, "False": False}


def list_in(text: str) -> list[object] | None:
    """The list that a text is: '["a", "b"]', "['a', 'b']", "['a' 'b']" (an array of NumPy), or a tuple or set
    of texts; None for any other text, also for one that merely begins with a bracket. None and nan are None.
    """
    stripped = text.strip()
    if len(stripped) > _MAX_CHARS or not is_bracketed(stripped):
        return None
    if stripped[0] == "[":
        try:
            parsed: object = json.loads(stripped)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, list):
            return parsed
    values = _parsed(stripped)
    if values is None or (stripped[0] != "[" and not (_are_texts(values) and "," in stripped)):
        return None  # (A), (1, 2) and {x} are answers
    return values


def is_bracketed(text: str) -> bool:
    """True if a text begins with a bracket and ends with the bracket that closes it."""
    stripped = text.strip()
    return len(stripped) > 1 and _PAIRS.get(stripped[0]) == stripped[-1]


def is_list_of_texts(text: str) -> bool:
    """True if a text is a list with at least one text, of texts and missing values alone."""
    values = list_in(text)
    return values is not None and _are_texts(values)


def _are_texts(values: Sequence[object]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, str) for value in present)


def _parsed(text: str) -> list[object] | None:
    """The list in Python's or NumPy's notation, or None if the text is anything else."""
    tokens = _tokens(text)
    try:
        values = _nested(tokens, _PAIRS[next(tokens)["open"]], depth=1)
        return values if next(tokens, None) is None else None
    except ValueError:
        return None


def _tokens(text: str) -> Iterator[re.Match[str]]:
    """Raises ValueError at what begins no token."""
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError(position)
        yield token
        position = token.end()


def _nested(tokens: Iterator[re.Match[str]], closing: str, depth: int) -> list[object]:
    """The values up to the closing bracket. Raises ValueError if they are no list, or if it is not certain
    where one value ends: Python joins 'a' 'b' in a list with commas, NumPy has two texts and no commas."""
    if depth > _MAX_DEPTH:
        raise ValueError(depth)
    values: list[object] = []
    separators: set[str] = set()
    is_comma_due = False
    for token in tokens:
        if token["close"] == closing:
            return values
        if is_comma_due:
            separators.add(token["comma"] or token[0][:1])
        if token["close"] or (token["comma"] and not is_comma_due) or not _is_certain(separators):
            raise ValueError(token[0])
        is_comma_due = not token["comma"]
        if token["open"]:
            values.append(_nested(tokens, _PAIRS[token["open"]], depth + 1))
        elif not token["comma"]:
            values.append(_value(token["quoted"], token["bare"]))
    raise ValueError(closing)


def _is_certain(separators: set[str]) -> bool:
    return separators <= {","} or all(map(str.isspace, separators))


def _value(quoted: str | None, bare: str | None) -> object:
    """The value of a literal. Raises ValueError for any other word."""
    if quoted is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape that Python does not know
            try:
                return ast.literal_eval(quoted)
            except SyntaxError as error:
                raise ValueError(quoted) from error
    word = bare or ""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if not _NUMBER.fullmatch(word):
        raise ValueError(word)
    return int(word) if word.lstrip("+-").isdecimal() else float(word)
