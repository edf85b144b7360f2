"""Standard output of the `pmpo` command, when it is closed, full, or read by nobody.

Invariants: whatever cannot be written raises OutputError, and nothing else; no file of the command gets the
number of a standard stream that was closed at the start.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING

from pmpo_ray.errors import PmpoError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_OUTPUT = 1
_REASONS = {errno.EPIPE: "its reader has gone", errno.EBADF: "it is closed"}


class OutputError(PmpoError):
    """Standard output cannot be written. `reader_gone`: a program that read it, such as head, has ended."""

    def __init__(self, error: OSError) -> None:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        super().__init__(f"standard output cannot be written: {reason}")
        self.reader_gone = error.errno == errno.EPIPE


class _Output(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputError(error) from error


def open_standard_streams() -> None:
    """Replace sys.stdout by a stream whose failures are OutputErrors, and open the standard streams that were
    closed at the start. A closed standard output fails when it is written to."""
    for number, flags in ((0, os.O_RDONLY), (_OUTPUT, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
    raw = _Output(_OUTPUT, "w", closefd=False)
    # Characters that the terminal's encoding lacks become escapes.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=raw.isatty()
    )
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def discard(number: int) -> None:
    """Let what is still written to a standard stream vanish: Python would fail to flush it at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, number)
    os.close(devnull)
