"""Whether a run folder could be written at an address.

Invariant: nothing is left behind but, in object storage, the empty mark of a folder.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from pmpo_ray.doctor.machine import existing
from pmpo_ray.errors import RunFolderError
from pmpo_ray.store.folder import Folder


def inspect_storage(location: str) -> str:
    """Write, read and remove a small file; what went wrong, empty for nothing."""
    content = secrets.token_bytes(8)
    name = f".doctor-{content.hex()}"
    try:
        folder = _there(location)
        folder.write(name, content)
        back = folder.read(name)
        folder.remove(name)
    except RunFolderError as error:
        return str(error)
    return "" if back == content else f"{folder.path()} gives back what was not written; use another folder"


def _there(location: str) -> Folder:
    """The folder itself, or on a disk the nearest one above it that there is: to make one is for the run."""
    folder = Folder(location)
    path = folder.local_path("")
    return folder if path is None else Folder(str(existing(Path(path))))
