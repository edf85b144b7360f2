"""Rewriting behind an endpoint: a real HTTP server on loopback plays the awkward ones."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray.config.engines import EndpointConfig, RewriterConfig
from pmpo_ray.config.loading import load_config
from pmpo_ray.engines.openai.generator import OpenAIGenerator
from pmpo_ray.errors import ConfigError, EndpointError, EngineError, ModelError
from pmpo_ray.types import Example, GenerateRequest

pytestmark = pytest.mark.slow

KEY = "sk-recognisable-0123456789"
MODEL = "org/small"


@dataclass(frozen=True)
class Reply:
    """What the server does with a request: answers, or drops the connection."""

    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    drop: bool = False


@dataclass(frozen=True)
class Post:
    """What a client sent."""

    path: str
    body: dict[str, Any]


GenerationEvaluator = Callable[[Post], Reply]


def in_turn(*replies: Reply) -> GenerationEvaluator:
    """Every reply once, and the last one for good."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Server:
    """A server on loopback. `reply` answers what is posted; `models` is what it lists, None for no list."""

    url: str = ""
    models: list[dict[str, Any]] | None = field(default_factory=lambda: [{"id": MODEL, "max_model_len": 256}])
    reply: GenerationEvaluator = field(default_factory=lambda: in_turn(Reply(status=500)))
    posted: list[dict[str, Any]] = field(default_factory=list)
    authorization: set[str | None] = field(default_factory=set)
    open: int = 0
    most_open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            server.authorization.add(self.headers.get("Authorization"))
            if server.models is None or self.path != "/v1/models":
                self.answer(Reply({"detail": "Not Found"}, 404))
            else:
                self.answer(Reply({"object": "list", "data": server.models}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.posted.append(body)
                server.open += 1
                server.most_open = max(server.most_open, server.open)
            reply = server.reply(Post(self.path, body))
            with server.lock:
                server.open -= 1
            self.answer(reply)

        def answer(self, reply: Reply) -> None:
            if reply.drop:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            content = json.dumps(reply.body).encode() if reply.raw is None else reply.raw
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            for name, value in {**headers, **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


@contextmanager
def running() -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    http.daemon_threads = True
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with running() as state:
        yield state


def failure(status: int, message: str = "it is broken", **more: str | None) -> Reply:
    return Reply(
        {"error": {"message": message, "type": "error", "param": None, "code": None, **more}}, status
    )


def chat(*texts: str | None, ended: str = "stop", tokens: int = 10) -> Reply:
    choices = [
        {"index": index, "finish_reason": ended, "message": {"role": "assistant", "content": text}}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 0}
    return Reply({"id": "x", "choices": choices, "usage": usage})


def rewriter(server: Server, model: str | None = MODEL, **endpoint: Any) -> RewriterConfig:
    settings = {"url": server.url, "retries": 1, **endpoint}
    return RewriterConfig(engine="openai", model=model, endpoint=EndpointConfig(**settings))


@pytest.fixture
async def generator(server: Server) -> AsyncIterator[OpenAIGenerator]:
    opened = await OpenAIGenerator.open(rewriter(server), MODEL)
    yield opened
    opened.close()


def one_line(error: BaseException) -> str:
    assert str(error)
    assert "\n" not in str(error)
    return str(error)


# --- rewriting: what is asked, and what is made of the answer -----------------------------------------------


async def test_a_request_is_one_http_request(server: Server, generator: OpenAIGenerator) -> None:
    server.reply = in_turn(chat("one", "two", "three"))
    shots = (Example("s", "2 + 2", "4"),)
    request = GenerateRequest(
        "3 + 3",
        n=3,
        max_tokens=20,
        temperature=0.5,
        top_p=0.9,
        seed=5,
        stop=("\n",),
        system="Add.",
        shots=shots,
    )
    result = await generator.generate(request)
    assert [sample.text for sample in result.samples] == ["one", "two", "three"]
    assert all(sample.finished for sample in result.samples)
    assert server.posted == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Add."},
                {"role": "user", "content": "2 + 2"},
                {"role": "assistant", "content": "4"},
                {"role": "user", "content": "3 + 3"},
            ],
            "n": 3,
            "max_tokens": 20,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 5,
            "stop": ["\n"],
        }
    ]


