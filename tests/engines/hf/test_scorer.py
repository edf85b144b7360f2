"""The transformers scorer: every score equals plain one-by-one scoring, however the work is packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from pmpo_ray.config.engines import DEFAULT_MODEL, ScorerConfig
from pmpo_ray.engines.hf.loading import LoadedModel
from pmpo_ray.engines.hf.scorer import TransformersScorer
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import EngineError
from pmpo_ray.types import Example, ExampleScore, ScoreRequest

pytestmark = pytest.mark.slow

# The promise: nats a token, in fp32.
TOLERANCE = 2e-5


@pytest.fixture(scope="session")
def smollm() -> ResolvedModel:
    return resolve_model(DEFAULT_MODEL, progress=False)


@pytest.fixture(scope="session")
def tokenizer(smollm: ResolvedModel) -> PreTrainedTokenizerBase:
    return load_tokenizer(smollm, trust_remote_code=False)


@pytest.fixture(scope="session")
def scorer(smollm: ResolvedModel) -> TransformersScorer:
    return TransformersScorer.load(str(smollm.path), ScorerConfig(dtype="float32"))


def plain_scores(
    model: PreTrainedModel, encoder: PromptEncoder, request: ScoreRequest
) -> list[list[tuple[float, int]]]:
    """Every answer alone, whole sequence, no cache: (log p, tokens) for target and negatives."""
    model.set_attn_implementation("eager")
    rows = []
    for item in encoder.items(request.instruction, request.shots, request.examples):
        context = item.context
        row = []
        for answer in item.answers:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([context + answer]), use_cache=False).logits[0]
            logprobs = logits[len(context) - 1 : -1].double().log_softmax(dim=-1)
            row.append((float(logprobs[range(len(answer)), list(answer)].sum()), len(answer)))
        rows.append(row)
    return rows


def assert_equal_scores(found: Sequence[ExampleScore], expected: list[list[tuple[float, int]]]) -> None:
    for score, row in zip(found, expected, strict=True):
        answers = (score.target, *score.negatives)
        assert [answer.tokens for answer in answers] == [tokens for _, tokens in row]
        for answer, (logprob, tokens) in zip(answers, row, strict=True):
            assert answer.logprob == pytest.approx(logprob, abs=TOLERANCE * tokens)


def bbh_examples(data_dir: Path, name: str, count: int) -> tuple[Example, ...]:
    rows = json.loads((data_dir / "bbh" / f"{name}.json").read_text(encoding="utf-8"))["examples"][:count]
    examples = []
    for index, row in enumerate(rows):
        letters = [f"({letter})" for letter in "ABCDE" if f"({letter})" in row["input"]]
        wrong = tuple(letter for letter in letters if letter != row["target"])
        examples.append(Example(str(index), row["input"], row["target"], wrong))
    return tuple(examples)


def test_real_model_on_real_data_equals_one_by_one_scoring(
    scorer: TransformersScorer, tokenizer: PreTrainedTokenizerBase, data_dir: Path
) -> None:
    examples = bbh_examples(data_dir, "logical_deduction_three_objects", 2)
    request = ScoreRequest("Read the puzzle. Answer with the letter of the right option.", examples)
    found = scorer.score(request)
    expected = plain_scores(scorer._engine.model, PromptEncoder(tokenizer), request)
    assert_equal_scores(found.scores, expected)
    whole = sum(score.context_tokens * (1 + len(score.negatives)) for score in found.scores)
    assert found.tokens_computed < whole / 3


def test_shots_weights_and_long_answers_equal_one_by_one_scoring(
    scorer: TransformersScorer, tokenizer: PreTrainedTokenizerBase, data_dir: Path
) -> None:
    lines = (data_dir / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    rows = [json.loads(line) for line in lines]
    examples = tuple(
        Example(str(i), row["question"], row["answer"], (row["answer"].replace("1", "2"), "No idea."))
        for i, row in enumerate(rows)
    )
    request = ScoreRequest("Solve it.", examples[:1], shots=(Example("s", "1 + 1?", "2"), examples[1]))
    found = scorer.score(request)
    assert_equal_scores(found.scores, plain_scores(scorer._engine.model, PromptEncoder(tokenizer), request))


def test_scores_do_not_depend_on_order_budget_chunks_or_what_ran_before(
    smollm: ResolvedModel, scorer: TransformersScorer, data_dir: Path
) -> None:
    examples = bbh_examples(data_dir, "snarks", 3)
    instruction = "Say which statement is sarcastic."
    whole = scorer.score(ScoreRequest(instruction, examples)).scores
    scorer.score(ScoreRequest("Say which statement is not meant seriously.", examples[:2]))
    backwards = scorer.score(ScoreRequest(instruction, examples[::-1])).scores[::-1]
    alone = [scorer.score(ScoreRequest(instruction, (example,))).scores[0] for example in examples]
    small = TransformersScorer.load(str(smollm.path), ScorerConfig(dtype="float32", working_memory_gb=0.05))
    packed = small.score(ScoreRequest(instruction, examples)).scores
    for other in (backwards, alone, packed):
        for first, second in zip(whole, other, strict=True):
            for a, b in zip(
                (first.target, *first.negatives), (second.target, *second.negatives), strict=True
            ):
                assert a.logprob == pytest.approx(b.logprob, abs=2 * TOLERANCE * a.tokens)
            assert first.tokens == second.tokens


def test_a_changed_ending_reuses_the_computed_beginning(scorer: TransformersScorer) -> None:
    examples = (Example("1", "2 + 2", "4", ("5",)),)
    long = "Work carefully and check every single step of the calculation before you answer. " * 4
    first = scorer.score(ScoreRequest(long + "Give a number.", examples))
    second = scorer.score(ScoreRequest(long + "Give the result.", examples))
    assert second.tokens_computed < first.tokens_computed / 2


TINY_MODEL = ResolvedModel("tiny", Path(), "x")
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
TINY_KEYS = {**TINY, "num_key_value_heads": 2, "max_position_embeddings": 512}


@pytest.mark.parametrize("layout", ["system", "user", "plain"])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(vocab_size=49152, **TINY_KEYS),
        Qwen2Config(
            vocab_size=49152, use_sliding_window=True, sliding_window=9, max_window_layers=2, **TINY_KEYS
        ),
        MistralConfig(vocab_size=49152, sliding_window=12, **TINY_KEYS),
        Gemma3TextConfig(vocab_size=49152, sliding_window=10, head_dim=8, **TINY_KEYS),
    ],
    ids=["llama", "qwen2-window", "mistral-window", "gemma3-window"],
)
def test_architectures_with_and_without_windows(
    config: LlamaConfig, layout: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    settings_ = ScorerConfig.model_validate({"dtype": "float32", "layout": layout})
    scorer = TransformersScorer(LoadedModel(model, tokenizer, TINY_MODEL), settings_)
    assert scorer.info().fallback == ""
    examples = tuple(
        Example(str(n), f"How many apples are {n} apples and a pear?", f"{n} apples", (f"{n} pears", "none"))
        for n in range(4)
    )
    request = ScoreRequest("Count the apples, not the pears. Ignore every other fruit.", examples)
    found = scorer.score(request)
    expected = plain_scores(model, PromptEncoder(tokenizer, settings_.layout), request)
    assert_equal_scores(found.scores, expected)


def test_a_model_without_tree_attention_is_scored_one_by_one_and_says_so(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=49152, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    scorer = TransformersScorer(LoadedModel(model, tokenizer, TINY_MODEL), ScorerConfig())
    assert scorer.info().fallback
    request = ScoreRequest("Add.", (Example("1", "1 + 1", "2", ("3", "22")),))
    found = scorer.score(request)
    assert_equal_scores(found.scores, plain_scores(model, PromptEncoder(tokenizer), request))


def test_an_example_longer_than_the_context_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=49152, **TINY_KEYS)).eval()
    scorer = TransformersScorer(LoadedModel(model, tokenizer, TINY_MODEL), ScorerConfig())
    long = Example("row-7", "word " * 600, "yes", ("no",))
    with pytest.raises(EngineError, match=r"example row-7 .* context holds 512"):
        scorer.score(ScoreRequest("Answer.", (long,)))


def test_an_example_that_needs_more_memory_than_it_may_have_is_named(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=49152, **TINY_KEYS)).eval()
    config = ScorerConfig(dtype="float32", working_memory_gb=0.0225)
    scorer = TransformersScorer(LoadedModel(model, tokenizer, TINY_MODEL), config)
    examples = (Example("small", "1 + 1", "2", ("3",)), Example("row-8", "word " * 480, "yes", ("no",)))
    with pytest.raises(EngineError, match=r"example row-8 .* tokens behind \d+ take .*working_memory_gb"):
        scorer.score(ScoreRequest("Answer.", examples))
    assert scorer.score(ScoreRequest("Answer.", examples[:1])).scores[0].target.logprob < 0
