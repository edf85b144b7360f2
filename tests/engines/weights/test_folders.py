"""Model folders: checksums, complete and damaged weights, tokenizers and names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pmpo_ray.engines.weights.folder import ResolvedModel, estimate_bytes
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ModelError
from tests.engines.weights.damaging import overwrite

pytestmark = pytest.mark.slow


def copy_of(model: ResolvedModel, folder: Path) -> ResolvedModel:
    shutil.copytree(model.path, folder)
    return ResolvedModel("copy", folder, "test")


def edit_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_folder_is_used_as_it_is_and_told_apart_by_its_weights(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    before = resolve_model(str(copy.path))
    assert before.path == copy.path
    assert before.revision == resolve_model(str(tiny.path)).revision
    weights = load_file(copy.path / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, copy.path / "model.safetensors", metadata={"format": "pt"})
    assert resolve_model(str(copy.path)).revision != before.revision


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "template"])
def test_every_file_that_affects_a_score_counts_for_the_revision(
    tiny: ResolvedModel, tmp_path: Path, name: str
) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    before = resolve_model(str(copy.path)).revision
    if name == "template":
        (copy.path / "chat_template.jinja").write_text("{{ messages }}")
    else:
        overwrite(copy.path / name)
    after = resolve_model(str(copy.path)).revision
    assert before.startswith("sha256:")
    assert after.startswith("sha256:")
    assert after != before


def test_missing_weights_are_refused(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    weights = load_file(copy.path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*up_proj"):
        load_model(copy, dtype=torch.float32, device="cpu", trust_remote_code=False)


def test_code_of_a_model_never_runs_unasked(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    auto_map = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    edit_config(copy.path, model_type="own", auto_map=auto_map)
    (copy.path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match=r"set `scorer\.trust_remote_code: true`"):
        load_model(copy, dtype=torch.float32, device="cpu", trust_remote_code=False)
    assert not (tmp_path / "ran").exists()


def test_unknown_architecture_is_one_line(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    edit_config(copy.path, model_type="novelty")
    with pytest.raises(ModelError, match=r"^[^\n]*novelty[^\n]*$"):
        load_model(copy, dtype=torch.float32, device="cpu", trust_remote_code=False)


def test_damaged_weights_are_one_line(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    (copy.path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"^[^\n]*$"):
        load_model(copy, dtype=torch.float32, device="cpu", trust_remote_code=False)
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        estimate_bytes(copy.path, 2)


def test_folder_without_tokenizer_is_one_line(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    for file in copy.path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"^[^\n]*tokenizer[^\n]*$"):
        load_tokenizer(copy, trust_remote_code=False)


def test_damaged_tokenizer_is_one_line(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    content = json.loads((copy.path / "tokenizer.json").read_text())
    content["model"]["merges"] = [["q", "x"]]
    (copy.path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"^[^\n]*tokenizer[^\n]*$"):
        load_tokenizer(copy, trust_remote_code=False)


def test_shard_names_stay_inside_the_folder(tiny: ResolvedModel, tmp_path: Path) -> None:
    copy = copy_of(tiny, tmp_path / "copy")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    (copy.path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../secret"}}))
    with pytest.raises(ModelError, match="copy/secret"):
        estimate_bytes(copy.path, 2)


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(str(tmp_path))


def test_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(ModelError, match=r"\.gguf"):
        resolve_model(str(tmp_path / "weights.bin"))


def test_local_folder_has_no_revision(tiny: ResolvedModel) -> None:
    with pytest.raises(ModelError, match="remove revision 'main'"):
        resolve_model(str(tiny.path), revision="main")


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/nowhere/at/all",
        "~nobody-here/x",
        "a/b/c",
        "",
        "a\nb",
        "a\0b",
        "-",
        "x" * 5000,
        "no.gguf",
    ],
)
def test_impossible_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ModelError, match=r"^[^\n]*$"):
        resolve_model(name)
