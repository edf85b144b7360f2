"""A scorer on a server that returns log-likelihoods of prompts: vLLM, SGLang (AsyncScorer).

Invariants:
- Requests hold token ids of the project's templates, so that scores mean the same as those of other engines;
  a server that reads them with another tokenizer is refused when the scorer is opened.
- A score is made of finite log-likelihoods, one for every token of its answer, or there is none.
- An example that can't be scored is named in the error.

Such servers compute every prompt in full: vLLM does not read its prefix cache for requests of prompt
log-likelihoods (`skip_reading_prefix_cache`). The engines transformers and vllm are many times faster.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, cast

from pmpo_ray.concurrency import gather_or_cancel
from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.answer_tree import Item
from pmpo_ray.engines.items import ItemBuilder, example_name, example_score
from pmpo_ray.engines.openai.client import Endpoint, ServedModel
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ConfigError, EngineError, ModelError
from pmpo_ray.types import EngineInfo, Example, ExampleScore, PromptLength, ScoreRequest, ScoreResult

if TYPE_CHECKING:
    from openai.types import Completion
    from openai.types.completion_choice import Logprobs
    from transformers import PreTrainedTokenizerBase

_PROBE = "The quick brown fox: 12 + 345 = 357?"
_MIXED = _PROBE + '\n\tif a <= b: return {"naïve": [1, 2]}  # 你好, Größe 🙂'
_NOT_OFFERED = (400, 404, 405, 422, 501)
_TOKEN_ID = "token_id:"
"""The prefix of vLLM's token names if it is configured to return ids instead of texts."""


class OpenAIScorer:
    """One model behind an endpoint that scores answers."""

    def __init__(
        self, endpoint: Endpoint, model: str, logprobs: int, items: ItemBuilder, info: EngineInfo
    ) -> None:
        self._endpoint = endpoint
        self._model = model
        self._logprobs = logprobs
        self._items = items
        self._info = info

    @classmethod
    async def open(cls, config: ScorerConfig, model: str, day: date | None = None) -> OpenAIScorer:
        """A scorer with the tokenizer of `model` here and its weights behind the endpoint. `day` is the date
        in its prompts.

        Raises ConfigError if the url, the package or the key is missing, ModelError if the server has another
        model or tokenizer or returns no log-likelihoods of prompts, EndpointError if it does not answer.
        """
        if config.endpoint.url is None:
            raise ConfigError(
                "scorer.endpoint.url is not set: OpenAI's own service gives no log-likelihoods of prompts; "
                "set it to a vLLM or SGLang server"
            )
        endpoint = Endpoint("scorer", config)
        served = await endpoint.find_model(model, named=config.model is not None)
        resolved, tokenizer = await asyncio.to_thread(_load_tokenizer, config, model)
        logprobs = await _probe(endpoint, served, resolved, tokenizer)
        encoder = PromptEncoder(tokenizer, config.layout, day)
        context_length = served.context_length or min(int(tokenizer.model_max_length), 1 << 30)
        info = EngineInfo(
            engine="openai",
            model=resolved.name,
            revision=resolved.revision,
            parameters=0,
            context_length=context_length,
            layout=encoder.layout,
            dtype="",
            device="endpoint",
        )
        # The server generates one token after every prompt, which has to fit as well.
        items = ItemBuilder(encoder, context_length - 1)
        return cls(endpoint, served.name, logprobs, items, encoder.described(info))

    def info(self) -> EngineInfo:
        return self._info

    def lengths(self, request: ScoreRequest) -> tuple[PromptLength, ...]:
        """The length of each example (protocols.Measurer)."""
        return self._items.lengths(request)

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Score every example's target and negatives (protocols.Scorer.score): one request per example."""
        began = time.perf_counter()
        items = self._items.items(request)
        rated = await gather_or_cancel(
            self._rate(example, item) for example, item in zip(request.examples, items, strict=True)
        )
        computed = sum(tokens for _, tokens in rated)
        return ScoreResult(tuple(score for score, _ in rated), computed, time.perf_counter() - began)

    def close(self) -> None:
        self._endpoint.close()

    async def _rate(self, example: Example, item: Item) -> tuple[ExampleScore, int]:
        """The example's score, and the number of tokens that the server computed for it."""
        prompts = [[*item.context, *answer] for answer in item.answers]
        try:
            async with self._endpoint.request() as client:
                completion = await client.completions.create(
                    **_fields(self._model, prompts, self._logprobs, self._endpoint.parameters)
                )
        except EngineError as error:
            raise EngineError(f"{example_name(example)}: {error}") from None
        rows = [_values(logprobs) for logprobs in _logprobs(self._endpoint, completion)]
        if len(rows) != len(prompts):
            raise RuntimeError(f"{self._endpoint.where} gave {len(rows)} answers to {len(prompts)} prompts")
        start = len(item.context)
        sums = [
            _sum(row[start : start + len(answer)], len(answer))
            for row, answer in zip(rows, item.answers, strict=True)
        ]
        details = completion.usage.prompt_tokens_details if completion.usage is not None else None
        cached = (details.cached_tokens or 0) if details is not None else 0
        return example_score(item, sums), sum(map(len, prompts)) - cached


def _load_tokenizer(config: ScorerConfig, model: str) -> tuple[ResolvedModel, PreTrainedTokenizerBase]:
    code = config.trust_remote_code
    resolved = resolve_model(model, revision=config.revision, code=code, weights=False, progress=False)
    return resolved, load_tokenizer(resolved, trust_remote_code=code)


