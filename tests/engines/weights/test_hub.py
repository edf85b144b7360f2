"""Models of the hub, which is a server on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
from pmpo_ray.engines.weights.packaged import SMOLLM2
from tests.engines.weights.damaging import overwrite
from tests.engines.weights.processes import offline, outcome, refusal, start

pytestmark = pytest.mark.slow

SMOLLM = SMOLLM2.name
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A loopback server that speaks as much of the hub's protocol as a download needs."""

    url: str
    files: dict[str, bytes]
    error: tuple[int, str] | None
    asked: list[str]
    silent: threading.Event | None = None


def etag(body: bytes) -> str:
    """The name of a file's content, as the hub gives it to large files."""
    return hashlib.sha256(body).hexdigest()


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
                self.reply(200, body, ETag=f'"{etag(body)}"', X_Repo_Commit=COMMIT)
            elif "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "size": len(body), "oid": etag(body)}
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


def test_damaged_weights_of_a_hub_model_are_refused(hub: Hub, tiny: ResolvedModel, tmp_path: Path) -> None:
    hub.files = {file.name: file.read_bytes() for file in tiny.path.iterdir()}
    code, lines, err = outcome(start("org/tiny", **online(hub, tmp_path)))
    assert code == 0, (lines, err)
    weights = Path(lines[0]) / "model.safetensors"
    blob = weights.resolve()
    overwrite(blob)
    line = refusal("org/tiny", **online(hub, tmp_path))
    assert "model.safetensors in the local hub cache is damaged" in line
    weights.unlink()
    blob.unlink()
    assert outcome(start("org/tiny", **online(hub, tmp_path)))[1] == lines


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
