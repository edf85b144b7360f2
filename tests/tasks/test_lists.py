"""Lists that stand in a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.tasks.lists import is_list_of_texts, list_in

_TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=5)


@given(texts=_TEXTS)
def test_what_a_program_writes_is_read_back(texts: list[str]) -> None:
    assert list_in(json.dumps(texts)) == texts
    assert list_in(f" {texts} ") == texts
    assert list_in(repr(tuple(texts))) == texts
    assert list_in(str(np.array(texts, dtype=object))) == texts


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("['a' 'b'\n \"c's\"]", ["a", "b", "c's"]),
        ("['a, b', 'say \"no\"']", ["a, b", 'say "no"']),
        ("[1, 2.5, nan, None, 'a']", [1, 2.5, None, None, "a"]),
        ("[1. 2.]", [1.0, 2.0]),
        ("[['a'], ['b', 'c']]", [["a"], ["b", "c"]]),
        ("{'a', 'b'}", ["a", "b"]),
        ("[True, null]", [True, None]),
        ("[]", []),
    ],
)
def test_lists_in_the_notations_of_python_and_numpy(text: str, values: list[object]) -> None:
    assert list_in(text) == values


@pytest.mark.parametrize(
    "text",
    [
        "[ [",
        "[1] see",
        "] ) }",
        "[sic]",
        "[sic] bad",
        "(A)",
        "(1, 2)",
        "('a')",
        "{1, 2}",
        "{'a': 'b'}",
        "['a'], ['b']",
        "['a'] ['b']",
        "['a', , 'b']",
        "[a, b]",
        "['a'",
        "['a']]",
        "['a''b']",
        "['a' 'b', 'c']",
        "['a', ... 'b']",
        "['a')",
        "['\\x']",
        "[__import__('os')]",
        "",
        "[",
        "a",
        "[" * 100_000,
        "[" * 50 + "'a'" + "]" * 50,
    ],
)
def test_a_text_that_is_not_wholly_a_list_is_none(text: str) -> None:
    assert list_in(text) is None


def test_a_list_of_texts_has_a_text_and_nothing_else() -> None:
    assert [is_list_of_texts(text) for text in ("['a']", "['a', nan]")] == [True] * 2
    assert [is_list_of_texts(text) for text in ("[]", "[1]", "[None]", "['a', 1]", "a")] == [False] * 5


@given(text=st.text(alphabet="[](){}'\",ab 1.\\n", max_size=40))
def test_any_text_is_a_list_or_none(text: str) -> None:
    values = list_in(text)
    assert values is None or isinstance(values, list)


def test_no_target_of_a_benchmark_is_a_list(data_dir: Path) -> None:
    rows = json.loads((data_dir / "bbh" / "dyck_languages.json").read_text(encoding="utf-8"))["examples"]
    assert not any(is_list_of_texts(row["target"]) for row in rows)
