"""Both roles on one vLLM engine, with the real vLLM on the CPU and the default model: samples follow their
seeds and end where the model ends them; scores are those of the transformers scorer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pmpo_ray.config.engines import DEFAULT_MODEL, ScorerConfig
from pmpo_ray.engines.hf.generator import TransformersGenerator
from pmpo_ray.engines.hf.loading import LoadedModel, load_replica
from pmpo_ray.engines.hf.scorer import TransformersScorer
from pmpo_ray.engines.vllm.engine import VllmEngine
from pmpo_ray.engines.vllm.generator import VllmGenerator
from pmpo_ray.engines.vllm.scorer import VllmScorer
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, GenerateRequest
from tests.engines.comparing import TOLERANCE, difference, unit

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SETTINGS = ScorerConfig(engine="vllm", role="both", dtype="float32", threads=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[VllmEngine]:
    started = await VllmEngine.start(SETTINGS, DEFAULT_MODEL)
    yield started
    started.close()


@pytest.fixture(scope="module")
def generator(engine: VllmEngine) -> VllmGenerator:
    return VllmGenerator(engine)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """The same model under transformers."""
    return load_replica(DEFAULT_MODEL, ScorerConfig(dtype="float32"))


@pytest.mark.parametrize(("name", "count"), [("tickets", 2), ("bbh/causal_judgement", 1), ("gsm8k", 1)])
async def test_scores_are_those_of_the_transformers_scorer(
    name: str, count: int, engine: VllmEngine, loaded: LoadedModel, data_dir: Path
) -> None:
    request = unit(name, data_dir, count)
    scored = await VllmScorer(engine, SETTINGS).score(request)
    expected = TransformersScorer(loaded, ScorerConfig(dtype="float32")).score(request)
    assert difference(scored.scores, expected.scores) < TOLERANCE


async def test_every_sample_follows_its_own_seed(generator: VllmGenerator) -> None:
    request = GenerateRequest("Name a fruit and say why you like it.", n=3, max_tokens=12, seed=5)
    together, alone = await asyncio.gather(
        generator.generate(request),
        generator.generate(GenerateRequest(request.prompt, n=1, max_tokens=12, seed=6)),
    )
    assert len({sample.text for sample in together.samples}) == 3
    assert together.samples[1] == alone.samples[0]
    assert together.tokens == sum(sample.tokens for sample in together.samples)


async def test_greedy_samples_are_those_of_transformers(
    generator: VllmGenerator, loaded: LoadedModel
) -> None:
    request = GenerateRequest("Repeat this word three times: blue", n=2, max_tokens=16, temperature=0.0)
    result = await generator.generate(request)
    expected = TransformersGenerator(loaded).generate([request])[0]
    assert result.samples == expected.samples
    assert result.prompt_tokens == expected.prompt_tokens


async def test_an_answer_says_whether_it_came_to_its_end(generator: VllmGenerator) -> None:
    cut, ended, stopped = await asyncio.gather(
        generator.generate(GenerateRequest("Tell a long story.", max_tokens=5)),
        generator.generate(GenerateRequest("Say hello.", max_tokens=200, temperature=0.0)),
        generator.generate(GenerateRequest("Count from one to ten.", temperature=0.0, stop=("o",))),
    )
    assert not cut.samples[0].finished
    assert cut.samples[0].tokens == 5
    assert ended.samples[0].finished
    assert "<|" not in ended.samples[0].text
    assert stopped.samples[0].finished
    assert "o" not in stopped.samples[0].text


async def test_system_and_shots_stand_in_the_prompt(generator: VllmGenerator) -> None:
    bare = await generator.generate(GenerateRequest("Hello", max_tokens=1))
    shots = (Example("1", "Good morning", "Good evening"),)
    whole = await generator.generate(GenerateRequest("Hello", max_tokens=1, system="Be polite.", shots=shots))
    assert whole.prompt_tokens > bare.prompt_tokens


async def test_a_prompt_without_room_for_an_answer_is_refused(generator: VllmGenerator) -> None:
    with pytest.raises(EngineError, match="leaves no room for an answer"):
        await generator.generate(GenerateRequest("word " * 9000))
