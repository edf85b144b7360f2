"""The likelihood engine: every sum equals plain one-by-one scoring, whatever is shared, packed or cached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    DeepseekV3Config,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from pmpo_ray.engines.answer_tree import Item
from pmpo_ray.engines.hf.likelihood import LikelihoodEngine
from pmpo_ray.engines.hf.memory import TooLargeError
from pmpo_ray.engines.hf.tree_attention import Kernel

pytestmark = pytest.mark.slow

VOCABULARY = 300
TOLERANCE = 2e-5  # nats a token, in fp32
TINY = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
LLAMA = LlamaConfig(**TINY)
WIDE = LlamaConfig(**(TINY | {"intermediate_size": 8192}))
WINDOW = Gemma3TextConfig(sliding_window=10, head_dim=8, **TINY)
ROUTED = Qwen3MoeConfig(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, **TINY)
LATENT = DeepseekV3Config(
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=12,
    moe_intermediate_size=32,
    **(TINY | {"num_key_value_heads": 4}),
)
OLD = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=4)
SCALED_LOGITS = CohereConfig(**TINY)
SOFT_CAP = Gemma2Config(head_dim=8, **TINY)
WIDE_SOFT_CAP = Gemma2Config(head_dim=8, **(TINY | {"intermediate_size": 65536, "num_hidden_layers": 1}))
LINEAR = Qwen3NextConfig(
    head_dim=8,
    linear_num_value_heads=4,
    linear_num_key_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
    **TINY,
)
HYBRID = FalconH1Config(
    mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1, **TINY
)
RECURRENT = MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)


def tiny_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # The usual small weights predict all tokens alike, and would hide a wrong mask.
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model


@cache
def kept_engine(kernel: Kernel) -> LikelihoodEngine:
    return LikelihoodEngine(tiny_model(LLAMA), kernel=kernel)


def tokens(seed: int, count: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist())


def some_items(instruction: int = 30, question: int = 20, count: int = 6) -> list[Item]:
    """Questions of different lengths in two groups that begin alike, answers that share beginnings."""
    root = tokens(0, instruction)
    starts = [tokens(1, 40), tokens(2, 25)]
    items = []
    for number in range(count):
        answer = tokens(200 + number, 6)
        answers = (answer, answer[:3], (*answer[:2], 7, 8), (9,))
        context = root + starts[number % 2] + tokens(100 + number, question + 3 * number)
        items.append(Item(context, answers))
    return items


def one_by_one(model: PreTrainedModel, items: Sequence[Item]) -> list[list[float]]:
    """Every answer alone, whole sequence, no cache, the model's eager attention, fp64 log-softmax."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    rows = []
    for item in items:
        row = []
        for answer in item.answers:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([item.context + answer]), use_cache=False).logits[0]
            logprobs = logits[len(item.context) - 1 : -1].double().log_softmax(dim=-1)
            row.append(float(logprobs[range(len(answer)), list(answer)].sum()))
        rows.append(row)
    model.set_attn_implementation(before)
    return rows


def assert_equal(
    found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]], items: Sequence[Item]
) -> None:
    for sums, others, item in zip(found, expected, items, strict=True):
        for value, other, answer in zip(sums, others, item.answers, strict=True):
            assert value == pytest.approx(other, abs=TOLERANCE * len(answer))


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
@pytest.mark.parametrize(
    "config",
    [LLAMA, WINDOW, ROUTED, LATENT, OLD, SCALED_LOGITS],
    ids=["llama", "window", "experts", "latent", "gpt2", "scaled-logits"],
)
def test_trees_equal_one_by_one_scoring(config: PreTrainedConfig, kernel: Kernel) -> None:
    model = tiny_model(config)
    engine = LikelihoodEngine(model, kernel=kernel)
    assert engine.fallback == ""
    items = some_items()
    assert_equal(engine.score(items).logprobs, one_by_one(model, items), items)


