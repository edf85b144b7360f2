"""One folder of files, on a local disk or in object storage, through pyarrow.fs.

Invariants: a file appears under its name whole or not at all, even if the writer is killed; the content of a
local file is on the disk before its name is. On a local disk, folders made here and all files are their
owner's alone, since they hold data, prompts and replies; a folder that was there keeps its mode. Every
failure is a RunFolderError that names the file. No error text or file name contains a credential, because
addresses that contain one are refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from pyarrow import fs

from pmpo_ray.errors import RunFolderError
from pmpo_ray.redaction import key_form
from pmpo_ray.text import error_line

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES = ("file", "s3", "gs", "gcs")
_TEMPORARY = re.compile(r"\.tmp-([0-9]+)-(.+)-[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
"""The modes of files and folders on a local disk."""
_GCS_RETRY_SECONDS = 60
"""Google's client would retry a failing request for 15 minutes before it reports the error."""


class Folder:
    """The files below one address: a local path, or a file://, s3:// or gs:// URI with parameters for
    pyarrow.fs (such as endpoint_override, scheme and region). Names of files are relative, with "/".

    It has no open file and no state except the address, so several threads may share it.
    """

    def __init__(self, location: str) -> None:
        """Raises RunFolderError if the address cannot be used."""
        _check_address(location)
        uri = _URI.match(location)
        if uri is None:
            path = Path(location).expanduser() if location.startswith("~/") else Path(location)
            self._filesystem, self._base = fs.LocalFileSystem(), str(path.absolute())
        else:
            self._filesystem, self._base = _from_uri(location)
        self._local = isinstance(self._filesystem, fs.LocalFileSystem)
        self._shown = self._base if uri is None else f"{uri[1]}://{self._base}"
        self.location = self._base if uri is None else location

    def local_path(self, name: str) -> Path | None:
        """The path of a file of this folder on the disk; None for a folder in object storage."""
        return Path(self._full(name)) if self._local else None

    def path(self, name: str = "") -> str:
        """The address of a file as error texts show it: quoted, on one line."""
        return repr(self.address(name) if name else self._shown)

    def address(self, name: str) -> str:
        """The address of a file, without the parameters of a URI."""
        return f"{self._shown}/{name}"

    def create(self) -> None:
        """Create the folder on a local disk, if it is absent."""
        if self._local:
            self._make(exist_ok=True)

    def create_new(self) -> bool:
        """Create the folder on a local disk; False if it exists already, whoever made it."""
        try:
            self._make(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _make(self, *, exist_ok: bool) -> None:
        """Create the folder. Raises FileExistsError if it is there and not `exist_ok`."""
        path = Path(self._base)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=exist_ok)
        except OSError as error:
            if isinstance(error, FileExistsError) and not exist_ok and path.parent.is_dir():
                raise
            raise RunFolderError(
                f"cannot create the run folder {self.path()}: {_obstacle(path, error)}"
            ) from error

    def exists(self, name: str) -> bool:
        try:
            return bool(self._filesystem.get_file_info(self._full(name)).type == fs.FileType.File)
        except NotADirectoryError:
            return False
        except OSError as error:
            raise self.failure("read", name, error) from error

    def names(self, folder: str) -> list[str]:
        """The names of all files directly in `folder`; empty if it does not exist."""
        try:
            infos = self._filesystem.get_file_info(fs.FileSelector(self._full(folder), allow_not_found=True))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise self.failure("list", folder, error) from error
        return [info.base_name for info in infos if info.type == fs.FileType.File]

    def read(self, name: str) -> bytes | None:
        """The content of a file; None if it does not exist."""
        try:
            with self._filesystem.open_input_stream(self._full(name), compression=None) as stream:
                return bytes(stream.readall())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.failure("read", name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Write or replace the file `name`, and create the folders that it needs."""
        try:
            if self._local:
                self.create()
                write_private(Path(self._full(name)), content, Path(self._base))
            else:
                # The content is complete before the upload starts; an object appears when its upload ends.
                with self._filesystem.open_output_stream(self._full(name), compression=None) as stream:
                    stream.write(content)
        except OSError as error:
            raise self.failure("write", name, error) from error

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        try:
            self._filesystem.delete_file(self._full(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.failure("remove", name, error) from error

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file; another one of the new name is replaced."""
        try:
            self._filesystem.move(self._full(name), self._full(new_name))
        except OSError as error:
            raise self.failure("rename", name, error) from error

    def clean(self) -> None:
        """Remove the temporary files that killed processes of this machine left in this folder and the
        folders below. Those of live processes stay, so a report may open the folder of an active run."""
        if not self._local:
            return
        base = Path(self._base)
        for path in (
            *base.glob(".tmp-*"),
            *base.glob("scores/.tmp-*"),
            *base.glob("evaluation/.tmp-*"),
            *base.glob("replicas/.tmp-*"),
            *base.glob("tasks/*/.tmp-*"),
        ):
            parts = _TEMPORARY.fullmatch(path.name)
            if parts and parts[2] == socket.gethostname() and not alive(int(parts[1])):
                # Without write permission, the folder can still be read.
                with contextlib.suppress(OSError):
                    path.unlink()

    def failure(self, action: str, name: str, error: OSError) -> RunFolderError:
        """The error for a user whose file `name` could not be used: the failed action ("read", "write"), the
        reason, and what to do."""
        reason = file_error_line(error)
        return RunFolderError(
            f"cannot {action} {self.path(name)}: {reason}; {_advice(error, local=self._local)}"
        )

    def _full(self, name: str) -> str:
        return f"{self._base}/{name}"


def file_error_line(error: Exception) -> str:
    """The text of an error of the operating system or of pyarrow, on one line of bounded length."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return error_line(text)


def _check_address(location: str) -> None:
    if not location or "\0" in location:
        raise RunFolderError(
            f"run folder {location!r}: not a path; use a local path or a file://, s3:// or gs:// URI"
        )
    try:
        location.encode()
    except UnicodeEncodeError as error:
        raise RunFolderError(f"run folder {location!r}: not valid Unicode; choose another name") from error
    uri = _URI.match(location)
    if uri is None:
        return
    if uri[1].lower() not in _SCHEMES:
        raise RunFolderError(
            f"run folder: {uri[1]}:// addresses are not supported; use a local path, s3:// or gs://"
        )
    host = re.split("[/?#]", location[uri.end() :])[0].removeprefix("anonymous@")
    # A key that contains "/" leaves no "@" in this part, but the ":" before the key is in it.
    if "@" in host or ":" in host or key_form(location) is not None:
        raise RunFolderError(
            f"run folder: the {uri[1]}:// address contains credentials (or a port), which would end up in "
            "files; remove them and set them in the environment (a port as endpoint_override)"
        )
    if "#" in location:
        raise RunFolderError(f"run folder {location!r}: a URI cannot contain '#'; write it as %23")


def _from_uri(location: str) -> tuple[fs.FileSystem, str]:
    try:
        parts = urlsplit(location)
        if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parse_qs(parts.query):
            location += f"{'&' if parts.query else '?'}retry_limit_seconds={_GCS_RETRY_SECONDS}"
        filesystem, base = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RunFolderError(
            f"run folder {location!r}: {file_error_line(error)}; check the address (spaces and special "
            "characters as %XX), the bucket, its region and endpoint_override"
        ) from error
    if not base.strip("/"):
        raise RunFolderError(f"run folder {location!r}: no folder in the address; add one after the //")
    return filesystem, base.rstrip("/")


def write_private(path: Path, content: bytes, base: Path) -> None:
    """Write or replace a file below the folder `base` that its owner alone can read. It appears whole or not
    at all. Folders between them are made in the same way. Raises OSError."""
    for folder in reversed((path.parent, *path.parent.parents)):
        if folder.is_relative_to(base):
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
    name = f".tmp-{os.getpid()}-{socket.gethostname()}-{secrets.token_hex(8)}"
    temporary = path.parent / name
    try:
        with open(temporary, "xb", opener=_private) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    opened = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_document(location: str, path: Path, content: bytes) -> None:
    """Write a document about the run in the folder `location` to a path on this machine's disk, and make the
    folders that it needs. In the run folder it is the owner's alone, as everything there. Raises OSError."""
    base = Folder(location).local_path("")
    if base is not None and path.resolve().is_relative_to(base.resolve()):
        write_private(path.resolve(), content, base.resolve())
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


def _obstacle(path: Path, error: OSError) -> str:
    """The reason why a folder cannot be created, and what to do."""
    here = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not here.is_dir():
        kind = "a file" if here.exists() else "a broken link"
        return f"{str(here)!r} is {kind}; choose another --run-dir"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write in {str(here)!r}; change that, or choose another --run-dir"
    if error.errno == errno.ENOENT:
        return f"the system keeps no files of others in {str(here)!r}; choose another --run-dir"
    return f"{file_error_line(error)}; {_advice(error, local=True)}"


def alive(process: int) -> bool:
    """True if this machine has a process with this id; one that is not reaped yet counts."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _advice(error: OSError, *, local: bool) -> str:
    if not local:
        return (
            "check that the bucket exists, its region and endpoint_override in the URI, and that credentials "
            "are set in the environment"
        )
    if error.errno in _FULL:
        return "the disk is full: free some space and resume the run"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make the folder readable and writable, or choose another run folder"
    return "choose another run folder"
