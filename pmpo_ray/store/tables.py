"""Parquet files as bytes: how tables and the texts in them are written and read back.

Always true: what is read back equals what was written, any Unicode and any float included, and the files
are plain Parquet. A lone surrogate, which UTF-8 cannot hold but a model server's reply can, is written as
U+001A and its four hex digits, and so is U+001A itself; every other text stands as it is.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq

_TO_ESCAPE = re.compile("[\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9A-F]{4})")


def escape(text: str) -> str:
    """`text` as a Parquet string can hold it."""
    return _TO_ESCAPE.sub(lambda match: f"\x1a{ord(match[0]):04X}", text)


def unescape(text: str) -> str:
    """The text that `escape` was given."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def to_parquet(table: pa.Table) -> bytes:
    """One file with checksums, so that damage is found when it is read."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def from_parquet(content: bytes, schema: pa.Schema) -> pa.Table:
    """The table in a file.

    Raises ValueError, OSError or pa.ArrowException if the file is damaged or its columns are not `schema`'s.
    """
    # Without Arrow's threads: the files are small, and a thread that is still about when a short command
    # ends makes the process abort.
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True, pre_buffer=False) as file:
        table = file.read(use_threads=False)
    if not table.schema.equals(schema, check_metadata=False):
        raise ValueError("its columns are not those of this version")
    return table
