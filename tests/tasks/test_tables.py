"""Parquet files and tables of `datasets`: the values that their schema means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.files import read_records
from pmpo_ray.tasks.hub import data_set_records
from pmpo_ray.tasks.tables import table_records

_NAMES = ["ham", "spam"]


def _labelled(answers: Sequence[int]) -> datasets.Dataset:
    features = datasets.Features({"answer": datasets.ClassLabel(names=_NAMES)})
    return datasets.Dataset.from_dict({"answer": answers}, features=features)


def _column(table: pa.Table) -> list[Any]:
    return [record.values["answer"] for record in table_records(table, "a")]


def test_the_schema_of_a_parquet_file_names_its_classes(tmp_path: Path) -> None:
    _labelled([0, 1, -1]).to_parquet(tmp_path / "a.parquet")
    records = read_records(tmp_path / "a.parquet")
    assert [record.values["answer"] for record in records] == ["ham", "spam", None]
    assert records[1].where == f"{tmp_path / 'a.parquet'} row 2"


@pytest.mark.parametrize("form", [None, "numpy", "pandas", "arrow"])
def test_a_data_set_has_the_same_rows_in_every_format(form: str | None) -> None:
    table = _labelled([1, 0, 1]).rename_column("answer", "label").select([1, 2]).with_format(form)
    assert [record.values for record in data_set_records(table, "a")] == [{"label": "ham"}, {"label": "spam"}]


def test_lists_of_classes_have_names_too() -> None:
    features = datasets.Features({"answer": datasets.List(datasets.ClassLabel(names=_NAMES))})
    table = datasets.Dataset.from_dict({"answer": [[0, 1], []]}, features=features)
    assert _column(table.with_format("arrow")[:]) == [["ham", "spam"], []]


def test_a_class_without_a_name_is_an_error() -> None:
    schema = _labelled([0]).with_format("arrow")[:].schema
    table = pa.Table.from_arrays([pa.array([0, 2])], schema=schema)
    with pytest.raises(DataError, match=r"^a: column 'answer' of row 2 is 2, but its schema names 2 classes"):
        list(table_records(table, "a"))


def test_metadata_of_another_program_are_not_read() -> None:
    for content in (b"x", b"[]", b'{"info": 1}', b'{"info": {"features": {"answer": {}}}}'):
        table = pa.table({"answer": [1]}).replace_schema_metadata({b"huggingface": content})
        assert _column(table) == [1]


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    parquet.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"a\.parquet: the column 'a' stands twice"):
        read_records(tmp_path / "a.parquet")


def test_folders_around_a_file_are_no_columns(tmp_path: Path) -> None:
    (tmp_path / "split=train").mkdir()
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "split=train" / "a.parquet")
    (record,) = read_records(tmp_path / "split=train" / "a.parquet")
    assert record.values == {"a": 1}


def test_values_keep_what_their_type_tells_apart() -> None:
    cases: list[tuple[pa.Array, list[object]]] = [
        (pa.array([0.1, None, 1.0], pa.float32()), [0.1, None, 1.0]),
        (pa.array([2**63], pa.uint64()), [2**63]),
        (pa.array([Decimal("1.50")]), [Decimal("1.50")]),
        (pa.array([date(2024, 1, 5)]), [date(2024, 1, 5)]),
        (pa.array([datetime(2024, 1, 5, 6)]), [datetime(2024, 1, 5, 6)]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
    ]
    for array, expected in cases:
        assert _column(pa.table({"answer": array})) == expected