def _fields(
    model: str, prompts: Sequence[Sequence[int]], logprobs: int, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """A request for the log-likelihoods of prompts: their echo, and one more token, which servers insist
    on."""
    return {
        "model": model,
        "prompt": prompts,
        "max_tokens": 1,
        "temperature": 0.0,
        "echo": True,
        "logprobs": logprobs,
        "extra_body": parameters,
    }


def _logprobs(endpoint: Endpoint, completion: Completion | str) -> list[Logprobs | None]:
    """The log-likelihoods of each prompt's choice. Raises EndpointError if the answer is no completion."""
    # The client returns the text of an answer that is not JSON, and None for missing fields.
    if isinstance(completion, str) or not cast("list[Any] | None", completion.choices):
        raise endpoint.not_compatible("without any choice")
    return [choice.logprobs for choice in sorted(completion.choices, key=lambda choice: choice.index)]


def _values(logprobs: Logprobs | None) -> Sequence[float | None]:
    """log p of every token, None for the first."""
    return [] if logprobs is None else [*(logprobs.token_logprobs or ())]


def _sum(row: Sequence[float | None], length: int) -> float:
    values = [value for value in row if value is not None and math.isfinite(value)]
    if len(values) != length:
        raise RuntimeError("the server gave no finite log-likelihood for some token of an answer")
    return math.fsum(values)


# --- abilities of the server, checked once ------------------------------------------------------------------


async def _probe(
    endpoint: Endpoint, served: ServedModel, resolved: ResolvedModel, tokenizer: PreTrainedTokenizerBase
) -> int:
    """The value of `logprobs` with which the server rates two small prompts. vLLM takes 0, SGLang wants 1.

    Raises ModelError if it rates none, or has another tokenizer than `tokenizer`.
    """
    # First, since ids of another vocabulary may be refused like any bad request.
    compared = await _same_ids(endpoint, served, resolved, tokenizer)
    whole = _ids(tokenizer, _PROBE)
    prompts = [whole, whole[:-1]]
    lengths = [len(prompt) for prompt in prompts]
    reason = ""
    for logprobs in (0, 1):
        completion, reason = await _try(
            endpoint, _fields(served.name, prompts, logprobs, endpoint.parameters)
        )
        if completion is None:
            continue
        rated = _logprobs(endpoint, completion)
        counted = None if completion.usage is None else completion.usage.prompt_tokens
        if counted not in (None, sum(lengths)):
            reason = f": {counted} tokens counted where {sum(lengths)} were sent"
        elif len(rated) == len(prompts) and all(map(_rates, rated, lengths)):
            if not compared:
                _compare_texts(endpoint, resolved, tokenizer, rated[0])
            return logprobs
    raise ModelError(
        f"{endpoint.where}: the server returns no prompt log-likelihoods (completions with echo and logprobs"
        f"{reason}); serve the model with vLLM or SGLang, or use scorer.engine: transformers or vllm"
    )


async def _try(endpoint: Endpoint, fields: dict[str, Any]) -> tuple[Completion | None, str]:
    """The completion; or None, and the reason why the server gives none."""
    import openai

    async with endpoint.request() as client:
        try:
            return await client.completions.create(**fields), ""
        except openai.APIStatusError as error:
            if error.status_code not in _NOT_OFFERED:
                raise
            return None, f": {error.status_code}, {endpoint.reason(error)}"


def _rates(logprobs: Logprobs | None, length: int) -> bool:
    """True if every token of the prompt except the first has a finite log-likelihood."""
    values = _values(logprobs)
    return length <= len(values) <= length + 1 and all(
        value is not None and math.isfinite(value) for value in values[1:]
    )


async def _same_ids(
    endpoint: Endpoint, served: ServedModel, resolved: ResolvedModel, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """True if the server gives a text the same token ids, False if it does not tell. Raises ModelError if
    they differ."""
    ids = await _tokenize(endpoint, served)
    if ids is not None and ids != _ids(tokenizer, _MIXED):
        raise _other_tokenizer(endpoint, resolved, "gives a text other token ids")
    return ids is not None


def _compare_texts(
    endpoint: Endpoint, resolved: ResolvedModel, tokenizer: PreTrainedTokenizerBase, rated: Logprobs | None
) -> None:
    """Raises ModelError if the server shows another text for the token ids of the first prompt."""
    pieces = (rated.tokens if rated is not None else None) or []
    text = "".join("".join(pieces[: len(_ids(tokenizer, _PROBE))]).split())
    # Spaces are left out: tokenizers differ in whether a single token shows its space.
    if text and not text.startswith(_TOKEN_ID) and text != "".join(_PROBE.split()):
        raise _other_tokenizer(endpoint, resolved, f"reads other text in token ids ({text[:40]!r})")


async def _tokenize(endpoint: Endpoint, served: ServedModel) -> list[int] | None:
    """The server's token ids of `_MIXED`; None if it does not offer that."""
    import openai

    url = endpoint.url.removesuffix("/v1") + "/tokenize"
    body = {"model": served.name, "prompt": _MIXED, "add_special_tokens": False}
    async with endpoint.request() as client:
        try:
            answer = await client.post(url, cast_to=object, body=body)
        except openai.APIStatusError as error:
            if error.status_code in _NOT_OFFERED:
                return None
            raise
    ids = answer.get("tokens") if isinstance(answer, Mapping) else None
    return ids if isinstance(ids, list) and ids and all(isinstance(token, int) for token in ids) else None


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _other_tokenizer(endpoint: Endpoint, resolved: ResolvedModel, how: str) -> ModelError:
    return ModelError(
        f"{endpoint.where}: the server {how} than the tokenizer of {resolved.name!r}; set scorer.model to "
        "the model that the server serves"
    )
