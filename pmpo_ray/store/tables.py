"""Parquet files as bytes: writing and reading tables and the texts in them.

Invariant: tables read back equal those written, for any Unicode and any float, and the files are plain
Parquet. A lone surrogate, which UTF-8 cannot encode but a model server's reply can contain, is written as
U+001A and its four hex digits, and so is U+001A itself; all other text is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

ESCAPE = "\x1a"
"""The character with which every escape begins."""
_TO_ESCAPE = re.compile("[\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9A-F]{4})")


def escape(text: str) -> str:
    """`text` in a form that a Parquet string can represent."""
    return _TO_ESCAPE.sub(lambda match: f"\x1a{ord(match[0]):04X}", text)


def unescape(text: str) -> str:
    """The text of which `escape` made this one."""
    return text if ESCAPE not in text else _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def to_parquet(table: pa.Table) -> bytes:
    """One file with checksums, so that damage is detected when it is read."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def from_parquet(
    content: bytes, schema: pa.Schema, columns: Sequence[str] | None = None, *, added: Collection[str] = ()
) -> pa.Table:
    """The table in a file, or only some of its columns. Files of earlier versions lack the columns `added`,
    which are then null.

    Raises ValueError, OSError or pa.ArrowException if the file is damaged or its columns are others.
    """
    # Without Arrow's threads: the files are small, and a thread that still runs when a short command ends
    # makes the process abort.
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True, pre_buffer=False) as file:
        found = file.schema_arrow
        expected = [field for field in schema if field.name in found.names or field.name not in added]
        if not found.equals(pa.schema(expected), check_metadata=False):
            raise ValueError("its columns are not those of this version")
        wanted = list(schema.names if columns is None else columns)
        table = file.read([name for name in wanted if name in found.names], use_threads=False)
    for number, name in enumerate(wanted):
        if name not in found.names:
            field = schema.field(name)
            table = table.add_column(number, field, pa.nulls(len(table), field.type))
    return table
