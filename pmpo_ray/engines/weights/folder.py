"""Model folders: their weight files, the size of the weights, and a checksum.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from pmpo_ray.engines.weights.checksums import checksum_of_all
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

WHOLE_BYTES = 8 << 30
"""The size of weights up to which all of them count for a folder's revision: about ten seconds on two cores,
once in a process."""
_HEADER_LIMIT = 100 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10
_INDEX = "model.safetensors.index.json"
_SMALL_FILES = (".json", ".jinja", ".model", ".py", ".tiktoken", ".txt")
"""Endings of the files that say how weights and texts are read."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model in a local folder. `revision` identifies what is in it: the hub's commit; "sha256:" with 16
    digits of a GGUF's checksum and 8 of a checksum of the converted files; for another folder, "sha256:" and
    16 digits of a checksum of its files, or, for more than WHOLE_BYTES of weights, "sampled-sha256:" and 16
    digits of a checksum of its small files and of blocks spread over its weights."""

    name: str
    path: Path
    revision: str


def estimate_bytes(folder: Path, dtype_bytes: int) -> int:
    """Bytes of the parameters at `dtype_bytes` each, from the headers of the safetensors files; for weights
    in another format, the size of their files.

    Raises ModelError if a header can't be read.
    """
    files = safetensors_files(folder)
    if not files:
        return sum(file.stat().st_size for file in folder.glob("*.bin"))
    return dtype_bytes * sum(_parameters(file) for file in files)


def _parameters(file: Path) -> int:
    """Parameters in a safetensors file: 8 bytes of header length (little-endian), then the header in JSON."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _HEADER_LIMIT:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        return sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file}: not a readable safetensors file ({error_line(error)}); get it again"
        ) from error


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files of the folder's model, in order, including absent ones that an index names."""
    index = folder / _INDEX
    if index.is_file():
        try:
            shards = {str(shard) for shard in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: not a readable index ({error_line(error)}); get it again") from error
        # An index is untrusted: only names inside its folder are followed.
        return [folder / Path(shard).name for shard in sorted(shards)]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def fingerprint(folder: Path) -> str:
    """The revision of the model in a folder: a checksum of its weights, its config, its tokenizer and its
    chat template. Of large weights only the names, sizes and spread-out blocks count."""
    try:
        weights = safetensors_files(folder) or sorted(folder.glob("*.bin"))
        files = (file for file in sorted(folder.iterdir()) if file.suffix in _SMALL_FILES and file.is_file())
        small = checksum_of_all(files)
        if sum(file.stat().st_size for file in weights) <= WHOLE_BYTES:
            kind, digest = "sha256", hashlib.sha256(f"{small}\0{checksum_of_all(weights)}".encode())
        else:
            kind, digest = "sampled-sha256", hashlib.sha256(small.encode())
            for file in weights:
                _add_samples(digest, file)
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be read ({error_line(error)}); check that the folder is complete"
        ) from error
    return f"{kind}:{digest.hexdigest()[:16]}"


def _add_samples(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{file.name}\0{size}\0".encode())
    with file.open("rb") as stream:
        for sample in range(_SAMPLES):
            stream.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))


def is_complete(folder: Path, *, weights: bool) -> bool:
    """Check if the folder holds a config, a tokenizer and, if `weights`, all weight files."""
    files = safetensors_files(folder) or list(folder.glob("*.bin"))
    tokenizer = any(
        (folder / file).is_file()
        for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
    )
    loadable = not weights or (bool(files) and all(map(Path.is_file, files)))
    return (folder / "config.json").is_file() and loadable and tokenizer
