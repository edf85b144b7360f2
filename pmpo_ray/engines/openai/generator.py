"""Sampling from an OpenAI-compatible server (AsyncGenerator).

Invariants:
- A request is one HTTP request, so that its prompt is paid for once; only samples that a server does not
  return that way are requested one by one, each with its own seed.
- A request is sent as messages: the server's own chat template shows them. So the layout plain, running text,
  is sent as a conversation with a system turn, which is said once.
- A parameter that the server refuses for this model is not sent again; a stop string ends a sample whether
  the server supports it or not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.engines.conversation import chat_messages
from pmpo_ray.engines.openai.client import Endpoint, ServedModel
from pmpo_ray.types import EngineInfo, GenerateRequest, GenerateResult, Generation, Layout

if TYPE_CHECKING:
    from openai import BadRequestError
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice

_log = logging.getLogger(__name__)

_OPTIONAL = ("temperature", "top_p", "seed", "n", "stop")
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value")
_ENDED = ("stop", "eos", "eos_token")
"""Finish reasons of complete answers, by server."""
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class _Answer:
    samples: tuple[Generation, ...]
    prompt_tokens: int


class OpenAIGenerator:
    """One model behind an endpoint that answers prompts."""

    def __init__(self, endpoint: Endpoint, served: ServedModel) -> None:
        self._endpoint = endpoint
        self._served = served
        self._limit = "max_tokens"
        self._refused: set[str] = set()
        self._said_layout = False

    @classmethod
    async def open(cls, config: RewriterConfig, model: str) -> OpenAIGenerator:
        """A generator with `model`, or with the only model that the server has. No paid request is made.

        Raises ConfigError if the package or the key is missing, ModelError if the key or the model is
        refused, EndpointError if the server does not answer.
        """
        endpoint = Endpoint("rewriter", config)
        return cls(endpoint, await endpoint.find_model(model, named=config.model is not None))

    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="openai",
            model=self._served.name,
            revision="",
            parameters=0,
            context_length=self._served.context_length or 1 << 30,
            layout="chat",
            dtype="",
            device="endpoint",
        )

    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """The samples of one request (protocols.Generator.generate). Tokens are those that the server counts
        over all samples, or an estimate if it counts none."""
        began = time.perf_counter()
        if request.layout == "plain" and not self._said_layout:
            self._said_layout = True
            _log.warning(
                "scorer.layout is plain, but this server takes messages: replies answer a conversation with "
                "the instruction as its system turn, not the running text that is scored"
            )
        # Greedy samples are all the same, and vLLM refuses to make several.
        count = 1 if request.temperature == 0 else request.n
        first = await self._answer(request, count, request.seed)
        others = await gather_or_cancel(
            self._answer(request, 1, request.seed + number) for number in range(len(first.samples), count)
        )
        answers = (first, *others)
        samples = tuple(sample for answer in answers for sample in answer.samples)
        prompt_tokens = sum(answer.prompt_tokens for answer in answers)
        if count < request.n:
            samples *= request.n
        return GenerateResult(samples, prompt_tokens, time.perf_counter() - began)

    def close(self) -> None:
        self._endpoint.close()

    async def _answer(self, request: GenerateRequest, n: int, seed: int) -> _Answer:
        """At least one and at most `n` samples, the first with `seed`."""
        import openai

        messages = _messages(request)
        async with self._endpoint.request() as client:
            while True:
                fields = self._fields(request, n, seed)
                try:
                    completion = await client.chat.completions.create(
                        messages=messages, extra_body=self._endpoint.parameters, **fields
                    )
                    break
                except openai.BadRequestError as error:
                    if not self._learns(error, fields):
                        raise
        return self._read(completion, request, n)

    def _fields(self, request: GenerateRequest, n: int, seed: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model": self._served.name,
            self._limit: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": seed,
        }
        if n > 1:
            fields["n"] = n
        if request.stop:
            fields["stop"] = list(request.stop)
        return {name: value for name, value in fields.items() if name not in self._refused}

    def _learns(self, error: BadRequestError, sent: Mapping[str, Any]) -> bool:
        """True if the server refuses one of the parameters `sent`, which is omitted from now on."""
        if "max_tokens" in sent and _refuses_max_tokens(error):
            self._limit = "max_completion_tokens"
            return True
        name = error.param
        if name is None or name not in _OPTIONAL or name not in sent or error.code not in _UNSUPPORTED:
            return False
        if name not in self._refused:
            self._refused.add(name)
            _log.warning(
                "%s: model %r does not accept %s as configured; it is omitted from now on",
                self._endpoint.where,
                self._served.name,
                name,
            )
        return True

    def _read(self, completion: ChatCompletion | str, request: GenerateRequest, n: int) -> _Answer:
        # The client returns the text of an answer that is not JSON, and None for missing fields.
        choices = None if isinstance(completion, str) else cast("Sequence[Choice] | None", completion.choices)
        if isinstance(completion, str) or not choices:
            raise self._endpoint.not_compatible("without any choice")
        chosen = sorted(choices, key=lambda choice: choice.index)[:n]
        texts = [_text(choice, request.stop) for choice in chosen]
        prompt_tokens, tokens = _count(completion.usage, request, [text for text, _ in texts])
        return _Answer(
            tuple(Generation(text, count, ended) for (text, ended), count in zip(texts, tokens, strict=True)),
            prompt_tokens,
        )


def _messages(request: GenerateRequest) -> list[Any]:
    layout: Layout = "user" if request.layout == "user" else "system"
    return [*chat_messages(layout, request.system, request.shots, request.prompt)]


def _refuses_max_tokens(error: BadRequestError) -> bool:
    unsupported = error.code in _UNSUPPORTED or "unsupported" in error.message.lower()
    return unsupported and (error.param == "max_tokens" or "'max_tokens'" in error.message)


def _text(choice: Choice, stops: Sequence[str]) -> tuple[str, bool]:
    """The sample's text up to the first stop string, and True if it is complete."""
    text = choice.message.content or ""
    if not text or choice.finish_reason == "content_filter":
        return "", False
    cut = text
    for stop in stops:
        cut = cut.partition(stop)[0]
    return cut, choice.finish_reason in _ENDED or cut != text


def _count(
    usage: CompletionUsage | None, request: GenerateRequest, texts: Sequence[str]
) -> tuple[int, list[int]]:
    """Tokens of the prompt, and of each sample: the server's count over all samples, split by their
    lengths."""
    if usage is None or usage.completion_tokens is None:  # the client returns None for missing fields
        prompt = sum(len(message["content"]) for message in _messages(request))
        return _estimate(prompt), [_estimate(len(text)) for text in texts]
    total = usage.completion_tokens
    ends = [sum(map(len, texts[: end + 1])) + end + 1 for end in range(len(texts))]
    marks = [0, *(total * end // ends[-1] for end in ends)]
    return usage.prompt_tokens or 0, [after - before for before, after in pairwise(marks)]


def _estimate(characters: int) -> int:
    return -(-characters // _CHARS_PER_TOKEN)
