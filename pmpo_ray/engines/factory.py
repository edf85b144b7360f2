"""Engines: one model replica each, usable, tested and timed without Ray.

Invariant: importing this package imports no engine; each is imported when one is created.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.engines.auto import choose_engine
from pmpo_ray.errors import ConfigError
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer, Generator, Scorer

T = TypeVar("T")


def create_scorer(config: ScorerConfig, model: str) -> Scorer:
    """The synchronous scorer that `config.engine` names, with `model` loaded.

    Raises ConfigError for an engine that needs an event loop, ModelError where the model cannot be loaded.
    """
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedScorer

        return SimulatedScorer(model)
    if choose_engine(config, model) == "transformers":
        from pmpo_ray.engines.hf.scorer import TransformersScorer

        return TransformersScorer.load(model, config)
    raise ConfigError(
        "scorer.engine: this engine needs an event loop; use pmpo_ray.engines.factory.open_scorer"
    )


def create_generator(config: RewriterConfig, model: str) -> Generator:
    """The synchronous generator that `config.engine` names, with `model` loaded. Errors as in
    `create_scorer`."""
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedGenerator

        return SimulatedGenerator(model)
    if choose_engine(config, model) == "transformers":
        from pmpo_ray.engines.hf.generator import TransformersGenerator

        return TransformersGenerator.load(model, config)
    raise ConfigError(
        "rewriter.engine: this engine needs an event loop; use pmpo_ray.engines.factory.open_generator"
    )


async def open_scorer(config: ScorerConfig, model: str, factory: object | None = None) -> AsyncScorer:
    """The scorer that `config.engine` names, of any kind, with `model` loaded or its server found. `factory`
    makes it where the engine is the user's own and cannot be imported here.

    Raises ConfigError, ModelError or ResourceError where that cannot be had, and EndpointError where a server
    does not answer.
    """
    engine = await asyncio.to_thread(choose_engine, config, model)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.scorer import VllmScorer

        return VllmScorer(await VllmEngine.start(config, model), config)
    if engine == "openai":
        from pmpo_ray.engines.openai.scorer import OpenAIScorer

        return await OpenAIScorer.open(config, model)
    if engine == "own":
        from pmpo_ray.engines.custom import open_own_scorer

        return await open_own_scorer(config, model, factory)
    from pmpo_ray.engines.threaded import ThreadedScorer

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
    return ThreadedScorer(await _in(thread, lambda: create_scorer(config, model)), thread)


async def open_generator(config: RewriterConfig, model: str, factory: object | None = None) -> AsyncGenerator:
    """The generator that `config.engine` names, of any kind. `factory` and errors as in `open_scorer`."""
    engine = await asyncio.to_thread(choose_engine, config, model)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.generator import VllmGenerator

        return VllmGenerator(await VllmEngine.start(config, model))
    if engine == "openai":
        from pmpo_ray.engines.openai.generator import OpenAIGenerator

        return await OpenAIGenerator.open(config, model)
    if engine == "own":
        from pmpo_ray.engines.custom import open_own_generator

        return await open_own_generator(config, model, factory)
    from pmpo_ray.engines.threaded import ThreadedGenerator

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewriter")
    return ThreadedGenerator(await _in(thread, lambda: create_generator(config, model)), config.batch, thread)


async def open_both(
    scorer: ScorerConfig, rewriter: RewriterConfig, model: str
) -> tuple[AsyncScorer, AsyncGenerator]:
    """A scorer and a generator over one copy of `model`, which `scorer` describes. Errors as in
    `open_scorer`."""
    engine = await asyncio.to_thread(choose_engine, scorer, model)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.generator import VllmGenerator
        from pmpo_ray.engines.vllm.scorer import VllmScorer

        shared = await VllmEngine.start(scorer, model)
        return VllmScorer(shared, scorer), VllmGenerator(shared)
    from pmpo_ray.engines.threaded import ThreadedGenerator, ThreadedScorer

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="both")
    pair = await _in(thread, lambda: _create_pair(scorer, model))
    return ThreadedScorer(pair[0], thread), ThreadedGenerator(pair[1], rewriter.batch, thread)


def _create_pair(config: ScorerConfig, model: str) -> tuple[Scorer, Generator]:
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer

        return SimulatedScorer(model), SimulatedGenerator(model)
    from pmpo_ray.engines.hf.generator import TransformersGenerator
    from pmpo_ray.engines.hf.loading import load_replica
    from pmpo_ray.engines.hf.scorer import TransformersScorer

    loaded = load_replica(model, config)
    return TransformersScorer(loaded, config), TransformersGenerator(loaded)


async def _in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
