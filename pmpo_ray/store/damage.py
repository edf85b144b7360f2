"""Damaged files of a run folder.

Invariants: whatever a file contains, reading it gives a value or a DamagedFileError of one line. A file that
can be made again, or that is not needed, is left out with one warning, which says what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder, file_error_line

T = TypeVar("T")

DECODING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    pa.ArrowException,
)
"""The errors of json, pyarrow and the decoders of this room on content that nobody of them wrote."""
_log = logging.getLogger(__name__)


class DamagedFileError(RunFolderError):
    """The content of a file cannot be decoded, or a file that has to be there is missing."""


@contextmanager
def decoding(folder: Folder, name: str, advice: str) -> Iterator[None]:
    """Turn the errors of decoding the file `name` into a DamagedFileError that ends in `advice`."""
    try:
        yield
    except DECODING_ERRORS as error:
        raise DamagedFileError(
            f"{folder.path(name)} is damaged or of another version: {file_error_line(error)}; {advice}"
        ) from error


class DamagedFiles:
    """The damaged files of a folder that were found and left out: each is `named` in one warning."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.named: set[str] = set()

    def decoded(self, name: str, decode: Callable[[bytes], T], consequence: str) -> T | None:
        """The value of the file `name`; None if it does not exist, or, with a warning that ends in
        `consequence`, if it is damaged."""
        content = self._folder.read(name)
        if content is None:
            return None
        try:
            with decoding(self._folder, name, consequence):
                return decode(content)
        except DamagedFileError as error:
            self.leave_out(name, str(error))
            return None

    def leave_out(self, name: str, text: str) -> None:
        """Warn once about the file `name`."""
        if name not in self.named:
            self.named.add(name)
            _log.warning("%s", text)

    def set_aside(self, name: str) -> str:
        """Rename the file `name`, so that it can be written again, and return its new name."""
        aside = f"{name}.damaged"
        self._folder.rename(name, aside)
        return aside

    def set_all_aside(self, names: Sequence[str], of: str, then: str) -> None:
        """Set files aside with one warning for all: so many `of` a number, and what is done `then`."""
        for name in names:
            self.set_aside(name)
        if names:
            _log.warning(
                "%d %s damaged, such as %s: set aside as *.damaged and %s",
                len(names),
                of,
                self._folder.path(names[0]),
                then,
            )
