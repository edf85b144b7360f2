"""Models of the Hugging Face hub: look them up in its local cache, ask the hub for them, download them.

Importing this module does not import the hub client.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_ray.engines.weights.checksums import plain_sha256
from pmpo_ray.engines.weights.folder import WHOLE_BYTES, is_complete, safetensors_files
from pmpo_ray.engines.weights.quiet import quiet_transformers
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_HUB_SECONDS = 4.0
_SHA256 = re.compile("[0-9a-f]{64}")
_SIDE_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt")


def check_hub_name(name: str) -> None:
    """Raises ModelError if `name` cannot be a hub name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"model {name!r}: no such folder or GGUF file, and not a hub name (org/name); correct the name"
        ) from error


def from_hub_cache(name: str, revision: str | None, *, code: bool, weights: bool) -> Path | None:
    """The model's folder in the local hub cache; None if it is not there in full. `code`, `weights`: the
    folder must hold the model's Python files, its weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=["config.json"]
        )
    except LocalEntryNotFoundError:
        return None
    folder = Path(snapshot)
    if not is_complete(folder, weights=weights):
        return None
    # A model that comes with code, cached without it, is fetched again if the code is requested.
    needs_code = code and b'"auto_map"' in (folder / "config.json").read_bytes()
    if needs_code and not any(folder.glob("*.py")):
        return None
    if weights:
        _check_weights(name, folder)
    return folder


def _check_weights(name: str, folder: Path) -> None:
    """Raises ModelError if weights in the cache, unless they are very large, are not those that were
    downloaded. The cache keeps each file under its SHA-256 and links to it."""
    try:
        files = [file for file in safetensors_files(folder) if _SHA256.fullmatch(file.resolve().name)]
        if sum(file.stat().st_size for file in files) > WHOLE_BYTES:
            return
        damaged = [file for file in files if plain_sha256(file) != file.resolve().name]
    except OSError as error:
        raise ModelError(
            f"model {name!r}: its weights in {folder} cannot be read ({error_line(error)}); check the disk"
        ) from error
    if damaged:
        raise ModelError(
            f"model {name!r}: {damaged[0].name} in the local hub cache is damaged, its checksum is not the "
            f"hub's; remove {damaged[0]} and {damaged[0].resolve()}, and start again to download it"
        )


def ask_hub(name: str, revision: str | None) -> ModelInfo | None:
    """The hub's entry of the model; None if the hub can't be reached within seconds.

    Raises ModelError if the hub answers that there is no such model or revision, or that it is gated.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        DisabledRepoError,
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return HfApi().model_info(name, revision=revision, timeout=_HUB_SECONDS)
    except GatedRepoError as error:
        raise _gated(name) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"model {name!r}: the hub has no revision {revision!r} of it; correct it") from error
    except (RepositoryNotFoundError, DisabledRepoError) as error:
        raise ModelError(
            f"model {name!r}: no such folder or GGUF file, and the hub says there is no such public model; "
            "correct the name, or log in with `hf auth login` if it is private"
        ) from error
    except (HTTPError, OSError, ValueError):
        # No connection, no answer in time, HF_HUB_OFFLINE, or a proxy that answers in the hub's place.
        return None


def from_hub(
    name: str, revision: str | None, info: ModelInfo, *, code: bool, weights: bool, progress: bool
) -> Path:
    """Download config, tokenizer and, if `weights`, the weights listed in `info`; safetensors if any.

    Raises ModelError if the model has no loadable files or the download fails.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HTTPError  # type: ignore[attr-defined]

    files = [item.rfilename for item in info.siblings or () if "/" not in item.rfilename]
    loadable = [f for f in files if f.endswith(".safetensors") and not f.startswith("consolidated")]
    if not loadable:
        loadable = [f for f in files if f.startswith("pytorch_model") and f.endswith(".bin")]
    if "config.json" not in files or (weights and not loadable):
        raise ModelError(
            f"model {name!r}: on the hub it has no config.json or no weights that transformers reads; "
            "choose another model, or download its .gguf file and give that"
        )
    endings = (*_SIDE_FILES, ".py") if code else _SIDE_FILES
    patterns = [*(loadable if weights else ()), *(f for f in files if f.endswith(endings))]
    try:
        with contextlib.nullcontext() if progress else quiet_transformers():
            # By branch, not by commit, so that the cache records which commit the branch points to.
            snapshot = snapshot_download(name, revision=revision, allow_patterns=patterns)
    except GatedRepoError as error:  # the entry of a gated model is public, its files are not
        raise _gated(name) from error
    except (HTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"model {name!r}: the download from the hub broke off ({error_line(error)}); "
            "check the connection and the free disk space, and start again: it goes on where it stopped"
        ) from error
    return Path(snapshot)


def _gated(name: str) -> ModelError:
    return ModelError(
        f"model {name!r}: the hub gives it only to accounts that accepted its terms; "
        "accept them on its page and log in with `hf auth login`"
    )
