"""Rows from records: one text for equal values, lists, and columns that are found or refused."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.config.tasks import ColumnsConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks.files import read_records
from pmpo_ray.tasks.python_data import records_of
from pmpo_ray.tasks.records import Record
from pmpo_ray.tasks.rows import Row, rows_of

_NEGATIVES = ColumnsConfig(negatives="no")


def _records(targets: Sequence[object], negatives: Sequence[object] = ()) -> list[Record]:
    return [
        Record({"input": "x", "target": target, "no": no}, f"a line {number}")
        for number, (target, no) in enumerate(zip(targets, negatives or targets, strict=True), start=1)
    ]


def _targets(*targets: object) -> list[str]:
    return [row.target for row in rows_of([_records(targets)], ColumnsConfig())[0]]


def _negatives(target: str, *negatives: object) -> list[tuple[str, ...]]:
    (rows,) = rows_of([_records([target] * len(negatives), negatives)], _NEGATIVES)
    return [row.negatives for row in rows]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.0, 0.0, -0.0], ["1", "0", "0"]),
        ([1, 1.0, 2.5], ["1", "1", "2.5"]),
        ([0.5, 1.0], ["0.5", "1.0"]),
        ([1e300, 1.0], ["1e+300", "1.0"]),
        (["1.0", "0.0", "-2.00"], ["1", "0", "-2"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["1.0", "v1.0"], ["1.0", "v1.0"]),
        (["1.0", 1, "one"], ["1", "1", "one"]),
        (["01.0", "1.0"], ["01.0", "1.0"]),
        ([True, False], ["true", "false"]),
        ([True, "True", "FALSE", "unknown"], ["true", "true", "false", "unknown"]),
        (["True", "true"], ["True", "true"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([Decimal("1.00"), Decimal("2")], ["1", "2"]),
        ([Decimal("1.50"), Decimal("1E+2")], ["1.50", "100"]),
        ([date(2024, 1, 5)], ["2024-01-05"]),
        ([datetime(2024, 1, 5), datetime(2024, 2, 5)], ["2024-01-05", "2024-02-05"]),
        ([datetime(2024, 1, 5), datetime(2024, 2, 5, 6)], ["2024-01-05 00:00:00", "2024-02-05 06:00:00"]),
    ],
)
def test_equal_values_of_a_column_have_one_text(values: list[object], texts: list[str]) -> None:
    assert _targets(*values) == texts


def test_both_parts_are_read_in_the_same_way() -> None:
    train, test = rows_of([_records([1.0, 0.0]), _records([0.5, 1.0])], ColumnsConfig())
    assert [row.target for row in (*train, *test)] == ["1.0", "0.0", "0.5", "1.0"]


def test_inputs_are_as_they_were_written() -> None:
    records = [Record({"input": "1.0", "target": "a"}, "a line 2")]
    assert rows_of([records], ColumnsConfig())[0][0].input == "1.0"


def test_whole_numbers_that_are_read_without_their_point_are_said(caplog: pytest.LogCaptureFixture) -> None:
    _targets("1.0", "0.0")
    _targets("1", "0")
    assert [record.getMessage() for record in caplog.records] == [
        "a line 1: column 'target' holds whole numbers: 1.0 is read as 1"
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([True, 0, 1], "a line 2: column 'target' is a number, but a line 1 is a truth value; write"),
        ([0.5, float("inf")], "a line 2: column 'target' is an infinite number, or too large for one"),
        (["a", float("nan")], "a line 2: column 'target' is empty; fill it or remove the row"),
        ([Decimal("Infinity")], "a line 1: column 'target' is an infinite number"),
        ([10**5000], "a line 1: column 'target' is a number of too many digits"),
        ([b"a"], "a line 1: column 'target' is a bytes; use text"),
        ([{"a": 1}], "a line 1: column 'target' is a dict; use text"),
    ],
)
def test_a_value_without_a_certain_text_is_an_error(values: list[object], message: str) -> None:
    with pytest.raises(DataError) as raised:
        _targets(*values)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("    def f():\n        return 1\n", "    def f():\n        return 1"),
        ("\n \n    x = 1\n    y = 2\n\n", "    x = 1\n    y = 2"),
        ("        return y\n", "        return y"),
        ("\treturn y\n", "\treturn y"),
        ("  ham ", "ham"),
        (" ham\n", "ham"),
        ("\n ham", "ham"),
        (" a\nb ", " a\nb"),
    ],
)
def test_texts_of_several_lines_keep_the_blanks_at_their_start(written: str, read: str) -> None:
    assert _targets(written) == [read]


@given(text=st.text(alphabet="a \n\t\r\x0b", max_size=12).filter(str.strip))
def test_a_text_has_neither_white_space_at_its_end_nor_a_blank_line_at_its_start(text: str) -> None:
    (read,) = _targets(text)
    assert read == read.rstrip()
    assert read.split("\n")[0].strip()
    assert read.strip() == text.strip()
    assert _targets(read) == [read] or "\n" not in read


@pytest.mark.parametrize(
    "cell",
    ["['b', 'c']", '["b", "c"]', "['b' 'c']", "('b', 'c')", ["b", "c"], "['b', nan, 'c']", ["b", None, "c"]],
)
def test_negatives_are_lists_in_every_notation(cell: object) -> None:
    assert _negatives("a", cell) == [("b", "c")]


def test_negatives_that_merely_begin_with_a_bracket_are_texts() -> None:
    assert _negatives("a", "[sic] bad", "[b", "(c)") == [("[sic] bad",), ("[b",), ("(c)",)]
    assert _negatives("a", "['b']", "[sic] bad") == [("b",), ("[sic] bad",)]
    assert _negatives("a", "[b]", "c") == [("[b]",), ("c",)]


def test_a_list_of_numbers_beside_such_a_target_is_one_negative() -> None:
    assert _negatives("[1, 2]", "[2, 1]", "['[2, 2]', '[1, 1]']") == [("[2, 1]",), ("[2, 2]", "[1, 1]")]
    assert _negatives("a", "[2, 1]") == [("2", "1")]


@pytest.mark.parametrize("cells", [["['b', 'c']", "['b' c]"], ["[b, c]"], ["['b', 'c']", "[... 'c']x]"]])
def test_a_list_that_cannot_be_read_is_an_error(cells: list[str]) -> None:
    with pytest.raises(
        DataError, match=r"a line \d: column 'no' is in brackets but no list that can be read"
    ):
        _negatives("a", *cells)


def test_negatives_are_spelled_like_the_targets() -> None:
    (rows,) = rows_of([_records([1.0, 0.0], [[0.0], "2.0"])], _NEGATIVES)
    assert [(row.target, row.negatives) for row in rows] == [("1", ("0",)), ("0", ("2.0",))]


def _several(answers: Sequence[object], name: str, folder: Path) -> list[Record]:
    """Rows with the answers as a file of the type that `name` has, or as a table in Python."""
    frame = pd.DataFrame({"input": [f"q{n}" for n in range(len(answers))], "target": answers})
    path = folder / name
    if name == "frame":
        return list(records_of("a", frame))
    if name.endswith(".csv"):
        frame.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        frame.to_parquet(path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    else:
        frame.to_json(path, orient="records", lines=True)
    return list(read_records(path))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet", "frame"])
def test_several_answers_in_a_row_are_refused_alike_in_all_formats(name: str, tmp_path: Path) -> None:
    records = _several([["billing"], ["urgent", "billing"]], name, tmp_path)
    with pytest.raises(
        DataError, match=r"column 'target' is a list of answers, and a row has one; write one"
    ):
        rows_of([records], ColumnsConfig())


@pytest.mark.parametrize(
    "targets",
    [
        ["['a']", "['a' 'b']"],
        ['["a"]', "[]"],
        ["('a', 'b')", "('a',)"],
        ["a", "b", "['a', 'b']"],
        [str(np.array(["a", "b"])), "['c']"],
    ],
)
def test_texts_that_are_certainly_lists_of_answers_are_refused(targets: list[str]) -> None:
    with pytest.raises(DataError, match=r"is a list of answers"):
        _targets(*targets)


@pytest.mark.parametrize(
    "targets",
    [
        ["[ [", "] )"],
        ["[1] see", "[2] see"],
        ["['a', 'b']", "3", "None"],  # outputs of programs
        ["[1, 2, 3]", "[3]"],
        ["(A)", "(B)"],
        ['{"name": "a"}', "{}"],
    ],
)
def test_answers_with_brackets_are_texts(targets: list[str]) -> None:
    assert _targets(*targets) == targets


def test_lists_of_numbers_as_answers_are_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _targets("[1, 2]", "[2]")
    assert "column 'target': its lists are read as texts" in caplog.text


def _row(values: Mapping[str, object], **columns: str) -> Row:
    record = Record(values, "a line 2", "a line 1")
    return rows_of([[record]], ColumnsConfig.model_validate(columns))[0][0]


def test_blanks_around_the_name_of_a_column_do_not_matter() -> None:
    assert _row({"input": "x", " target ": "y"}).target == "y"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"input": "x", "Target": "y"},
            "a line 1: there is no column 'target', only input, Target; write 'Target'",
        ),
        (
            {"input": "x", "target": "y", "Target": "z"},
            "a line 1: the columns 'target' and 'Target' differ in case",
        ),
        (
            {"input": "x", "target": "y", "target ": "z"},
            "a line 1: the columns 'target' and 'target ' differ in",
        ),
        ({"x" * 50 + str(n): "y" for n in range(99)}, "…; set columns.input to the column with the input"),
    ],
)
def test_a_column_that_is_missing_or_ambiguous_is_an_error(
    values: Mapping[str, object], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        _row(values)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 600


def test_columns_that_are_not_used_may_have_similar_names() -> None:
    assert _row({"input": "x", "target": "y", "Note": 1, "note": 2}).target == "y"


@pytest.mark.parametrize("kind", ["float32", "float16", "Float32"])
def test_numbers_of_low_precision_have_their_shortest_text(kind: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"input": ["a", "b"], "target": pd.array([0.1, 1.0], dtype=kind)})
    (rows,) = rows_of([records_of("a", frame)], ColumnsConfig())
    assert [row.target for row in rows] == ["0.1", "1.0"]
    frame.to_parquet(tmp_path / "a.parquet")
    (stored,) = rows_of([read_records(tmp_path / "a.parquet")], ColumnsConfig())
    assert [row.target for row in stored] == ["0.1", "1.0"]


def test_values_of_numpy_have_the_texts_of_pythons() -> None:
    rows = [{"input": np.float32(0.1), "target": np.datetime64("2024-01-05T06", "ns")}]
    (read,) = rows_of([records_of("a", rows)], ColumnsConfig())
    assert (read[0].input, read[0].target) == ("0.1", "2024-01-05 06:00:00")


def test_infinite_numbers_of_json_are_errors(tmp_path: Path) -> None:
    for text in ("1e400", "-Infinity"):
        (tmp_path / "a.jsonl").write_text(f'{{"input": "x", "target": {text}}}\n', encoding="utf-8")
        with pytest.raises(DataError, match=r"a\.jsonl line 1: column 'target' is an infinite number"):
            rows_of([read_records(tmp_path / "a.jsonl")], ColumnsConfig())


def test_rows_of_any_values_are_rows_or_a_data_error() -> None:
    values: list[object] = [
        None,
        "",
        " ",
        [],
        {},
        b"",
        object(),
        set(),
        ...,
        1j,
        json.loads("[NaN]"),
        "\ud800",
    ]
    for value in values:
        with pytest.raises(DataError) as raised:
            _targets(value)
        assert "\n" not in str(raised.value)
