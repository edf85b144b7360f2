"""One folder of files, on a local disk or in object storage, through pyarrow.fs.

Always true: a file appears under its name whole or not at all, whatever kills the writer; a local file is on
the disk before its name is. Every failure is a RunFolderError that names the file, and no error text or file
name ever holds a credential, since addresses that hold one are refused.
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
from pmpo_ray.text import error_line

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES = ("file", "s3", "gs", "gcs")
_TEMPORARY = re.compile(r"\.tmp-([0-9]+)-(.+)-[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Google's client would repeat a failing request for 15 minutes before it says why.
_GCS_RETRY_SECONDS = 60


class Folder:
    """The files below one address: a local path, or a file://, s3:// or gs:// URI whose parameters (such as
    endpoint_override, scheme and region) pyarrow.fs understands. Names of files are relative, with "/".

    Holds no open file and no state besides the address, so threads may share it.
    """

    def __init__(self, location: str) -> None:
        """Raises RunFolderError for an address that cannot be used."""
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
        """Where a file of this folder stands on the disk; None for a folder in object storage."""
        return Path(self._full(name)) if self._local else None

    def path(self, name: str = "") -> str:
        """The address of a file as error texts show it: quoted, on one line."""
        return repr(self.address(name) if name else self._shown)

    def address(self, name: str) -> str:
        """The address of a file, without the parameters of a URI."""
        return f"{self._shown}/{name}"

    def exists(self, name: str) -> bool:
        try:
            return bool(self._filesystem.get_file_info(self._full(name)).type == fs.FileType.File)
        except NotADirectoryError:
            return False
        except OSError as error:
            raise self.failure("read", name, error) from error

    def names(self, folder: str) -> list[str]:
        """The names of all files directly in `folder`; none where there is no such folder."""
        try:
            infos = self._filesystem.get_file_info(fs.FileSelector(self._full(folder), allow_not_found=True))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise self.failure("list", folder, error) from error
        return [info.base_name for info in infos if info.type == fs.FileType.File]

    def read(self, name: str) -> bytes | None:
        """The whole file, or None where there is none."""
        try:
            with self._filesystem.open_input_stream(self._full(name), compression=None) as stream:
                return bytes(stream.readall())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.failure("read", name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """Put `content` under `name`, in place of what is there, making the folders it needs."""
        try:
            if self._local:
                _write_local(Path(self._full(name)), content)
            else:
                # The content is complete before the upload starts; an object appears when its upload ends.
                with self._filesystem.open_output_stream(self._full(name), compression=None) as stream:
                    stream.write(content)
        except OSError as error:
            raise self.failure("write", name, error) from error

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        try:
            self._filesystem.delete_file(self._full(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.failure("remove", name, error) from error

    def clean(self) -> None:
        """Remove the temporary files that killed processes of this machine left, here and in the folders
        below. A live process keeps its own, so a report may open the folder of a run at work."""
        if not self._local:
            return
        base = Path(self._base)
        for path in (
            *base.glob(".tmp-*"),
            *base.glob("scores/.tmp-*"),
            *base.glob("evaluation/.tmp-*"),
            *base.glob("tasks/*/.tmp-*"),
        ):
            parts = _TEMPORARY.fullmatch(path.name)
            if parts and parts[2] == socket.gethostname() and not alive(int(parts[1])):
                # A folder that may only be read can still be reported on.
                with contextlib.suppress(OSError):
                    path.unlink()

    def failure(self, doing: str, name: str, error: OSError) -> RunFolderError:
        """The error for a user that says what could not be done with a file, why, and what to do."""
        return RunFolderError(
            f"cannot {doing} {self.path(name)}: {file_error_line(error)}; {_advice(error, local=self._local)}"
        )

    def _full(self, name: str) -> str:
        return f"{self._base}/{name}"


def file_error_line(error: Exception) -> str:
    """What an error of the operating system or of pyarrow says, on one line of bounded length."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return error_line(text)


def _check_address(location: str) -> None:
    if not location or "\0" in location:
        raise RunFolderError(f"run folder {location!r}: not a path; name a folder or a file, s3 or gs URI")
    try:
        location.encode()
    except UnicodeEncodeError as error:
        raise RunFolderError(f"run folder {location!r}: not valid Unicode; choose another name") from error
    uri = _URI.match(location)
    if uri is None:
        return
    if uri[1].lower() not in _SCHEMES:
        raise RunFolderError(
            f"run folder: addresses of kind {uri[1]}:// are not known; use a local path, s3:// or gs://"
        )
    host = re.split("[/?#]", location[uri.end() :])[0].removeprefix("anonymous@")
    # A key with a "/" in it leaves no "@" in this part, but the ":" that stands before a key.
    if "@" in host or ":" in host:
        raise RunFolderError(
            f"run folder: the {uri[1]}:// address holds credentials (or a port), which would end up in "
            "files; take them out and give them through the environment (a port as endpoint_override)"
        )
    if "#" in location:
        raise RunFolderError(f"run folder {location!r}: '#' cannot stand in a URI; write it as %23")


def _from_uri(location: str) -> tuple[fs.FileSystem, str]:
    try:
        parts = urlsplit(location)
        if parts.scheme in ("gs", "gcs") and "retry_limit_seconds" not in parse_qs(parts.query):
            location += f"{'&' if parts.query else '?'}retry_limit_seconds={_GCS_RETRY_SECONDS}"
        filesystem, base = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RunFolderError(
            f"run folder {location!r}: {file_error_line(error)}; check the address (blanks and special "
            "characters as %XX), that the bucket exists, and its region and endpoint_override"
        ) from error
    if not base.strip("/"):
        raise RunFolderError(f"run folder {location!r}: names no folder; write one after the //")
    return filesystem, base.rstrip("/")


def _write_local(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".tmp-{os.getpid()}-{socket.gethostname()}-{secrets.token_hex(8)}"
    temporary = path.parent / name
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def alive(process: int) -> bool:
    """Whether this machine has a process of this number; one that is not reaped yet counts."""
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
