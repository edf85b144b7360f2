"""Create the engine that a configuration names.

Invariant: importing this module imports no engine; each is imported when one is created.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.engines.auto import choose_engine
from pmpo_ray.engines.placement import Placement
from pmpo_ray.errors import ConfigError
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer, Generator, Scorer

T = TypeVar("T")


def create_scorer(config: ScorerConfig, model: str, placement: Placement | None = None) -> Scorer:
    """The synchronous scorer that `config.engine` names, with `model` loaded on the hardware of `placement`
    (None: of `config`).

    Raises ConfigError if the engine needs an event loop, ModelError if the model cannot be loaded.
    """
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedScorer

        return SimulatedScorer(model)
    placement = placement or Placement.configured(config)
    if choose_engine(config, model, placement) == "transformers":
        from pmpo_ray.engines.hf.scorer import TransformersScorer

        return TransformersScorer.load(model, config, placement)
    raise ConfigError(
        "scorer.engine: this engine needs an event loop; use pmpo_ray.engines.factory.open_scorer"
    )


def create_generator(config: RewriterConfig, model: str, placement: Placement | None = None) -> Generator:
    """The synchronous generator that `config.engine` names, with `model` loaded. `placement` and errors as in
    `create_scorer`."""
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedGenerator

        return SimulatedGenerator(model)
    placement = placement or Placement.configured(config)
    if choose_engine(config, model, placement) == "transformers":
        from pmpo_ray.engines.hf.generator import TransformersGenerator

        return TransformersGenerator.load(model, config, placement)
    raise ConfigError(
        "rewriter.engine: this engine needs an event loop; use pmpo_ray.engines.factory.open_generator"
    )


async def open_scorer(
    config: ScorerConfig, model: str, placement: Placement | None = None, factory: object | None = None
) -> AsyncScorer:
    """The scorer that `config.engine` names, of any kind, with `model` loaded on the hardware of `placement`
    (None: of `config`), or its server found. `factory` makes a user-defined engine that cannot be imported
    here.

    Raises ConfigError, ModelError or ResourceError if it is not available, and EndpointError if a server does
    not answer.
    """
    placement = placement or Placement.configured(config)
    engine = await asyncio.to_thread(choose_engine, config, model, placement)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.scorer import VllmScorer

        return VllmScorer(await VllmEngine.start(config, model, placement), config)
    if engine == "openai":
        from pmpo_ray.engines.openai.scorer import OpenAIScorer

        return await OpenAIScorer.open(config, model, placement.day)
    if engine == "custom":
        from pmpo_ray.engines.custom import open_custom_scorer

        return await open_custom_scorer(config, model, placement, factory)
    from pmpo_ray.engines.threaded import ThreadedScorer

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
    return ThreadedScorer(await _in(thread, lambda: create_scorer(config, model, placement)), thread)


async def open_generator(
    config: RewriterConfig, model: str, placement: Placement | None = None, factory: object | None = None
) -> AsyncGenerator:
    """The generator that `config.engine` names. `placement`, `factory` and errors as in
    `open_scorer`."""
    placement = placement or Placement.configured(config)
    engine = await asyncio.to_thread(choose_engine, config, model, placement)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.generator import VllmGenerator

        return VllmGenerator(await VllmEngine.start(config, model, placement))
    if engine == "openai":
        from pmpo_ray.engines.openai.generator import OpenAIGenerator

        return await OpenAIGenerator.open(config, model)
    if engine == "custom":
        from pmpo_ray.engines.custom import open_custom_generator

        return await open_custom_generator(config, model, placement, factory)
    from pmpo_ray.engines.threaded import ThreadedGenerator

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewriter")
    generator = await _in(thread, lambda: create_generator(config, model, placement))
    return ThreadedGenerator(generator, config.batch, thread)


async def open_both(
    scorer: ScorerConfig, rewriter: RewriterConfig, model: str, placement: Placement | None = None
) -> tuple[AsyncScorer, AsyncGenerator]:
    """A scorer and a generator over one copy of `model`, which `scorer` describes. `placement` and errors as
    in `open_scorer`."""
    placement = placement or Placement.configured(scorer)
    engine = await asyncio.to_thread(choose_engine, scorer, model, placement)
    if engine == "vllm":
        from pmpo_ray.engines.vllm.engine import VllmEngine
        from pmpo_ray.engines.vllm.generator import VllmGenerator
        from pmpo_ray.engines.vllm.scorer import VllmScorer

        shared = await VllmEngine.start(scorer, model, placement)
        return VllmScorer(shared, scorer), VllmGenerator(shared)
    from pmpo_ray.engines.threaded import ThreadedGenerator, ThreadedScorer

    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="both")
    pair = await _in(thread, lambda: _create_pair(scorer, model, placement))
    return ThreadedScorer(pair[0], thread), ThreadedGenerator(pair[1], rewriter.batch, thread)


def _create_pair(config: ScorerConfig, model: str, placement: Placement) -> tuple[Scorer, Generator]:
    if config.engine == "simulated":
        from pmpo_ray.engines.simulated.engine import SimulatedGenerator, SimulatedScorer

        return SimulatedScorer(model), SimulatedGenerator(model)
    from pmpo_ray.engines.hf.generator import TransformersGenerator
    from pmpo_ray.engines.hf.loading import load_replica
    from pmpo_ray.engines.hf.scorer import TransformersScorer

    loaded = load_replica(model, config, placement)
    return TransformersScorer(loaded, config), TransformersGenerator(loaded)


async def _in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
