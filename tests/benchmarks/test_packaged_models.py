"""Models of the benchmarks that come as packages: available under their hub name, without the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.packaged_models import PACKAGED, available_model
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.engines.weights.cache import CONVERSION
from pmpo_ray.engines.weights.checksums import write_checksums


def test_other_names_stay_as_they_are() -> None:
    assert available_model(DEFAULT_MODEL) == DEFAULT_MODEL
    assert available_model("model.gguf") == "model.gguf"


@pytest.mark.parametrize("name", PACKAGED)
def test_without_the_hub_a_packaged_model_is_a_folder_of_the_cache(name: str, tmp_path: Path) -> None:
    checksum = PACKAGED[name].sha256[:16]
    folder = tmp_path / "models" / f"{name.replace('/', '--')}-{checksum}-v{CONVERSION}"
    folder.mkdir(parents=True)
    write_checksums(folder)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.packaged_models", name],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PMPO_CACHE_DIR": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