token_lists = st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple)
drawn_items = st.lists(
    st.builds(Item, token_lists, st.lists(token_lists, min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=7,
)


@settings(max_examples=30, deadline=None)
@given(drawn_items, st.sampled_from(["matmul", "sdpa"]))
def test_any_trie_equals_one_by_one_scoring(items: list[Item], kernel: Kernel) -> None:
    engine = kept_engine(kernel)
    assert_equal(engine.score(items).logprobs, one_by_one(engine.model, items), items)


def test_what_is_shared_is_computed_once() -> None:
    engine = LikelihoodEngine(tiny_model(LLAMA))
    items = some_items()
    # The instruction, one start for each group, each question's own end, and each answer's nodes below it.
    answers = sum(
        len({answer[:n] for answer in item.answers for n in range(1, len(answer))}) for item in items
    )
    unique = 30 + 40 + 25 + sum(20 + 3 * number for number in range(6)) + answers
    assert engine.score(items).tokens_computed == unique
    assert engine.score(items).tokens_computed == unique - 30
    engine.forget()
    assert engine.score(items).tokens_computed == unique


def test_scores_do_not_depend_on_order_memory_or_neighbours() -> None:
    model = tiny_model(WINDOW)
    items = some_items()
    whole = LikelihoodEngine(model).score(items).logprobs
    small = LikelihoodEngine(model, working_memory=22_000_000)
    assert_equal(small.score(items).logprobs, whole, items)
    assert_equal(small.score(items[::-1]).logprobs[::-1], whole, items)
    alone = [small.score([item]).logprobs[0] for item in items]
    assert_equal(alone, whole, items)


def test_long_rows_are_attended_to_in_blocks() -> None:
    model = tiny_model(LLAMA)
    engine = LikelihoodEngine(model)
    items = [Item(tokens(5, 2200), (tokens(6, 3), tokens(7, 40))), Item(tokens(8, 700), (tokens(9, 2),))]
    assert_equal(engine.score(items).logprobs, one_by_one(model, items), items)


@pytest.mark.parametrize(
    ("config", "way"),
    [
        (SOFT_CAP, "expanded cache"),
        (LINEAR, "expanded cache"),
        (HYBRID, ""),
        (RECURRENT, "one sequence at a time"),
    ],
    ids=["soft-cap", "linear-attention", "hybrid", "recurrent"],
)
def test_other_models_are_scored_in_a_slower_way_that_has_a_name(config: PreTrainedConfig, way: str) -> None:
    model = tiny_model(config)
    engine = LikelihoodEngine(model)
    assert engine.fallback
    assert way in engine.fallback
    items = some_items(instruction=12, question=5, count=3)
    expected = one_by_one(model, items)
    assert_equal(engine.score(items).logprobs, expected, items)
    assert_equal(engine.score(items[::-1]).logprobs[::-1], expected, items)


def test_an_item_that_cannot_fit_is_named_and_harms_no_other() -> None:
    engine = LikelihoodEngine(tiny_model(LLAMA), working_memory=24_000_000)
    items = some_items()
    large = Item(items[0].context[:30] + tokens(77, 3000), ((1, 2),))
    with pytest.raises(TooLargeError, match=r"3001 tokens behind 30 take .*working_memory_gb") as caught:
        engine.score([*items, large])
    assert caught.value.owner == len(items)
    assert_equal(engine.score(items).logprobs, one_by_one(engine.model, items), items)


SHORT_OF_MEMORY = """
import resource, sys, torch
sys.path.insert(0, {root!r})
from tests.engines.hf.test_likelihood import many_items, some_items, wide_engine
torch.set_num_threads(1)
engine = wide_engine()
engine.score(some_items()[:1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
passes = []
inner = engine._sums
def counted(packed):
    passes.append(len(packed))
    return inner(packed)
engine._sums = counted
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
found = engine.score(many_items())
print(len(passes), *(value for sums in found.logprobs for value in sums))
"""


def wide_engine() -> LikelihoodEngine:
    """An engine that takes all items into one pass if memory suffices."""
    return LikelihoodEngine(tiny_model(WIDE), working_memory=10**12)


def many_items() -> list[Item]:
    return some_items(question=300, count=20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory")
def test_a_pass_that_runs_out_of_memory_is_halved(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = SHORT_OF_MEMORY.format(root=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    passes, *found = done.stdout.split()
    engine = wide_engine()
    whole: list[int] = []
    monkeypatch.setattr(engine, "_sums", lambda packed, inner=engine._sums: whole.append(1) or inner(packed))
    expected = [value for sums in engine.score(many_items()).logprobs for value in sums]
    assert int(passes) > len(whole)
    assert [float(value) for value in found] == pytest.approx(expected, abs=1e-4)


SLOW_AND_SHORT_OF_MEMORY = """
import resource, sys, torch
sys.path.insert(0, {root!r})
from tests.engines.hf.test_likelihood import WIDE_SOFT_CAP, some_items, tiny_model
from pmpo_ray.engines.hf.likelihood import LikelihoodEngine
from pmpo_ray.errors import EngineError
torch.set_num_threads(1)
engine = LikelihoodEngine(tiny_model(WIDE_SOFT_CAP))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), -1))
try:
    engine.score(some_items(question=2000, count=1))
except EngineError as error:
    print(error)
print(len(engine.score(some_items(question=5, count=1)).logprobs[0]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory")
def test_memory_that_runs_out_in_a_slower_way_is_one_clear_line(request: pytest.FixtureRequest) -> None:
    script = SLOW_AND_SHORT_OF_MEMORY.format(root=str(request.config.rootpath))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    line, answers = done.stdout.splitlines()
    assert line.startswith("memory ran out over sequences of up to 20")
    assert int(answers) == len(some_items()[0].answers)