async def test_an_evaluation_has_the_layout_of_the_scorer_as_far_as_messages_go(
    server: Server, generator: OpenAIGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = in_turn(*(chat("four") for _ in range(3)))
    for layout in ("user", "plain", "plain"):
        await generator.generate(GenerateRequest("2 + 2", system="Add.", layout=layout))
    system, user = {"role": "system", "content": "Add."}, {"role": "user", "content": "2 + 2"}
    messages = [body["messages"] for body in server.posted]
    assert messages == [[{"role": "user", "content": "Add.\n\n2 + 2"}], [system, user], [system, user]]
    assert sum("scorer.layout is plain" in record.getMessage() for record in caplog.records) == 1


async def test_a_plain_request_has_neither_system_turn_nor_stop(
    server: Server, generator: OpenAIGenerator
) -> None:
    server.reply = in_turn(chat("fine"))
    await generator.generate(GenerateRequest("Hello"))
    assert server.posted[0]["messages"] == [{"role": "user", "content": "Hello"}]
    assert server.posted[0].keys().isdisjoint({"stop", "n"})


async def test_parameters_of_the_configuration_are_in_every_request(server: Server) -> None:
    server.reply = in_turn(chat("fine"))
    opened = await OpenAIGenerator.open(rewriter(server, parameters={"top_k": 3, "top_p": 0.5}), MODEL)
    await opened.generate(GenerateRequest("Hello", top_p=0.9))
    assert (server.posted[0]["top_k"], server.posted[0]["top_p"]) == (3, 0.5)


async def test_samples_that_a_server_leaves_out_are_asked_for_one_by_one(
    server: Server, generator: OpenAIGenerator
) -> None:
    server.reply = lambda post: chat(f"sample {post.body['seed']}", tokens=3)
    result = await generator.generate(GenerateRequest("Hello", n=4, seed=10))
    assert [sample.text for sample in result.samples] == [f"sample {seed}" for seed in (10, 11, 12, 13)]
    assert (result.tokens, result.prompt_tokens) == (4 * 3, 4 * 7)
    assert [body.get("n", 1) for body in server.posted] == [4, 1, 1, 1]


async def test_greedy_samples_are_asked_for_once(server: Server, generator: OpenAIGenerator) -> None:
    server.reply = in_turn(chat("same", tokens=3))
    result = await generator.generate(GenerateRequest("Hello", n=3, temperature=0.0))
    assert [sample.text for sample in result.samples] == ["same"] * 3
    assert [body.get("n", 1) for body in server.posted] == [1]


async def test_samples_come_in_the_order_of_their_indexes_and_no_more_than_asked_for(
    server: Server, generator: OpenAIGenerator
) -> None:
    reply = chat("first", "second", "third")
    assert isinstance(reply.body, dict)
    reply.body["choices"].reverse()
    server.reply = in_turn(reply)
    result = await generator.generate(GenerateRequest("Hello", n=2))
    assert [sample.text for sample in result.samples] == ["first", "second"]


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        ("all of it", "stop", ("all of it", True)),
        ("half of", "length", ("half of", False)),
        ("something bad", "content_filter", ("", False)),
        (None, "stop", ("", False)),
        ("", "stop", ("", False)),
    ],
)
async def test_an_answer_says_whether_it_came_to_its_end(
    server: Server, generator: OpenAIGenerator, text: str | None, ended: str, expected: tuple[str, bool]
) -> None:
    server.reply = in_turn(chat(text, ended=ended))
    sample = (await generator.generate(GenerateRequest("Hello"))).samples[0]
    assert (sample.text, sample.finished) == expected


async def test_a_stop_string_ends_a_sample_though_the_server_ignores_it(
    server: Server, generator: OpenAIGenerator
) -> None:
    server.reply = in_turn(chat("kept END dropped", ended="length"))
    sample = (await generator.generate(GenerateRequest("Hello", stop=("END",)))).samples[0]
    assert (sample.text, sample.finished) == ("kept ", True)


async def test_tokens_are_what_the_server_counts(server: Server, generator: OpenAIGenerator) -> None:
    server.reply = in_turn(chat("a", "much longer than the others", "", tokens=31))
    result = await generator.generate(GenerateRequest("Hello", n=3))
    assert (result.tokens, result.prompt_tokens) == (31, 7)
    assert result.samples[1].tokens > result.samples[0].tokens


@pytest.mark.parametrize("usage", [None, {}])
async def test_tokens_are_estimated_where_the_server_counts_none(
    server: Server, generator: OpenAIGenerator, usage: dict[str, int] | None
) -> None:
    reply = chat("12345678", "123")
    assert isinstance(reply.body, dict)
    reply.body["usage"] = usage
    server.reply = in_turn(reply)
    result = await generator.generate(GenerateRequest("1234 6789", n=2))
    assert [sample.tokens for sample in result.samples] == [2, 1]
    assert result.prompt_tokens == 3


