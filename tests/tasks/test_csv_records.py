"""Texts with delimiters as programs and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.csv_records import csv_records

_CELLS = st.text(alphabet="ab ,;|\t\"'=\n\r0.é", max_size=12)


def _read(text: str, usual: str = ",") -> list[tuple[str, dict[str, object]]]:
    return [(record.where, dict(record.values)) for record in csv_records(text, "a.csv", usual)]


def _values(text: str, usual: str = ",") -> list[dict[str, object]]:
    return [values for _, values in _read(text, usual)]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(mark: str) -> None:
    text = f'q{mark}a\nIs it 1,5; or 2 | 3?{mark}yes\n"a{mark}b\nc"{mark}no\n'
    if mark == ",":
        text = text.replace("Is it 1,5; or 2 | 3?", '"Is it 1,5; or 2 | 3?"')
    if mark in ";|":
        text = text.replace("Is it 1,5; or 2 | 3?", '"Is it 1,5; or 2 | 3?"')
    expected = [{"q": "Is it 1,5; or 2 | 3?", "a": "yes"}, {"q": f"a{mark}b\nc", "a": "no"}]
    assert _values(text) == expected
    assert _values(text, usual="\t") == expected


def test_another_delimiter_than_the_usual_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pmpo_ray"):
        _values("q;a\nb;c\n")
        _values("q,a\nb,c\n")
        _values("q\ta\nb\tc\n", usual="\t")
    assert [record.getMessage() for record in caplog.records] == [
        "a.csv: its columns are divided by semicolons"
    ]


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"'])
def test_the_line_in_which_a_spreadsheet_names_its_delimiter_is_no_header(line: str) -> None:
    assert _read(f"{line}\r\nq;a,b\r\nc;d\r\n") == [("a.csv line 3", {"q": "c", "a,b": "d"})]


def test_rows_without_text_are_no_rows() -> None:
    text = "\n,\nq,a\n\nb,c\n , \nd,e\n,\n,,,\n\n"
    assert _read(text) == [
        ("a.csv line 5", {"q": "b", "a": "c"}),
        ("a.csv line 7", {"q": "d", "a": "e"}),
    ]


def test_blanks_after_a_delimiter_may_stand_before_a_quote() -> None:
    assert _values('q, a\n"b, c", "d, e"\n') == [{"q": "b, c", "a": "d, e"}]
    assert _values('q,a\nhe said, "no"\n') == [{"q": "he said", "a": "no"}]
    assert _values('q;a\nb; "no" he said\n') == [{"q": "b", "a": ' "no" he said'}]


def test_a_long_cell_is_read() -> None:
    cell = "long " * 100_000
    assert _values(f"q,a\n{cell},b\n") == [{"q": cell, "a": "b"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q;a\nb;c\nd\n", "a.csv line 3: does not have the 2 fields of the header but 1; quote"),
        ("q;a\nb;c\nd;e;f\n", "but 3; quote fields that contain semicolons"),
        ("q,a\nb,c, d\n", "a.csv line 2: does not have the 2 fields of the header but 3; quote"),
        ('q;a\nb;c\nd;"e\n', "a.csv line 3: malformed CSV"),
        ('q,a\n"b" c,d\n', "a.csv line 2: malformed CSV"),
        ("sep=;\nq;a\nb,c\n", "a.csv line 3: does not have the 2 fields of the header but 1"),
        ("q,a,a\nb,c,d\n", "a.csv line 1: the column 'a' stands twice; rename or remove one of them"),
        ("\nq;a;q\nb;c;d\n", "a.csv line 2: the column 'q' stands twice"),
    ],
)
def test_an_error_has_its_line(text: str, message: str) -> None:
    with pytest.raises(DataError) as raised:
        _values(text)
    assert message in str(raised.value)


def test_columns_without_a_name_may_be_many() -> None:
    assert _values("q,a,,\nb,c,,\n") == [{"q": "b", "a": "c", "": ""}]


@given(
    rows=st.lists(st.tuples(_CELLS, _CELLS).filter(lambda row: any(map(str.strip, row))), max_size=5),
    mark=st.sampled_from(",;\t|"),
)
def test_what_a_program_writes_with_any_delimiter_is_read_back(
    rows: list[tuple[str, str]], mark: str
) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=mark, quoting=csv.QUOTE_ALL).writerows([("input", "target"), *rows])
    assert _values(written.getvalue()) == [{"input": one, "target": other} for one, other in rows]
