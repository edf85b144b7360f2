"""Both roles on one vLLM engine, with the real vLLM on the CPU: scores are those of the transformers scorer,
whatever the prefix cache holds; samples follow their seeds and end where the model ends them. The weights are
random; the server's tests do the same with the default model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pandas as pd
import pytest
import pytest_asyncio
import torch

from pmpo_ray.config.engines import ScorerConfig
from pmpo_ray.engines.hf.generator import TransformersGenerator
from pmpo_ray.engines.hf.loading import LoadedModel, load_replica
from pmpo_ray.engines.hf.scorer import TransformersScorer
from pmpo_ray.engines.vllm.engine import VllmEngine
from pmpo_ray.engines.vllm.generator import VllmGenerator
from pmpo_ray.engines.vllm.scorer import VllmScorer
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest
from tests.engines.comparing import TOLERANCE, difference, unit

pytest.importorskip("vllm", reason="vLLM is not installed: make install VLLM=1")
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SETTINGS = ScorerConfig(engine="vllm", role="both", dtype="float32", threads=2)

TASKS = {
    "tickets": 4,
    "bbh/boolean_expressions": 1,
    "bbh/causal_judgement": 1,
    "bbh/date_understanding": 1,
    "bbh/disambiguation_qa": 1,
    "bbh/dyck_languages": 1,
    "bbh/formal_fallacies": 1,
    "bbh/geometric_shapes": 1,
    "bbh/hyperbaton": 1,
    "bbh/logical_deduction_five_objects": 1,
    "bbh/logical_deduction_seven_objects": 1,
    "bbh/logical_deduction_three_objects": 1,
    "bbh/movie_recommendation": 1,
    "bbh/multistep_arithmetic_two": 1,
    "bbh/navigate": 1,
    "bbh/object_counting": 1,
    "bbh/penguins_in_a_table": 1,
    "bbh/reasoning_about_colored_objects": 1,
    "bbh/ruin_names": 1,
    "bbh/salient_translation_error_detection": 1,
    "bbh/snarks": 1,
    "bbh/sports_understanding": 1,
    "bbh/temporal_sequences": 1,
    "bbh/tracking_shuffled_objects_five_objects": 1,
    "bbh/tracking_shuffled_objects_seven_objects": 1,
    "bbh/tracking_shuffled_objects_three_objects": 1,
    "bbh/web_of_lies": 1,
    "bbh/word_sorting": 1,
    "gsm8k": 2,
    "aqua": 2,
    "alpaca_eval": 2,
    "sst2": 3,
    "subj": 3,
    "trec": 2,
}
"""Every workload of the real data, and how many of its examples are scored."""


@pytest.fixture(scope="module")
def model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with a heavy end-of-turn token, so that some answers end themselves."""
    folder = tmp_path_factory.mktemp("ending")
    loaded = load_replica(tiny_model, ScorerConfig(dtype="float32"))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[loaded.tokenizer.eos_token_id] *= 3
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: str) -> AsyncIterator[VllmEngine]:
    started = await VllmEngine.start(SETTINGS, model)
    yield started
    started.close()


@pytest.fixture(scope="module")
def loaded(model: str) -> LoadedModel:
    """The same model under transformers."""
    return load_replica(model, ScorerConfig(dtype="float32"))


@pytest.fixture(scope="module")
def scorer(engine: VllmEngine) -> VllmScorer:
    return VllmScorer(engine, SETTINGS)


@pytest.fixture(scope="module")
def generator(engine: VllmEngine) -> VllmGenerator:
    return VllmGenerator(engine)


@pytest.fixture(scope="module")
def reference(loaded: LoadedModel) -> TransformersScorer:
    return TransformersScorer(loaded, ScorerConfig(dtype="float32"))


# --- scoring ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
async def test_scores_are_those_of_the_transformers_scorer(
    name: str, scorer: VllmScorer, reference: TransformersScorer, data_dir: Path
) -> None:
    request = unit(name, data_dir, TASKS[name])
    found = await scorer.score(request)
    assert difference(found.scores, reference.score(request).scores) < TOLERANCE


