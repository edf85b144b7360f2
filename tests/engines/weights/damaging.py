"""Damage to files of a model that leaves their size as it is."""

from __future__ import annotations

from pathlib import Path


def overwrite(file: Path) -> None:
    """Replace one byte in the middle of the file by another."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
