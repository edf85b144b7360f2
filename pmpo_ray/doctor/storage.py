"""Check if a run folder can be written at an address.

Invariant: nothing is left behind except, in object storage, the empty marker of a folder.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pmpo_ray.doctor.machine import existing
from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder


def inspect_storage(location: str) -> str:
    """Write, read and remove a small file. Return the problem, empty if there is none."""
    content = secrets.token_bytes(8)
    name = f".doctor-{content.hex()}"
    try:
        folder = _existing_folder(location)
        folder.write(name, content)
        read = folder.read(name)
        folder.remove(name)
    except RunFolderError as error:
        return str(error)
    if read != content:
        return f"{folder.path()} returns other content than was written; use another folder"
    return ""


def _existing_folder(location: str) -> Folder:
    """The folder itself or, on a disk, the nearest existing one above it: only the run creates the folder."""
    folder = Folder(location)
    path = folder.local_path("")
    return folder if path is None else Folder(str(existing(Path(path))))
