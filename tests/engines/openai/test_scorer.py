"""Scoring behind an endpoint: a server that rates prompts, and those that only seem to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from pmpo_ray.config.engines import DEFAULT_MODEL, EndpointConfig, ScorerConfig
from pmpo_ray.engines.openai.scorer import OpenAIScorer
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ConfigError, EndpointError, EngineError, ModelError
from pmpo_ray.types import Example, ScoreRequest
from tests.engines.openai.test_generator import Post, Reply, Server, failure, in_turn, one_line, running

pytestmark = pytest.mark.slow

EXAMPLES = (
    Example("a", "Is 2 even?", "yes", ("no", "not at all")),
    Example("b", "Is 3 even?", "no", ("yes",)),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running() as state:
        yield state


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(
        resolve_model(DEFAULT_MODEL, weights=False, progress=False), trust_remote_code=False
    )


def logprob(token: int) -> float:
    """What the server says of a token, wherever it stands."""
    return -(token % 13) / 8


@dataclass
class Rating:
    """A server that rates prompts. `least` is the smallest `logprobs` with which it does."""

    tokenizer: PreTrainedTokenizerBase
    least: int = 0
    value: Callable[[int], float | None] = logprob
    tokenize: Callable[[list[int]], list[int]] | None = list
    names: Callable[[str], str] = str
    cached: int | None = None
    added: int = 0

    def __call__(self, post: Post) -> Reply:
        path, body = post.path, post.body
        if path == "/tokenize":
            if self.tokenize is None:
                return Reply({"detail": "Not Found"}, 404)
            ids = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
            return Reply({"tokens": self.tokenize(ids)})
        assert (path, body["echo"], body["max_tokens"]) == ("/v1/completions", True, 1)
        choices = [
            {
                "index": index,
                "text": "",
                "finish_reason": "length",
                "logprobs": self.rate(ids, body["logprobs"]),
            }
            for index, ids in enumerate(body["prompt"])
        ]
        details = None if self.cached is None else {"cached_tokens": self.cached}
        usage = {
            "prompt_tokens": sum(map(len, body["prompt"])) + self.added,
            "prompt_tokens_details": details,
        }
        return Reply({"id": "x", "choices": choices[::-1], "usage": usage})

    def rate(self, ids: list[int], logprobs: int) -> dict[str, object]:
        drawn = [*ids, 5]
        rated = [None, *map(self.value, drawn[1:])] if logprobs >= self.least else [-1.0]
        return {
            "token_logprobs": rated,
            "tokens": [self.names(self.tokenizer.decode([token])) for token in drawn],
        }


def scorer_config(server: Server, **endpoint: Any) -> ScorerConfig:
    settings = {"url": server.url, "retries": 0, **endpoint}
    return ScorerConfig(engine="openai", endpoint=EndpointConfig(**settings))


async def open_scorer(server: Server) -> OpenAIScorer:
    return await OpenAIScorer.open(scorer_config(server), DEFAULT_MODEL)


@pytest.mark.parametrize("least", [0, 1])
async def test_scores_are_the_sums_over_the_answers_tokens(
    server: Server, tokenizer: PreTrainedTokenizerBase, least: int
) -> None:
    server.reply = Rating(tokenizer, least)
    scorer = await open_scorer(server)
    server.posted.clear()
    result = await scorer.score(ScoreRequest("Answer yes or no.", EXAMPLES))
    encoder = PromptEncoder(tokenizer)
    items = encoder.items("Answer yes or no.", (), EXAMPLES)
    for item, score in zip(items, result.scores, strict=True):
        answers, context = item.answers, item.context
        sums = [sum(map(logprob, answer)) for answer in answers]
        assert [score.target.logprob, *(each.logprob for each in score.negatives)] == pytest.approx(sums)
        assert [score.target.tokens, *(each.tokens for each in score.negatives)] == list(map(len, answers))
        assert score.context_tokens == len(context)
    assert result.tokens_computed == sum(len(ids) for body in server.posted for ids in body["prompt"])
    assert len(server.posted) == len(EXAMPLES)
    assert {body["logprobs"] for body in server.posted} == {least}
    assert scorer.info().layout == encoder.layout
    assert (scorer.info().model, scorer.info().context_length) == (DEFAULT_MODEL, 256)
    assert scorer.info().revision


async def test_what_the_server_had_in_its_cache_was_not_computed(
    server: Server, tokenizer: PreTrainedTokenizerBase
) -> None:
    server.reply = Rating(tokenizer, cached=4)
    scorer = await open_scorer(server)
    server.posted.clear()
    result = await scorer.score(ScoreRequest("Answer.", EXAMPLES))
    sent = sum(len(ids) for body in server.posted for ids in body["prompt"])
    assert result.tokens_computed == sent - 4 * len(EXAMPLES)


@pytest.mark.parametrize(
    "reply",
    [
        failure(400, "Setting 'echo' and 'logprobs' is not supported."),
        failure(404, "no such path"),
        Reply({"choices": [{"index": 0, "text": "", "logprobs": None}]}),
    ],
)
async def test_a_server_that_rates_no_prompts_is_refused(server: Server, reply: Reply) -> None:
    server.reply = in_turn(reply)
    with pytest.raises(ModelError) as caught:
        await open_scorer(server)
    line = one_line(caught.value)
    assert line.startswith(f"scorer.endpoint.url={server.url}: the server returns no prompt log-likelihoods")
    assert "serve the model with vLLM or SGLang, or use scorer.engine: transformers or vllm" in line


@pytest.mark.parametrize(
    "changes", [{"least": 2}, {"value": lambda token: None if token % 2 else -1.0}, {"added": 1}]
)
async def test_a_server_that_rates_other_tokens_than_those_sent_is_refused(
    server: Server, tokenizer: PreTrainedTokenizerBase, changes: dict[str, Any]
) -> None:
    server.reply = Rating(tokenizer, **changes)
    with pytest.raises(ModelError, match="returns no prompt log-likelihoods"):
        await open_scorer(server)


async def test_a_page_is_no_completion(server: Server) -> None:
    server.reply = in_turn(Reply(raw=b"<html>\nWelcome</html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(EndpointError) as caught:
        await open_scorer(server)
    assert "unlike an OpenAI-compatible server" in one_line(caught.value)


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"tokenize": lambda ids: [*ids[:-1], 0]}, "gives a text other token ids"),
        ({"tokenize": None, "names": str.upper}, "reads other text in token ids"),
    ],
)
async def test_a_server_with_another_tokenizer_is_refused(
    server: Server, tokenizer: PreTrainedTokenizerBase, changes: dict[str, Any], how: str
) -> None:
    server.reply = Rating(tokenizer, **changes)
    with pytest.raises(ModelError) as caught:
        await open_scorer(server)
    line = one_line(caught.value)
    assert line.startswith(f"scorer.endpoint.url={server.url}: the server {how}")
    assert f"than the tokenizer of '{DEFAULT_MODEL}'" in line


@pytest.mark.parametrize("names", [str, "token_id:{}".format])
async def test_a_server_without_tokenization_is_known_by_the_texts_of_its_tokens(
    server: Server, tokenizer: PreTrainedTokenizerBase, names: Callable[[str], str]
) -> None:
    server.reply = Rating(tokenizer, tokenize=None, names=names)
    await open_scorer(server)


@pytest.mark.parametrize("value", [None, float("nan")])
async def test_a_missing_log_likelihood_is_the_replicas_fault(
    server: Server, tokenizer: PreTrainedTokenizerBase, value: float | None
) -> None:
    rating = Rating(tokenizer)
    server.reply = rating
    scorer = await open_scorer(server)
    end = PromptEncoder(tokenizer).end_of_turn[-1]
    rating.value = lambda token: value if token == end else -1.0
    with pytest.raises(RuntimeError, match="no finite log-likelihood"):
        await scorer.score(ScoreRequest("Answer.", EXAMPLES))


async def test_an_example_beyond_the_context_is_named_and_not_sent(
    server: Server, tokenizer: PreTrainedTokenizerBase
) -> None:
    server.reply = Rating(tokenizer)
    scorer = await open_scorer(server)
    server.posted.clear()
    long = Example("long", "word " * 300, "yes")
    with pytest.raises(EngineError, match=r"example long .* context holds 255"):
        await scorer.score(ScoreRequest("Answer.", (*EXAMPLES, long)))
    assert not server.posted


async def test_an_example_that_the_server_refuses_is_named(
    server: Server, tokenizer: PreTrainedTokenizerBase
) -> None:
    server.reply = Rating(tokenizer)
    scorer = await open_scorer(server)
    server.reply = in_turn(failure(400, "too long"))
    with pytest.raises(EngineError) as caught:
        await scorer.score(ScoreRequest("Answer.", EXAMPLES[:1]))
    assert one_line(caught.value).startswith("example a ('Is 2 even?'...): scorer.endpoint.url=")


async def test_a_scorer_needs_a_url(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.endpoint\.url is not set"):
        await OpenAIScorer.open(scorer_config(server, url=None), DEFAULT_MODEL)
