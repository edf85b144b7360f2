"""Notes: what a user should see at once although nothing is wrong, such as where a key goes.

Invariant: the command line shows every note on standard error; in Python they are log records of level INFO.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

NOTES = "pmpo_ray.notes"
"""The logger of notes."""


def note(text: str) -> None:
    """Tell the user something, on one line."""
    logging.getLogger(NOTES).info(text)


@contextmanager
def notes_on(stream: TextIO) -> Iterator[None]:
    """Show notes on `stream`, for a process that has no command line's log."""
    logger, handler = logging.getLogger(NOTES), logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