async def test_scores_do_not_depend_on_what_the_prefix_cache_holds(
    engine: VllmEngine,
    scorer: VllmScorer,
    generator: VllmGenerator,
    reference: TransformersScorer,
    data_dir: Path,
) -> None:
    request = unit("bbh/logical_deduction_five_objects", data_dir, 3)
    wanted = reference.score(request).scores
    await engine.forget()
    cold = await scorer.score(request)
    apart = sum((1 + len(score.negatives)) * score.context_tokens for score in wanted)
    assert cold.tokens_computed < 0.5 * apart, "the cache was not read"
    warm = await scorer.score(request)
    assert warm.tokens_computed < 0.5 * apart, "what the cache kept from the answers was computed in whole"
    # Other texts with the same beginnings, answers as contexts, and writing, all at once.
    example = request.examples[0]
    others = [
        ScoreRequest(
            request.instruction, (Example("a", example.input, example.negatives[0] + " indeed", ()),)
        ),
        ScoreRequest(request.instruction + " Think.", request.examples),
        ScoreRequest(request.instruction, request.examples[:1], request.examples[1:3]),
    ]
    writing = [GenerateRequest(example.input, n=4, max_tokens=20, seed=10 * i) for i in range(3)]
    (beside, *results), _ = await asyncio.gather(
        asyncio.gather(*(scorer.score(one) for one in (request, *others))),
        asyncio.gather(*(generator.generate(one) for one in writing)),
    )
    poisoned = await scorer.score(request)
    for result in (cold, warm, beside, poisoned):
        assert difference(result.scores, wanted) < TOLERANCE
    for other, result in zip(others, results, strict=True):
        assert difference(result.scores, reference.score(other).scores) < TOLERANCE


async def test_rows_that_come_from_the_cache_are_never_read(
    engine: VllmEngine, scorer: VllmScorer, reference: TransformersScorer, data_dir: Path
) -> None:
    # Long answers with a long beginning in common: the cache then reaches into the answers.
    example = unit("gsm8k", data_dir, 1).examples[0]
    twins = Example("twins", example.input, example.target, (example.target + " Yes.", example.target[:-1]))
    request = ScoreRequest("Solve it.", (twins,))
    wanted = reference.score(request).scores
    await engine.forget()
    for _ in range(3):
        assert difference((await scorer.score(request)).scores, wanted) < TOLERANCE
    # Alone, the rows of its beginning can come from no other answer.
    alone = ScoreRequest("Solve it.", (Example("alone", example.input, example.target + " Yes.", ()),))
    assert difference((await scorer.score(alone)).scores, reference.score(alone).scores) < TOLERANCE


async def test_twenty_candidates_are_ranked_alike(
    scorer: VllmScorer, reference: TransformersScorer, data_dir: Path
) -> None:
    request = unit("tickets", data_dir, 1)
    endings = [
        f"Hint {number}: {'look twice. ' * (number % 5)}think of case {number}." for number in range(20)
    ]
    candidates = [ScoreRequest(f"{request.instruction} {ending}", request.examples) for ending in endings]
    found = await asyncio.gather(*map(scorer.score, candidates))
    mine = [sum(score.target.logprob for score in result.scores) for result in found]
    theirs = [
        sum(score.target.logprob for score in reference.score(candidate).scores) for candidate in candidates
    ]
    # Spearman's correlation is that of the ranks.
    assert pd.Series(mine).rank().corr(pd.Series(theirs).rank()) >= 0.99


async def test_an_example_that_is_too_long_is_named(scorer: VllmScorer) -> None:
    with pytest.raises(EngineError, match=r"example long .* context holds"):
        await scorer.score(ScoreRequest("Count.", (Example("long", "word " * 9000, "one", ()),)))


# --- writing ------------------------------------------------------------------------------------------------


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
    cut, stopped, open_ended = await asyncio.gather(
        generator.generate(GenerateRequest("Tell a long story.", n=8, max_tokens=2)),
        generator.generate(GenerateRequest("Count from one to ten.", n=4, stop=("o",))),
        generator.generate(GenerateRequest("Say hello.", n=16, max_tokens=200)),
    )
    assert any((sample.finished, sample.tokens) == (False, 2) for sample in cut.samples)
    assert all("o" not in sample.text for sample in stopped.samples)
    ended = [sample for sample in open_ended.samples if sample.tokens < 200]
    assert ended
    for sample in ended:
        assert sample.finished
        assert "<|im_end|>" not in sample.text


async def test_system_and_shots_stand_in_the_prompt(generator: VllmGenerator) -> None:
    bare = await generator.generate(GenerateRequest("Hello", max_tokens=1))
    shots = (Example("1", "Good morning", "Good evening"),)
    whole = await generator.generate(GenerateRequest("Hello", max_tokens=1, system="Be polite.", shots=shots))
    assert whole.prompt_tokens > bare.prompt_tokens


async def test_a_prompt_without_room_for_an_answer_is_refused(generator: VllmGenerator) -> None:
    with pytest.raises(EngineError, match="leaves no room for an answer"):
        await generator.generate(GenerateRequest("word " * 9000))
