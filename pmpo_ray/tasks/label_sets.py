"""Closed sets of targets: recognised among the targets of rows, or given; and one spelling for each label.

Invariants: a label that two or more rows have is kept, however rare it is beside the others; every kept row's
target is spelled as in the set; each decision about rows is told in a note.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks.corruptions import form_of
from pmpo_ray.tasks.keys import code_points, foreign_letters, label_key, quoted_apart
from pmpo_ray.tasks.rows import Row
from pmpo_ray.text import excerpt

_MAX_LABELS = 200
"""The maximum number of inferred labels: every one of them is scored for every example."""
_MAX_LABEL_CHARS = 80
"""The maximum length of an inferred label."""
_MEAN_COUNT = 3
"""The minimum number of rows per inferred label, on average."""
_MEAN_COUNT_OF_NUMBERS = 5
"""The same for numbers, which also repeat where they are results."""
_MAX_ODD = 0.1
"""The maximum share of rows whose target occurs once."""
_NUMERIC = re.compile(r"\W*\d")
"""The beginning of a number, in whatever notation and with whatever unit."""
_MANY = 1000
"""The number of rows from which mostly different targets are taken for free text at once."""
_MISSING = frozenset(("NaN", "nan", "None", "null", "NULL", "N/A", "n/a", "#N/A", "<NA>", "NaT"))
"""The texts that programs write where a value is missing; "none" in small letters may well be an answer."""
_NAMED = 5
"""The maximum number of rows, labels or spellings that a note names."""


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Rows whose targets are all in `labels`, and notes on how they came to be."""

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    test_rows: tuple[Row, ...]
    notes: tuple[str, ...]


def is_closed_set(targets: Iterable[str]) -> bool:
    """True if the targets are labels: short texts of which nearly every one occurs again, on average at least
    3 times, and not more than 200 different ones. Numbers have to repeat more: they may be results."""
    spelled = Counter(targets)
    total = spelled.total()
    if total >= _MANY and len(spelled) > total / 2:
        return False  # without the keys of many texts, which take a while
    counts = _counts(spelled)
    repeated = {text: count for text, count in counts.items() if count > 1}
    covered, odd = sum(repeated.values()), len(counts) - len(repeated)
    if not 1 <= len(repeated) <= _MAX_LABELS or odd > _MAX_ODD * total:
        return False
    if len(repeated) == 1 and odd > _NAMED:
        return False  # texts of which one is common, such as "unknown"
    if any(len(text) > _MAX_LABEL_CHARS or "\n" in text for text in repeated):
        return False
    forms = {form_of(text) for text in repeated}
    if 2 * sum(_NUMERIC.match(text) is not None for text in repeated) > len(repeated):
        # A result such as 15 may well occur once. Beside digits that each have many rows it is a slip.
        return covered >= _MEAN_COUNT_OF_NUMBERS * len(repeated) and (
            not odd or min(repeated.values()) >= _MEAN_COUNT_OF_NUMBERS
        )
    return forms != {"brackets"} and covered >= _MEAN_COUNT * len(repeated)


def _counts(spelled: Mapping[str, int]) -> Counter[str]:
    """The number of targets of each label, under its commonest spelling."""
    spellings = _spellings(spelled)
    return Counter({own[0][0]: sum(count for _, count in own) for own in spellings.values()})