def test_info_says_what_is_known_of_a_served_model(server: Server) -> None:
    info = asyncio.run(OpenAIGenerator.open(rewriter(server), MODEL)).info()
    assert (info.engine, info.model, info.context_length) == ("openai", MODEL, 256)
    assert (info.revision, info.parameters, info.device) == ("", 0, "endpoint")


# --- rewriting: parameters that a model does not take -------------------------------------------------------


def picky(refused: dict[str, str]) -> GenerationEvaluator:
    """A server that refuses requests with one of these parameters, as OpenAI does for reasoning models."""

    def reply(post: Post) -> Reply:
        for name, code in refused.items():
            if name in post.body:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return failure(400, message, param=name, code=code)
        return chat("fine")

    return reply


async def test_refused_parameters_are_left_out_for_good_with_one_warning_each(
    server: Server, generator: OpenAIGenerator, caplog: pytest.LogCaptureFixture
) -> None:
    server.reply = picky(
        {
            "max_tokens": "unsupported_parameter",
            "temperature": "unsupported_value",
            "top_p": "unsupported_parameter",
        }
    )
    requests = [GenerateRequest(f"prompt {number}", max_tokens=20) for number in range(3)]
    await asyncio.gather(*map(generator.generate, requests))
    before = len(server.posted)
    await generator.generate(GenerateRequest("Again", max_tokens=20))
    assert len(server.posted) == before + 1
    assert server.posted[-1].keys() == {"model", "messages", "max_completion_tokens", "seed"}
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [name for name in ("temperature", "top_p") for text in warnings if f"accept {name} " in text] == [
        "temperature",
        "top_p",
    ]
    assert len(warnings) == 2


async def test_samples_are_asked_for_one_by_one_where_n_is_refused(
    server: Server, generator: OpenAIGenerator
) -> None:
    server.reply = picky({"n": "unsupported_parameter"})
    result = await generator.generate(GenerateRequest("Hello", n=3, seed=1))
    assert len(result.samples) == 3
    assert [body["seed"] for body in server.posted if "n" not in body] == [1, 2, 3]


async def test_any_other_bad_request_is_the_requests_own_fault(
    server: Server, generator: OpenAIGenerator
) -> None:
    server.reply = in_turn(failure(400, "maximum context length is 256 tokens\nlong", param="messages"))
    with pytest.raises(EngineError) as caught:
        await generator.generate(GenerateRequest("Hello"))
    assert "400: maximum context length is 256 tokens)" in one_line(caught.value)
    assert len(server.posted) == 1


# --- failures of the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.1"}), failure(503), Reply(drop=True)],
)
async def test_passing_trouble_is_waited_for(
    server: Server, generator: OpenAIGenerator, trouble: Reply
) -> None:
    server.reply = in_turn(trouble, chat("fine"))
    assert (await generator.generate(GenerateRequest("Hello"))).samples[0].text == "fine"
    assert len(server.posted) == 2


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (failure(500, "CUDA error\nat line 5"), "500: CUDA error)"),
        (failure(429, "slow down"), "429: slow down)"),
        (Reply(raw=b"<html>Bad Gateway</html>", status=502), "502: <html>Bad Gateway</html>)"),
    ],
)
async def test_lasting_trouble_is_the_endpoints_after_all_retries(
    server: Server, generator: OpenAIGenerator, trouble: Reply, told: str
) -> None:
    server.reply = in_turn(trouble)
    with pytest.raises(EndpointError) as caught:
        await generator.generate(GenerateRequest("Hello"))
    line = one_line(caught.value)
    assert line.startswith(f"rewriter.endpoint.url={server.url} fails, up to 1 retries included")
    assert told in line
    assert len(server.posted) == 2


async def test_a_dropped_connection_is_the_endpoints(server: Server, generator: OpenAIGenerator) -> None:
    server.reply = in_turn(Reply(drop=True))
    with pytest.raises(EndpointError, match="gives no answer"):
        await generator.generate(GenerateRequest("Hello"))


async def test_an_answer_that_takes_too_long_is_the_endpoints(server: Server) -> None:
    def reply(_: Post) -> Reply:
        time.sleep(1)
        return chat("late")

    server.reply = reply
    opened = await OpenAIGenerator.open(rewriter(server, timeout=0.2, retries=0), MODEL)
    with pytest.raises(EndpointError, match="timed out"):
        await opened.generate(GenerateRequest("Hello"))


async def test_nobody_at_the_url_is_the_endpoints() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EndpointError) as caught:
        await OpenAIGenerator.open(rewriter(Server(url=url)), MODEL)
    assert one_line(caught.value).startswith(f"rewriter.endpoint.url={url} gives no answer")


