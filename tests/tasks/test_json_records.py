"""JSON and JSON Lines: places of rows and of keys that stand twice."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.json_records import json_records, lines_records


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"a": 1,\n "a": 2}]', 2),
        ('[{"a": {"b": "}{,\\"a\\":"}},\n{"b": [{"a": 1}, {"a": 1}],\n"\\u0062": 3}]', 3),
        ('{"examples": [{"a": 1}],\n"examples": []}', 2),
        ('{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 1}}\n', 2),
    ],
)
def test_a_key_that_stands_twice_is_an_error_with_its_line(text: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"^a line {line}: the key '.*' stands twice; rename or remove one"):
        list(json_records(text, "a"))


def test_a_key_that_stands_twice_in_a_line_names_the_line() -> None:
    with pytest.raises(DataError, match=r"^a line 3: the key 'answer' stands twice"):
        list(lines_records('{"answer": 1}\n\n{"answer": "a", "answer": "todo"}\n', "a"))


def test_a_line_ends_at_line_feeds_alone() -> None:
    rows = list(lines_records('{"a": "one\u2028two\x85"}\r\n{"a": "three"}', "a"))
    assert [(row.values["a"], row.where) for row in rows] == [
        ("one\u2028two\x85", "a line 1"),
        ("three", "a line 2"),
    ]


def test_a_file_of_columns_says_how_to_write_rows() -> None:
    with pytest.raises(DataError, match=r"a: has no list of rows; .*pandas: to_json with orient=\"records\""):
        list(json_records('{"a": {"0": 1}}', "a"))


@given(text=st.text(alphabet='{}[]",:\\ab1 \n', max_size=30))
def test_any_text_is_rows_or_a_data_error(text: str) -> None:
    for read in (json_records, lines_records):
        with suppress(DataError):
            list(read(text, "a"))
