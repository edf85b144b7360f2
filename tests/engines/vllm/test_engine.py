"""Starts of vLLM that fail, with the real vLLM on the CPU: one line that says what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmpo_ray.config.engines import ScorerConfig, VllmConfig
from pmpo_ray.engines.factory import open_scorer
from pmpo_ray.errors import ConfigError, ModelError, PmpoError, ResourceError

pytestmark = pytest.mark.slow

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")
pytestmark = pytest.mark.slow


def unknown_architecture(model: str, folder: Path) -> str:
    for file in Path(model).iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NobodyKnowsThisModel"]}))
    return str(folder)


async def test_a_start_that_fails_is_one_line_that_says_what_to_change(
    tiny_model: str, tmp_path: Path
) -> None:
    cases: list[tuple[ScorerConfig, str, type[PmpoError], str]] = [
        (
            ScorerConfig(engine="vllm", vllm=VllmConfig(options={"max_model_length": 100})),
            tiny_model,
            ConfigError,
            "did you mean max_model_len",
        ),
        (ScorerConfig(engine="vllm", device="cuda"), tiny_model, ResourceError, "computes on CPUs"),
        (
            ScorerConfig(engine="vllm"),
            unknown_architecture(tiny_model, tmp_path),
            ModelError,
            "NobodyKnowsThisModel.*transformers",
        ),
        (
            ScorerConfig(engine="vllm", vllm=VllmConfig(kv_cache_gb=10_000)),
            tiny_model,
            ResourceError,
            "scorer.vllm.kv_cache_gb",
        ),
    ]
    for config, model, kind, text in cases:
        with pytest.raises(kind, match=text) as caught:
            await open_scorer(config, model)
        assert "\n" not in str(caught.value)


async def test_a_version_that_is_too_old_is_named_with_what_to_install(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "vllm-0.8.5.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.8.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"scorer.engine=vllm: vllm 0\.8\.5 is too old; install vllm>=0\.32"
    ):
        await open_scorer(ScorerConfig(engine="vllm"), tiny_model)
