"""The transformers generator: sampling with seeds of its own, and decoding that equals the stock path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pmpo_ray.config.engines import DEFAULT_MODEL, RewriterConfig
from pmpo_ray.engines.hf.generator import TransformersGenerator
from pmpo_ray.engines.hf.loading import LoadedModel
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, GenerateRequest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def generator() -> TransformersGenerator:
    return TransformersGenerator.load(DEFAULT_MODEL, RewriterConfig(dtype="float32"))


def test_greedy_answers_equal_the_stock_generate(generator: TransformersGenerator) -> None:
    resolved = resolve_model(DEFAULT_MODEL, progress=False)
    tokenizer = load_tokenizer(resolved, trust_remote_code=False)
    stock = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32).eval()
    prompts = ["What is the capital of France?", "Name three colours, please, and nothing else."]
    requests = [GenerateRequest(prompt, max_tokens=20, temperature=0.0) for prompt in prompts]
    for prompt, result in zip(prompts, generator.generate(requests), strict=True):
        ids = torch.tensor([PromptEncoder(tokenizer).request("", (), prompt)])
        out = stock.generate(ids, max_new_tokens=20, do_sample=False)[0, ids.shape[1] :]
        assert result.samples[0].text == tokenizer.decode(out, skip_special_tokens=True)
        assert result.prompt_tokens == ids.shape[1]


def test_samples_depend_on_their_seed_alone(generator: TransformersGenerator) -> None:
    first = GenerateRequest("Write a short line about rain.", n=3, max_tokens=12, top_p=0.9, seed=5)
    other = GenerateRequest("Write a long story about the sea.", n=2, max_tokens=12, seed=77)
    alone = generator.generate([first])[0]
    joined = generator.generate([other, first])[1]
    assert alone.samples == joined.samples
    shifted = generator.generate([GenerateRequest(first.prompt, n=2, max_tokens=12, top_p=0.9, seed=6)])[0]
    assert shifted.samples == alone.samples[1:]
    assert len({sample.text for sample in alone.samples}) > 1


def test_an_answer_says_whether_it_came_to_its_end(generator: TransformersGenerator) -> None:
    short, whole, stopped = (
        result.samples[0]
        for result in generator.generate(
            [
                GenerateRequest("Count from one to fifty.", max_tokens=3, temperature=0.0),
                GenerateRequest("What is the capital of France?", max_tokens=60, temperature=0.0),
                GenerateRequest("Count from 1 to 10.", max_tokens=60, temperature=0.0, stop=("3",)),
            ]
        )
    )
    assert (short.finished, short.tokens) == (False, 3)
    assert whole.finished
    assert whole.tokens < 60
    assert stopped.finished
    assert "2" in stopped.text
    assert "3" not in stopped.text


def test_shots_stand_before_the_prompt(generator: TransformersGenerator) -> None:
    shots = tuple(Example(str(i), f"{i} + {i}", f"#{2 * i}#") for i in range(1, 5))
    request = GenerateRequest("5 + 5", shots=shots, max_tokens=8, temperature=0.0)
    assert generator.generate([request])[0].samples[0].text.startswith("#")


def test_nucleus_sampling_draws_only_from_the_nucleus() -> None:
    from pmpo_ray.engines.hf.generator import _draw, _Sample

    probabilities = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    counts = [0, 0, 0, 0]
    for seed in range(400):
        request = GenerateRequest("", top_p=0.7, seed=seed)
        sample = _Sample(request, 0, 1, torch.Generator().manual_seed(seed))
        counts[_draw(probabilities.log(), [sample])[0]] += 1
    # 0.5 does not reach 0.7, so the second token belongs to the nucleus and the third does not.
    assert counts[2] == counts[3] == 0
    assert counts[0] / 400 == pytest.approx(0.5 / 0.8, abs=0.08)


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    tokenizer = load_tokenizer(resolve_model(DEFAULT_MODEL, progress=False), trust_remote_code=False)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        max_position_embeddings=64,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    tiny = TransformersGenerator(LoadedModel(model, tokenizer, ResolvedModel("tiny", Path(), "x")))
    with pytest.raises(EngineError, match="leaves no room"):
        tiny.generate([GenerateRequest("word " * 100)])
    assert tiny.generate([GenerateRequest("Hi", max_tokens=500)])[0].samples[0].tokens < 64
