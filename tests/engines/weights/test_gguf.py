"""Conversion of GGUF files, with tiny real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pmpo_ray.engines.weights.cache import CONVERSION
from pmpo_ray.engines.weights.folder import ResolvedModel, estimate_bytes
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ModelError
from tests.engines.weights.damaging import overwrite
from tests.engines.weights.gguf_files import write_gguf
from tests.engines.weights.processes import outcome, start

pytestmark = pytest.mark.slow


def test_gguf_weights_arrive_in_the_model(tiny: ResolvedModel) -> None:
    expected = np.random.default_rng(0)
    for _ in range(14):
        expected.normal(size=(32, 32))
    for _ in range(4):
        expected.normal(size=32)
    embedding = torch.tensor(expected.normal(size=(259, 32)).astype(np.float32)).bfloat16()
    model = load_model(tiny, dtype=torch.bfloat16, device="cpu", trust_remote_code=False)
    assert torch.equal(model.state_dict()["model.embed_tokens.weight"], embedding)
    assert estimate_bytes(tiny.path, 1) == sum(parameter.numel() for parameter in model.parameters())


def test_gguf_is_converted_once_whatever_its_neighbours(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_gguf(tmp_path / "my model.gguf")
    (tmp_path / "config.json").write_text("not json")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.X", null]}}')
    first = resolve_model(str(file))
    assert capfd.readouterr().err.count("\n") == 2
    assert resolve_model(str(file)) == first
    assert capfd.readouterr() == ("", "")
    assert first.path.parent == cache / "models"


def test_no_message_without_progress(cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resolve_model(str(write_gguf(tmp_path / "tiny.gguf")), progress=False)
    assert capfd.readouterr() == ("", "")


def test_leftover_of_a_killed_conversion_is_removed(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    folder = resolve_model(str(file), progress=False).path
    leftover = folder.parent / f".{folder.name}.work-dead"
    folder.rename(leftover)
    assert resolve_model(str(file), progress=False).path == folder
    assert not leftover.exists()


def damaged(folder: Path, way: str) -> None:
    """Damage a file of the folder, as a full disk, a bad one or an editor may."""
    weights = folder / "model.safetensors"
    if way == "overwritten":
        overwrite(weights)
    elif way == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif way == "tokenizer":
        overwrite(folder / "tokenizer.json")
    elif way == "template":
        (folder / "chat_template.jinja").write_text("{{ messages }}")
    elif way == "config":
        (folder / "config.json").unlink()
    else:
        (folder / "checksums.json").write_text(way)


@pytest.mark.parametrize(
    "way",
    ["overwritten", "cut", "tokenizer", "template", "config", "", "[]", "{}", '{"a": ' * 2000, "\0"],
    ids=[*"abcdefghij"],
)
def test_a_damaged_model_is_set_aside_and_made_again(
    cache: Path, tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = resolve_model(str(file), progress=False)
    intact = {path.name: path.read_bytes() for path in first.path.iterdir()}
    damaged(first.path, way)
    again = resolve_model(str(file), progress=False)
    assert again == first
    assert {path.name: path.read_bytes() for path in again.path.iterdir()} == intact
    assert caplog.text.count("it is set aside") == 1
    folders = {path.name for path in (cache / "models").iterdir() if path.is_dir()}
    assert folders == {first.path.name, f".{first.path.name}.damaged"}


def test_a_conversion_of_another_version_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    old = resolve_model(str(file), progress=False).path
    monkeypatch.setattr("pmpo_ray.engines.weights.cache.CONVERSION", CONVERSION + 1)
    new = resolve_model(str(file), progress=False).path
    assert new != old
    assert new.name.endswith(f"-v{CONVERSION + 1}")


def test_processes_that_find_a_damaged_model_make_it_once(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    found = resolve_model(str(file), progress=False)
    overwrite(found.path / "model.safetensors")
    both = [outcome(process) for process in [start(str(file), PMPO_CACHE_DIR=str(cache)) for _ in range(2)]]
    assert [lines for _, lines, _ in both] == [[str(found.path), found.revision]] * 2
    assert sum(err.count("it is set aside") for _, _, err in both) == 1


def test_bos_is_added_where_the_file_says_so(cache: Path, tmp_path: Path) -> None:
    resolved = resolve_model(str(write_gguf(tmp_path / "bos.gguf", add_bos=True)), progress=False)
    loaded = load_tokenizer(resolved, trust_remote_code=False)
    assert loaded.convert_ids_to_tokens(loaded("a").input_ids) == ["<bos>", "a"]


def test_unknown_way_of_splitting_text_is_refused(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "odd.gguf", pre="unheard-of")
    with pytest.raises(ModelError, match="unheard-of"):
        resolve_model(str(file), progress=False)


def test_broken_vocabulary_is_refused(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "broken.gguf", merges=("a b", "q x"))
    with pytest.raises(ModelError, match=r"^[^\n]*qx[^\n]*$"):
        resolve_model(str(file), progress=False)


def test_unknown_gguf_architecture_is_refused(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "new.gguf", architecture="novelty")
    with pytest.raises(ModelError, match="novelty"):
        resolve_model(str(file), progress=False)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_truncated_gguf_is_refused_in_one_line(cache: Path, tmp_path: Path, share: float) -> None:
    whole = write_gguf(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError) as refused:
        resolve_model(str(cut), progress=False)
    assert str(cut) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_unusable_cache_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PMPO_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/models.*PMPO_CACHE_DIR"):
        resolve_model(str(write_gguf(tmp_path / "tiny.gguf")), progress=False)