@pytest.mark.parametrize(
    "strange",
    [
        Reply(raw=b"<html>Welcome</html>", headers={"Content-Type": "text/html"}),
        Reply(raw=b'{"choices": [{'),
        Reply({"error": {"message": "upstream is busy"}}),
        chat(),
    ],
)
async def test_an_answer_that_is_none_is_the_endpoints(
    server: Server, generator: OpenAIGenerator, strange: Reply
) -> None:
    server.reply = in_turn(strange)
    with pytest.raises(EndpointError) as caught:
        await generator.generate(GenerateRequest("Hello"))
    assert "unlike an OpenAI-compatible server" in one_line(caught.value)


@pytest.mark.parametrize(
    "refusal",
    [
        failure(429, "You exceeded your quota", code="insufficient_quota"),
        failure(402, "Insufficient Balance"),
    ],
)
async def test_an_account_without_money_is_not_waited_for(
    server: Server, generator: OpenAIGenerator, refusal: Reply
) -> None:
    server.reply = in_turn(refusal)
    with pytest.raises(ModelError, match="nothing left to spend"):
        await generator.generate(GenerateRequest("Hello"))


async def test_what_fails_withdraws_what_was_asked_beside_it(server: Server) -> None:
    def reply(post: Post) -> Reply:
        return failure(400, "no") if post.body["seed"] == 1 else chat("fine")

    server.reply = reply
    opened = await OpenAIGenerator.open(rewriter(server, concurrency=1), MODEL)
    with pytest.raises(EngineError):
        await opened.generate(GenerateRequest("Hello", n=50))
    assert len(server.posted) < 5


async def test_no_more_requests_are_open_than_allowed(server: Server) -> None:
    full, go_on = threading.Event(), threading.Event()

    def reply(_: Post) -> Reply:
        if server.open == 3:
            full.set()
        go_on.wait(60)
        return chat("fine")

    server.reply = reply
    opened = await OpenAIGenerator.open(rewriter(server, concurrency=3), MODEL)
    requests = asyncio.gather(*(opened.generate(GenerateRequest(f"prompt {n}")) for n in range(12)))
    assert await asyncio.to_thread(full.wait, 60)
    await asyncio.sleep(0.2)  # time for a fourth one to come, were there one
    go_on.set()
    await requests
    assert len(server.posted) == 12
    assert server.most_open == 3


# --- which model --------------------------------------------------------------------------------------------


async def test_a_model_that_is_not_served_is_refused_with_those_that_are(server: Server) -> None:
    server.models = [{"id": "org/first"}, {"id": "org/second\n"}]
    with pytest.raises(ModelError) as caught:
        await OpenAIGenerator.open(rewriter(server), MODEL)
    assert f"does not serve model '{MODEL}'; it serves: org/first, org/second;" in one_line(caught.value)
    server.models = [{"id": f"model-{number}"} for number in range(80)]
    with pytest.raises(ModelError, match="model-8, model-9 and 70 more;"):
        await OpenAIGenerator.open(rewriter(server), MODEL)


async def test_the_only_model_served_stands_in_for_one_that_the_role_did_not_name(server: Server) -> None:
    server.models = [{"id": "alias", "max_model_len": 100}]
    info = (await OpenAIGenerator.open(rewriter(server, model=None), MODEL)).info()
    assert (info.model, info.context_length) == ("alias", 100)
    with pytest.raises(ModelError, match="it serves: alias"):
        await OpenAIGenerator.open(rewriter(server, model=MODEL), MODEL)
    server.models = [{"id": "alias"}, {"id": "other"}]
    with pytest.raises(ModelError, match="it serves: alias, other"):
        await OpenAIGenerator.open(rewriter(server, model=None), MODEL)


async def test_a_server_without_a_list_is_believed_until_it_is_asked(server: Server) -> None:
    server.models = None
    server.reply = in_turn(failure(404, f"The model `{MODEL}` does not exist."))
    opened = await OpenAIGenerator.open(rewriter(server), MODEL)
    assert opened.info().context_length == 1 << 30
    with pytest.raises(ModelError) as caught:
        await opened.generate(GenerateRequest("Hello"))
    assert f"404: The model `{MODEL}` does not exist." in one_line(caught.value)


async def test_a_page_is_no_server(server: Server) -> None:
    web = ThreadingHTTPServer(("127.0.0.1", 0), page_handler())
    threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{web.server_port}"
    with pytest.raises(ModelError) as caught:
        await OpenAIGenerator.open(rewriter(server, url=url), MODEL)
    assert one_line(caught.value).startswith(f"rewriter.endpoint.url={url} is no OpenAI-compatible server")
    web.shutdown()
    web.server_close()


