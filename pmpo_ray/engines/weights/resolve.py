"""From a model's name to a local folder that holds the model.

Invariants:
- a resolved folder loads without network;
- names are tried in one order: local folder, GGUF file, hub cache, hub, Python package; the package is used
  only if the hub can't be reached, never if it answers that there is no such model;
- code that comes with a model is fetched only if requested.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pmpo_ray.engines.weights.folder import ResolvedModel, fingerprint
from pmpo_ray.engines.weights.gguf import from_gguf
from pmpo_ray.engines.weights.hub import ask_hub, check_hub_name, from_hub, from_hub_cache
from pmpo_ray.engines.weights.packaged import SMOLLM2, from_package, package_is_cached
from pmpo_ray.errors import ModelError
from pmpo_ray.text import error_line

Whereabouts = Literal["here", "on the hub", "in a package"]
"""The place of a model before it is fetched: this machine, or the source it would come from."""


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
    only under trust_remote_code. `progress` allows messages on stderr. Without `weights`, only the config and
    tokenizer of a hub model are fetched.

    Raises ModelError with what was tried and what to do.
    """
    path = _local_path(name)
    if path is not None:
        if revision is not None:
            raise _no_revisions(name, revision)
        if path.is_dir():
            return ResolvedModel(name, path, fingerprint(path))
        return ResolvedModel(name, *from_gguf(path, progress=progress))

    check_hub_name(name)
    cached = from_hub_cache(name, revision, code=code, weights=weights)
    if cached is not None:
        return ResolvedModel(name, cached, cached.name)
    info = ask_hub(name, revision)
    if info is not None:
        snapshot = from_hub(name, revision, info, code=code, weights=weights, progress=progress)
        return ResolvedModel(name, snapshot, snapshot.name)
    if _is_packaged(name, revision):
        return ResolvedModel(name, *from_package(SMOLLM2, progress=progress))
    raise _not_found(name, revision)


def whereabouts(name: str, *, revision: str | None = None, code: bool = False) -> Whereabouts:
    """The place where `resolve_model` would find the model `name`; nothing is fetched.

    Raises ModelError as `resolve_model` would.
    """
    path = _local_path(name)
    if path is not None:
        if revision is not None:
            raise _no_revisions(name, revision)
        return "here"
    check_hub_name(name)
    if from_hub_cache(name, revision, code=code, weights=True) is not None:
        return "here"
    if ask_hub(name, revision) is not None:
        return "on the hub"
    if not _is_packaged(name, revision):
        raise _not_found(name, revision)
    return "here" if package_is_cached(SMOLLM2) else "in a package"


def _is_packaged(name: str, revision: str | None) -> bool:
    return name == SMOLLM2.name and revision in (None, "main")


def _no_revisions(name: str, revision: str) -> ModelError:
    return ModelError(f"model {name!r} is local and has no revisions; remove revision {revision!r}")


def _not_found(name: str, revision: str | None) -> ModelError:
    at = f" at revision {revision!r}" if revision is not None else ""
    return ModelError(
        f"model {name!r}: no such folder or GGUF file, not in the local hub cache{at}, and the hub "
        f"can't be reached; give a local folder, a .gguf file, or {SMOLLM2.name}, which comes as a Python "
        "package"
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
