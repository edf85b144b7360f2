"""A model cache of its own for each test, and a tiny model from a GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.resolve import resolve_model
from tests.engines.weights.gguf_files import write_gguf


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMPO_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ResolvedModel:
    """The tiny Llama as a model folder."""
    folder = tmp_path_factory.mktemp("tiny")
    file = write_gguf(folder / "tiny.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PMPO_CACHE_DIR", str(folder / "cache"))
        return resolve_model(str(file), progress=False)
