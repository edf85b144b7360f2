"""Custom engines: those that a configuration names as "package.module:name".

Invariants: a synchronous engine is created and used in one thread, an asynchronous one on the event loop; an
object that is no engine is reported when it is created, not at its first request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pmpo_ray.config.engines import ReplicaConfig, RewriterConfig, ScorerConfig
from pmpo_ray.config.import_paths import imported
from pmpo_ray.engines.placement import Placement
from pmpo_ray.engines.threaded import ThreadedGenerator, ThreadedScorer
from pmpo_ray.errors import ConfigError
from pmpo_ray.protocols import AsyncGenerator, AsyncScorer, Generator, Scorer

Config = TypeVar("Config", bound=ReplicaConfig)


async def open_custom_scorer(
    config: ScorerConfig, model: str, placement: Placement, factory: object | None
) -> AsyncScorer:
    """The scorer that `factory`, or else the object that `scorer.engine` names, makes from the configuration
    and the model: a Scorer or an AsyncScorer. Raises ConfigError if it is neither."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
    engine = await _create("scorer.engine", factory, placement.applied(config), model, thread)
    if isinstance(engine, AsyncScorer) and inspect.iscoroutinefunction(engine.score):
        return engine
    if isinstance(engine, Scorer) and not inspect.iscoroutinefunction(engine.score):
        return ThreadedScorer(engine, thread)
    raise _not_an_engine("scorer.engine", config, "pmpo_ray.Scorer")


async def open_custom_generator(
    config: RewriterConfig, model: str, placement: Placement, factory: object | None
) -> AsyncGenerator:
    """The same for a rewriter: a Generator or an AsyncGenerator."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewriter")
    engine = await _create("rewriter.engine", factory, placement.applied(config), model, thread)
    if isinstance(engine, AsyncGenerator) and inspect.iscoroutinefunction(engine.generate):
        return engine
    if isinstance(engine, Generator) and not inspect.iscoroutinefunction(engine.generate):
        return ThreadedGenerator(engine, config.batch, thread)
    raise _not_an_engine("rewriter.engine", config, "pmpo_ray.Generator")


async def _create(
    key: str, factory: object | None, config: Config, model: str, thread: ThreadPoolExecutor
) -> object:
    make = imported(config.engine, key) if factory is None else factory
    if not callable(make):
        raise ConfigError(f"{key}: {config.engine} is neither a class nor a function")
    if inspect.iscoroutinefunction(make):
        return await make(config, model)
    create: Callable[[Config, str], object] = make
    return await asyncio.get_running_loop().run_in_executor(thread, create, config, model)


def _not_an_engine(key: str, config: ReplicaConfig, protocol: str) -> ConfigError:
    return ConfigError(f"{key}: the object that {config.engine} makes lacks a method of {protocol}")
