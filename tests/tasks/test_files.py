"""Data files: found, decompressed, decoded, and errors that say what to do."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from pmpo_ray.errors import DataError
from pmpo_ray.tasks.files import read_records, suffix_of

_CSV = "input,target\nwer,müller\n"
_LINES = '{"input": "wer", "target": "müller"}\n'


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # the same bytes in every process of the tests


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", _CSV.encode("utf-8-sig")),
        ("a.CSV", _CSV.encode("utf-16")),
        ("a.csv", _CSV.replace("\n", "\r").encode()),
        ("a.csv", b"\xfe\xff" + _CSV.replace(",", "\t").encode("utf-16-be")),
        ("a.tsv", _CSV.replace(",", "\t").encode()),
        ("a.tsv", _CSV.encode()),
        ("a.csv.gz", _gzip(_CSV.encode())),
        ("a.tsv.gz", _gzip(_CSV[:12].encode()) + _gzip(_CSV[12:].encode()) + b"\0" * 512),
        ("a.jsonl.gz", _gzip(_LINES.encode())),
        ("a.JSON.GZ", _gzip(f"[{_LINES}]".encode("utf-16"))),
    ],
)
def test_a_file_is_read_as_programs_write_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (record,) = read_records(tmp_path / name)
    assert record.values == {"input": "wer", "target": "müller"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\nc,d\nü,e\n".encode("latin-1"), r"a\.csv line 3: is not UTF-8 text \(byte 8\); save"),
        ("a.csv", b"a\0,\0b\0\n\0", r"a\.csv line 1: is not UTF-8 text \(byte 1\)"),
        ("a.csv", _CSV.encode("utf-16")[:-1], r"a\.csv line \d+: is not UTF-16 text"),
        ("a.csv", _gzip(b"a,b\n"), r"a\.csv: is compressed; add \.gz to its name"),
        (
            "a.csv",
            b"PK\x03\x04xl/workbook",
            r"a\.csv: is a spreadsheet or a ZIP archive; save the rows as CSV",
        ),
        ("a.csv.gz", b"a,b\n", r"a\.csv\.gz: is not a gzip file"),
        ("a.csv.gz", _gzip(_CSV.encode())[:-9], r"a\.csv\.gz: the compressed file is cut off"),
        ("a.csv.gz", b"", r"a\.csv\.gz: has no rows"),
        (
            "a.jsonl.gz",
            _gzip(b" " * 2**20 * 110),
            r"bytes decompress to more than 100 MiB; if you trust",
        ),
        (
            "a.xlsx",
            b"PK",
            r"a\.xlsx: unknown file type '\.xlsx'; use a file that ends in one of \.csv, \.tsv",
        ),
        ("a.parquet.gz", b"", r"unknown file type '\.gz'"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_do(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_records(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_missing_file_names_those_nearby(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"train\.csv: no such file; .* has no file of this kind; check the path"
    ):
        read_records(tmp_path / "train.csv")
    for name in ("trian.csv", "other.jsonl", "x.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"train\.csv: no such file; did you mean trian\.csv in "):
        read_records(tmp_path / "train.csv")
    with pytest.raises(
        DataError, match=r"zzz\.csv: no such file; .* has other\.jsonl, trian\.csv; check the"
    ):
        read_records(tmp_path / "zzz.csv")
    with pytest.raises(DataError, match=r"no such file; there is no folder .*/absent; check the path"):
        read_records(tmp_path / "absent" / "a.csv")
    with pytest.raises(DataError, match=r"no such file; there is no folder .*/x\.py; check the path"):
        read_records(tmp_path / "x.py" / "a.csv")


def test_a_path_that_is_no_file_is_one_short_line(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    for path, message in [
        (tmp_path / "folder.csv", "is a folder; name the file in it"),
        (tmp_path / "pipe.csv", "is not a regular file"),
        (tmp_path / "loop.csv", "cannot be read"),
        (tmp_path / f"{'x' * 5000}.csv", "cannot be read (File name too long); check the path"),
        (Path("a\0.csv"), "is not a path"),
    ]:
        with pytest.raises(DataError) as raised:
            read_records(path)
        assert message in str(raised.value)
        assert len(str(raised.value)) < 500


def test_a_path_may_begin_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.csv").write_text(_CSV)
    assert len(read_records(Path("~/a.csv"))) == 1
    with pytest.raises(DataError, match="no such file"):
        read_records(Path("~nobody-here/a.csv"))


def test_the_ending_of_a_name_tells_data_files_from_others() -> None:
    assert [suffix_of(name) for name in ("a.CSV", "a.b.jsonl.gz", "a.parquet")] == [
        ".csv",
        ".jsonl.gz",
        ".parquet",
    ]
    assert [suffix_of(name) for name in ("a.yaml", "a.gz", "csv", "runs/a.csv/x")] == [None] * 4