def _spellings(counts: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """The spellings of each label with their counts, by the label's key, the commonest first."""
    by_key: dict[str, list[tuple[str, int]]] = {}
    for text, count in sorted(counts.items(), key=_commonest_first):
        by_key.setdefault(label_key(text), []).append((text, count))
    return by_key


def _commonest_first(spelling: tuple[str, int]) -> tuple[int, bool, str]:
    """The order of spellings: by their counts, then composed and visible ones first."""
    text, count = spelling
    return -count, not (text.isprintable() and unicodedata.is_normalized("NFC", text)), text


def inferred(rows: Sequence[Row], test_rows: Sequence[Row]) -> LabelledRows:
    """Rows whose targets are a closed set, with the commonest spelling of each label. A row whose target
    occurs once, which is most likely a slip, is left out and named."""
    every = (*rows, *test_rows)
    spellings = _spellings(Counter(row.target for row in every))
    kept = {key: own for key, own in spellings.items() if sum(count for _, count in own) > 1}
    spelling = {text: own[0][0] for own in kept.values() for text, _ in own}
    odd = [row for row in every if row.target not in spelling]
    labels = tuple(sorted(own[0][0] for own in kept.values()))
    notes = [
        *_odd_note(odd, len(every)),
        *_spelling_note(kept.values()),
        *_alphabet_note(labels),
        *_missing_note(labels),
    ]
    return LabelledRows(
        labels=labels,
        rows=_respelled(rows, spelling),
        test_rows=_respelled(test_rows, spelling),
        notes=tuple(notes),
    )


def given(task: str, labels: Sequence[str], rows: Sequence[Row], test_rows: Sequence[Row]) -> LabelledRows:
    """Rows with the given labels, spelled as there. Raises ConfigError for labels that cannot be told apart,
    DataError for a target that is none of them."""
    listed = checked_labels(task, labels)
    by_key = {label_key(label): label for label in listed}
    every = (*rows, *test_rows)
    counts = Counter(row.target for row in every)
    spelling = {text: by_key[key] for text in sorted(counts) if (key := label_key(text)) in by_key}
    for row in every:
        if row.target not in spelling:
            known = ", ".join(excerpt(label, 40) for label in listed)
            raise DataError(
                f"{row.where}: target {excerpt(row.target, 60)!r} is none of the labels {known}; fix the "
                "target or the labels"
            )
    others = Counter({text: counts[text] for text, own in spelling.items() if own != text})
    spellings = [
        [(label, 0), *(pair for pair in others.most_common() if spelling[pair[0]] == label)]
        for label in listed
    ]
    return LabelledRows(
        labels=listed,
        rows=_respelled(rows, spelling),
        test_rows=_respelled(test_rows, spelling),
        notes=(*_spelling_note(spellings), *_alphabet_note(listed)),
    )


def checked_labels(task: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels without white space around them. Raises ConfigError if there are fewer than two, or if one
    is empty or a second spelling of another."""
    stripped = tuple(label.strip() for label in labels)
    if len(stripped) < 2 or not all(stripped):
        raise ConfigError(
            f"task {task!r}: labels must be two or more different, non-empty texts; correct labels"
        )
    seen: dict[str, str] = {}
    for label in stripped:
        other = seen.setdefault(label_key(label), label)
        if other is not label:
            raise ConfigError(
                f"task {task!r}: labels must be two or more different texts, and "
                f"{quoted_apart(other, label)} and {quoted_apart(label, other)} count as one (case, white "
                "space, invisible characters and a final full stop do not count); list it once"
            )
    return stripped


def _respelled(rows: Sequence[Row], spelling: Mapping[str, str]) -> tuple[Row, ...]:
    """The rows with a known target, spelled as in the set."""
    return tuple(
        row if spelling[row.target] == row.target else replace(row, target=spelling[row.target])
        for row in rows
        if row.target in spelling
    )


def _odd_note(odd: Sequence[Row], total: int) -> list[str]:
    if not odd:
        return []
    named = ", ".join(f"{row.where} {excerpt(row.target, 40)!r}" for row in odd[:_NAMED])
    more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
    return [
        f"{len(odd)} of {total} rows left out, whose target occurs once beside labels that repeat: "
        f"{named}{more}; correct the target, or list every label under labels"
    ]


def _missing_note(labels: Sequence[str]) -> list[str]:
    missing = ", ".join(repr(label) for label in labels if label in _MISSING)
    if not missing:
        return []
    return [f"labels that programs write for a missing value: {missing}; remove these rows if none is meant"]


def _alphabet_note(labels: Sequence[str]) -> list[str]:
    mixed = [(label, letters) for label in labels if (letters := foreign_letters(label))]
    if not mixed:
        return []
    named = ", ".join(f"{excerpt(label, 40)!r} ({code_points(letters)})" for label, letters in mixed[:_NAMED])
    return [f"Cyrillic letters in a word of Latin ones: {named}; if that is a slip, correct the targets"]


def _spelling_note(spellings: Iterable[Sequence[tuple[str, int]]]) -> list[str]:
    parts = [
        f"{quoted_apart(label, others[0][0])} also for "
        + ", ".join(f"{quoted_apart(text, label)} ({count} rows)" for text, count in others[:_NAMED])
        for (label, _), *others in spellings
        if others
    ]
    if not parts:
        return []
    more = f"; and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return [f"spellings of one label count as one: {'; '.join(parts[:_NAMED])}{more}"]
