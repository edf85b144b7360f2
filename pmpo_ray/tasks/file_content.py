"""The contents of data files: found, decompressed and decoded.

Invariants: a file that cannot be read is one line with its place and what to do; a file that was compressed
beyond what texts allow is refused before it fills the memory.
"""

from __future__ import annotations

import codecs
import zlib
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from pmpo_ray.config.paths import missing_file
from pmpo_ray.errors import DataError
from pmpo_ray.text import shortened_name

_FREE_BYTES = 100 * 2**20
"""The size up to which a file may be compressed as much as it can."""
_MAX_RATIO = 200
"""The maximum ratio of a larger file to its compressed form; that of texts is 3 to 30."""
_MAX_BYTES = 8 * 2**30
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"


def place_of(path: Path) -> str:
    """A path as errors show it: on one line of bounded length."""
    return shortened_name(str(path), 300)


def require_file(path: Path, suffixes: tuple[str, ...], remedy: str | None = None) -> None:
    """Raise DataError if `path` is not a file. The error for a missing one ends in `remedy`, or else names
    files nearby that end in one of `suffixes`."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        advice = remedy or missing_file(path, suffixes)
        raise DataError(f"{place_of(path)}: no such file; {advice}") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # a NUL character
        raise DataError(f"{place_of(path)}: is not a path ({error}); correct it") from error
    if S_ISDIR(mode):
        raise DataError(f"{place_of(path)}: is a folder; name the file in it")
    if not S_ISREG(mode):
        raise DataError(f"{place_of(path)}: is not a regular file; write the data to a file")


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not let this process read."""
    return DataError(
        f"{place_of(path)}: cannot be read ({error.strerror or error}); check the path and its permissions"
    )


def text_of_file(path: Path) -> str:
    """The text of a file, decompressed if its name ends in .gz. It is UTF-8, or UTF-16 with a byte order
    mark, as spreadsheets write it.

    Raises OSError, and DataError for a file that is damaged, not text, or much larger than its compressed
    form.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = _decompressed(content, place_of(path))
    elif content.startswith(_GZIP):
        raise DataError(f"{place_of(path)}: is compressed; add .gz to its name")
    if content.startswith(_ZIP):
        raise DataError(f"{place_of(path)}: is a spreadsheet or a ZIP archive; save the rows as CSV in UTF-8")
    return _decoded(content, place_of(path))


def _decompressed(content: bytes, where: str) -> bytes:
    limit = min(max(_FREE_BYTES, _MAX_RATIO * len(content)), _MAX_BYTES)
    parts: list[bytes] = []
    size = 0
    rest = content
    try:
        while rest:  # a file may have several members
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                part = member.decompress(rest, _CHUNK)
                rest = member.unconsumed_tail
                size += len(part)
                parts.append(part)
                if size > limit:
                    raise DataError(
                        f"{where}: its {len(content)} bytes decompress to more than {limit >> 20} MiB; if "
                        "you trust the file, decompress it first"
                    )
                if not part and not rest and not member.eof:
                    raise DataError(f"{where}: the compressed file is cut off; copy it again")
            rest = member.unused_data.lstrip(b"\0")  # padding of tapes and block devices
    except zlib.error as error:
        raise DataError(f"{where}: is not a gzip file ({error}); compress it again") from error
    return b"".join(parts)


def _decoded(content: bytes, where: str) -> str:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if wide else "UTF-8"
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(content, error.start, encoding, where) from error
    if "\0" in text:  # valid in UTF-8, but only texts in another encoding have it
        raise _not_text(content, content.index(0), encoding, where)
    return text


def _not_text(content: bytes, place: int, encoding: str, where: str) -> DataError:
    line = content.count(b"\n", 0, place) + 1
    return DataError(
        f"{where} line {line}: is not {encoding} text (byte {place}); save the file as UTF-8 (in "
        "spreadsheets: CSV UTF-8)"
    )
