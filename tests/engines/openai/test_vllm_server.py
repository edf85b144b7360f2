"""A real vLLM server on loopback: scores are those of the transformers scorer, samples follow their seeds, a
run survives the server's death, and the key reaches nobody except the server."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pmpo_ray.config.engines import DEFAULT_MODEL, EndpointConfig, RewriterConfig, ScorerConfig
from pmpo_ray.engines.hf.generator import TransformersGenerator
from pmpo_ray.engines.hf.loading import LoadedModel, load_replica
from pmpo_ray.engines.hf.scorer import TransformersScorer
from pmpo_ray.engines.openai.generator import OpenAIGenerator
from pmpo_ray.engines.openai.scorer import OpenAIScorer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import EngineError, ModelError
from pmpo_ray.store import RunStore
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest
from tests.cluster.test_ray_jobs import ended, pmpo
from tests.engines.comparing import TOLERANCE, difference, unit
from tests.run_folders import REWRITING

pytestmark = pytest.mark.slow

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")

KEY = "sk-recognisable-0123456789"
CONTEXT = 4096
PORTS = range(32_100, 32_700)
"""Neither Ray, nor vLLM, nor the system gives these out while the server is down."""
START_SECONDS = 240


class VllmServer:
    """vLLM's own server, which can be killed and started again at the same address."""

    def __init__(self, model: str, log: Path) -> None:
        self.model = model
        self.port = next(port for port in PORTS if not listening(port))
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to start it; `wait` returns when it answers."""
        settings = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "2",
            # Threads that wait do not keep the others on these cores from their work.
            "OMP_WAIT_POLICY": "PASSIVE",
            "VLLM_NO_USAGE_STATS": "1",
            # With the executor "uni": no process of its own for the worker, a third of the start.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "HF_HUB_OFFLINE": "1",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model),
                    *("--host", "127.0.0.1", "--port", str(self.port), "--api-key", KEY),
                    *("--dtype", "float32", "--enforce-eager", "--block-size", "32"),
                    *("--distributed-executor-backend", "uni"),
                    *("--max-model-len", str(CONTEXT)),
                    # Or else it samples as the model's makers recommend where a request says nothing.
                    *("--generation-config", "vllm"),
                ],
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                break
            if healthy(self.port):
                return
            time.sleep(0.2)
        pytest.fail(f"the server did not start:\n{self._log.read_text(errors='replace')[-5000:]}")

    def kill(self) -> None:
        """End it and the processes of its engine at once, as a lost machine does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=60)
            self._process = None

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of the server itself."""
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.url}{path}",
            data=json.dumps({"model": self.model, **body}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            return json.load(answer)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def server(key: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    model = resolve_model(DEFAULT_MODEL, progress=False).path
    started = VllmServer(str(model), tmp_path_factory.mktemp("vllm") / "server.log")
    started.start()
    try:
        started.wait()
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """The same model under transformers."""
    return load_replica(DEFAULT_MODEL, ScorerConfig(dtype="float32"))


async def open_generator(server: VllmServer) -> OpenAIGenerator:
    endpoint = EndpointConfig(url=server.url)
    return await OpenAIGenerator.open(RewriterConfig(engine="openai", endpoint=endpoint), DEFAULT_MODEL)


async def open_scorer(server: VllmServer, model: str, named: str | None = None) -> OpenAIScorer:
    endpoint = EndpointConfig(url=server.url)
    return await OpenAIScorer.open(ScorerConfig(engine="openai", model=named, endpoint=endpoint), model)


# --- rewriting ----------------------------------------------------------------------------------------------


async def test_samples_of_one_request_are_those_of_requests_with_their_seeds(server: VllmServer) -> None:
    generator = await open_generator(server)
    prompt = "Name a fruit and say why you like it."
    together = await generator.generate(GenerateRequest(prompt, n=3, max_tokens=12, top_p=0.9, seed=5))
    alone = await asyncio.gather(
        *(
            generator.generate(GenerateRequest(prompt, max_tokens=12, top_p=0.9, seed=seed))
            for seed in (5, 6, 7)
        )
    )
    texts = [sample.text for sample in together.samples]
    assert texts == [one.samples[0].text for one in alone]
    assert len(set(texts)) == 3
    assert together.tokens == sum(one.tokens for one in alone) == 3 * 12
    assert {one.prompt_tokens for one in alone} == {together.prompt_tokens}


async def test_tokens_are_those_of_the_servers_usage(server: VllmServer) -> None:
    request = GenerateRequest("Say hello in two languages.", n=2, max_tokens=16, seed=3, temperature=1.0)
    result = await (await open_generator(server)).generate(request)
    sampling = {"n": 2, "max_tokens": 16, "seed": 3, "temperature": 1.0, "top_p": request.top_p}
    messages = [{"role": "user", "content": request.prompt}]
    answer = server.post("/chat/completions", {"messages": messages, **sampling})
    assert [sample.text for sample in result.samples] == [
        choice["message"]["content"] for choice in answer["choices"]
    ]
    usage = answer["usage"]
    assert (result.tokens, result.prompt_tokens) == (usage["completion_tokens"], usage["prompt_tokens"])


async def test_an_answer_says_whether_it_came_to_its_end(server: VllmServer) -> None:
    generator = await open_generator(server)
    cut, stopped, ended_itself = await asyncio.gather(
        generator.generate(GenerateRequest("Tell a long story.", max_tokens=5)),
        generator.generate(GenerateRequest("Say hello.", max_tokens=60, temperature=0.0, stop=("world",))),
        generator.generate(GenerateRequest("Say hello.", max_tokens=60, temperature=0.0)),
    )
    assert (cut.samples[0].finished, cut.samples[0].tokens) == (False, 5)
    assert stopped.samples[0].finished
    assert ended_itself.samples[0].finished
    assert ended_itself.samples[0].text.startswith(stopped.samples[0].text + "world")
    assert "<|" not in ended_itself.samples[0].text


async def test_system_and_shots_are_read_as_by_transformers(server: VllmServer, loaded: LoadedModel) -> None:
    shots = (Example("1", "Good morning", "GOOD MORNING"), Example("2", "How are you?", "HOW ARE YOU?"))
    request = GenerateRequest(
        "See you soon", max_tokens=12, temperature=0.0, system="Answer in capitals.", shots=shots
    )
    found = await (await open_generator(server)).generate(request)
    wanted = TransformersGenerator(loaded).generate([request])[0]
    assert found.samples == wanted.samples
    assert found.prompt_tokens == wanted.prompt_tokens


async def test_what_does_not_fit_the_servers_context_is_the_requests_own_fault(server: VllmServer) -> None:
    generator = await open_generator(server)
    assert generator.info().context_length == CONTEXT
    with pytest.raises(EngineError, match="maximum context length is 4096 tokens"):
        await generator.generate(GenerateRequest("word " * 5000))


# --- scoring ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("bbh/logical_deduction_three_objects", 1), ("tickets", 2), ("gsm8k", 1)]
)
async def test_scores_are_those_of_the_transformers_scorer(
    name: str, count: int, server: VllmServer, loaded: LoadedModel, data_dir: Path
) -> None:
    whole = unit(name, data_dir, 1 << 30)
    short = sorted(whole.examples, key=lambda example: len(example.input) + len(example.target))[:count]
    request = ScoreRequest(whole.instruction, tuple(short))
    found = await (await open_scorer(server, DEFAULT_MODEL)).score(request)
    wanted = TransformersScorer(loaded, ScorerConfig(dtype="float32")).score(request)
    assert difference(found.scores, wanted.scores) < TOLERANCE
    # The server computes every prompt whole.
    assert found.tokens_computed > wanted.tokens_computed


async def test_a_scorer_is_named_after_the_model_whose_tokenizer_it_has(server: VllmServer) -> None:
    # The server calls its only model by its path, which stands in for one that the role did not name.
    info = (await open_scorer(server, DEFAULT_MODEL)).info()
    resolved = resolve_model(DEFAULT_MODEL, weights=False, progress=False)
    assert (info.engine, info.model, info.revision) == ("openai", DEFAULT_MODEL, resolved.revision)
    assert info.context_length == CONTEXT
    with pytest.raises(ModelError, match="does not serve model") as caught:
        await open_scorer(server, DEFAULT_MODEL, named=DEFAULT_MODEL)
    assert f"it serves: {server.model};" in str(caught.value)


def with_other_tokenizer(model: str, folder: Path) -> None:
    """Fill `folder` with the model, apart from its weights, with two tokens exchanged."""
    for file in Path(model).iterdir():
        if file.suffix in (".json", ".jinja"):
            (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = tokenizer["model"]["vocab"]
    ids["Ġquick"], ids["Ġbrown"] = ids["Ġbrown"], ids["Ġquick"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


async def test_a_model_with_another_tokenizer_is_refused(server: VllmServer, tmp_path: Path) -> None:
    with_other_tokenizer(server.model, tmp_path)
    with pytest.raises(ModelError) as caught:
        await open_scorer(server, str(tmp_path))
    assert f"gives a text other token ids than the tokenizer of '{tmp_path}'" in str(caught.value)


async def test_a_wrong_key_is_refused_by_a_line_that_names_the_variable(
    server: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-key")
    with pytest.raises(ModelError, match=r"does not accept the key \(401\); .* OPENAI_API_KEY") as caught:
        await open_generator(server)
    assert "sk-another-key" not in str(caught.value)


# --- runs ---------------------------------------------------------------------------------------------------


def write_config(folder: Path, server: VllmServer) -> str:
    """A small run with the server in both roles; the clients alone would not outlast its restart."""
    endpoint = {"url": server.url, "retries": 1}
    rows = "".join(f"Is {number} even?,{'no' if number % 2 else 'yes'}\n" for number in range(30))
    (folder / "even.csv").write_text(f"input,target\n{rows}", encoding="utf-8")
    instruction = "Read the number. Say whether it is even. Answer yes or no."
    config = {
        "tasks": [{"name": "even", "path": str(folder / "even.csv"), "instruction": instruction}],
        "scorer": {"engine": "openai", "endpoint": endpoint},
        "rewriter": {"engine": "openai", "endpoint": endpoint, "max_tokens": 48},
        # Masking by rules and no second tries: the little model writes slowly here.
        "search": {
            **REWRITING,
            "rounds": 1,
            "hard_examples": 1,
            "variants": 2,
            "masking": "rules",
            "max_segments": 2,
            "reasks": 0,
        },
        "split": {"train_max": 3},
        "evaluation": {"enabled": False},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


def until(run: subprocess.Popen[str], text: str) -> str:
    """The standard error of the run up to the line with `text`."""
    assert run.stderr is not None
    lines = ""
    for line in run.stderr:
        lines += line
        if text in line:
            return lines
    pytest.fail(lines)


def test_a_run_with_a_server_in_both_roles_survives_its_death(server: VllmServer, tmp_path: Path) -> None:
    config = write_config(tmp_path, server)
    folder = tmp_path / "run"
    run = pmpo("optimize", config, "--run-dir", str(folder), "--json", "--log-format", "json")
    log = until(run, '"round": 1')
    server.kill()
    # Its start takes longer than the clients' retries.
    server.start()
    code, stdout, stderr = ended(run)
    log += stderr
    server.wait()
    assert code == 0, log
    assert json.loads(stdout)["run_dir"] == str(folder)

    store = RunStore.open(str(folder))
    manifest, records = store.read_manifest(), store.read_rounds("even")
    assert manifest is not None
    assert manifest.ended is not None
    assert manifest.scorer is not None
    assert manifest.rewriter is not None
    assert (manifest.scorer.engine, manifest.scorer.model) == ("openai", DEFAULT_MODEL)
    assert (manifest.rewriter.engine, manifest.rewriter.model) == ("openai", server.model)
    assert [record.round for record in records] == [0, 1]
    assert all(math.isfinite(scored.loss) for record in records for scored in record.candidates)
    assert any(record.segments for record in records)
    assert all(record.tokens_generated > 0 for record in records[1:])
    refusals = [refusal for record in records for refusal in record.refusals]
    assert not [item for item in refusals if item.status == "failed" or "endpoint" in item.reason]

    uses = manifest.pools.values()
    assert sum(use.lost for use in uses) > 0
    assert sum(use.retries for use in uses) > 0
    assert '"event": "replica lost"' in log
    assert f".endpoint.url={server.url} gives no answer" in log

    # The key is neither in the run folder nor in what was printed.
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert (folder / "config.yaml") in files
    assert not [file for file in files if KEY.encode() in file.read_bytes()]
    # Columns of Parquet files are compressed.
    assert not any(KEY in text for text in (repr(manifest), repr(records), log, stdout))