def page_handler() -> type[BaseHTTPRequestHandler]:
    class Page(BaseHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

    return Page


# --- the key ------------------------------------------------------------------------------------------------


async def test_the_key_goes_to_the_server_and_is_told_to_nobody_else(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    config = rewriter(server, api_key_env="MY_KEY", retries=0)
    opened = await OpenAIGenerator.open(config, MODEL)
    told = [repr(opened), str(opened.info()), repr(config), str(vars(opened))]
    for status in (400, 401, 402, 403, 404, 429, 500):
        server.reply = in_turn(failure(status, f"what is {KEY}?", param=KEY, code=KEY))
        with pytest.raises((EngineError, ModelError, EndpointError)) as caught:
            await opened.generate(GenerateRequest("Hello"))
        told.append(one_line(caught.value))
        told += traceback.format_exception(caught.value)
    server.reply = in_turn(Reply(drop=True))
    with pytest.raises(EndpointError) as dropped:
        await opened.generate(GenerateRequest("Hello"))
    told += traceback.format_exception(dropped.value)
    told += [caplog.text, *capfd.readouterr()]
    assert server.authorization == {f"Bearer {KEY}"}
    assert caplog.records
    assert not any(KEY in text for text in told)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_names_the_variable_and_the_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server.reply = in_turn(failure(status, "Incorrect API key provided: sk-1234"))
    for key, state in ((KEY, "wrong"), ("", "not set")):
        monkeypatch.setenv("MY_KEY", key)
        opened = await OpenAIGenerator.open(rewriter(server, api_key_env="MY_KEY"), MODEL)
        with pytest.raises(ModelError) as caught:
            await opened.generate(GenerateRequest("Hello"))
        line = one_line(caught.value)
        assert f"MY_KEY where the replica runs ({platform.node()})" in line
        assert state in line
        assert "sk-1234" not in line


async def test_a_server_of_ones_own_needs_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await OpenAIGenerator.open(rewriter(server), MODEL)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    await OpenAIGenerator.open(rewriter(server, api_key_env=None), MODEL)
    assert server.authorization == {"Bearer none"}


@pytest.mark.parametrize("url", [None, "https://api.openai.com/v1"])
async def test_openai_itself_needs_one(server: Server, url: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        await OpenAIGenerator.open(rewriter(server, url=url, api_key_env="MY_KEY"), MODEL)
    line = one_line(caught.value)
    assert f"MY_KEY where the replica runs ({platform.node()}): it is not set" in line
    with pytest.raises(ConfigError, match=r"in rewriter\.endpoint\.api_key_env"):
        await OpenAIGenerator.open(rewriter(server, url=url, api_key_env=None), MODEL)


async def test_without_a_url_the_clients_own_variable_counts_and_its_credentials_are_not_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url.replace("//", "//user:secret@"))
    opened = await OpenAIGenerator.open(rewriter(server, url=None), MODEL)
    server.reply = in_turn(failure(400))
    with pytest.raises(EngineError) as caught:
        await opened.generate(GenerateRequest("Hello"))
    assert server.url in one_line(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "a\nb", "ключ"])
async def test_what_no_key_can_be_is_refused_without_showing_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError) as caught:
        await OpenAIGenerator.open(rewriter(server, api_key_env="MY_KEY"), MODEL)
    assert "MY_KEY" in one_line(caught.value)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        f"url: http://user:{KEY}@127.0.0.1:8000/v1",
        f"url: http://127.0.0.1:8000/v1?key={KEY}",
        f"api_key_env: {KEY}",
    ],
)
def test_credentials_in_the_configuration_are_refused_without_showing_them(
    tmp_path: Path, setting: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"rewriter:\n  endpoint:\n    {setting}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(file))
    assert f"rewriter.endpoint.{setting.partition(':')[0]}" in one_line(caught.value)
    assert KEY not in str(caught.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "openai.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'openai'\", name='openai')"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import asyncio\n"
        "from pmpo_ray.config.engines import RewriterConfig\n"
        "from pmpo_ray.engines.openai.generator import OpenAIGenerator\n"
        "from pmpo_ray.errors import ConfigError\n"
        "try:\n"
        "    asyncio.run(OpenAIGenerator.open(RewriterConfig(engine='openai'), 'm'))\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "rewriter.engine=openai needs the package openai: pip install 'pmpo-ray[openai]'\n"
