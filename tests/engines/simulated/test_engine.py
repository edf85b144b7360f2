"""The engine without a model."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

import pytest

from pmpo_ray.config.engines import RewriterConfig, ScorerConfig
from pmpo_ray.engines.factory import create_generator, create_scorer
from pmpo_ray.engines.simulated.engine import (
    FALLBACK_INSTRUCTION,
    SimulatedGenerator,
    SimulatedScorer,
    instruction_quality,
)
from pmpo_ray.errors import EngineError, ModelError
from pmpo_ray.search.masking import mask_prompt, parse_masked
from pmpo_ray.types import Example, GenerateRequest, ScoreRequest

EXAMPLES = tuple(
    Example(f"e{number}", f"Which of {number} things is it?", "(A)", ("(B)", "(C) or so"))
    for number in range(40)
)
PLAIN = "Let's think step by step."
BETTER = "Read each question carefully and compare the options step by step. Give only the answer."


def margin(instruction: str) -> float:
    scores = SimulatedScorer("m").score(ScoreRequest(instruction, EXAMPLES)).scores
    return sum(score.target.logprob - max(wrong.logprob for wrong in score.negatives) for score in scores)


def test_the_factory_makes_it() -> None:
    scorer = create_scorer(ScorerConfig(engine="simulated"), "m")
    generator = create_generator(RewriterConfig(engine="simulated"), "m")
    assert scorer.info() == generator.info()
    assert scorer.info().engine == "simulated"


def test_scores_depend_on_model_instruction_and_example_alone() -> None:
    whole = SimulatedScorer("m").score(ScoreRequest(PLAIN, EXAMPLES)).scores
    parts = [SimulatedScorer("m").score(ScoreRequest(PLAIN, (example,))).scores[0] for example in EXAMPLES]
    assert list(whole) == parts
    assert whole != SimulatedScorer("n").score(ScoreRequest(PLAIN, EXAMPLES)).scores
    assert whole != SimulatedScorer("m").score(ScoreRequest(BETTER, EXAMPLES)).scores


def test_scores_have_the_shape_of_real_ones() -> None:
    result = SimulatedScorer("m").score(ScoreRequest(PLAIN, EXAMPLES, shots=EXAMPLES[:2]))
    for example, score in zip(EXAMPLES, result.scores, strict=True):
        assert len(score.negatives) == len(example.negatives)
        assert all(answer.logprob < 0 and answer.tokens > 0 for answer in (score.target, *score.negatives))
    bare = SimulatedScorer("m").score(ScoreRequest(PLAIN, EXAMPLES))
    assert result.scores[0].context_tokens > bare.scores[0].context_tokens
    assert bare.tokens_computed < sum(score.tokens for score in bare.scores)


def test_a_better_instruction_has_a_better_score() -> None:
    assert instruction_quality(BETTER) > instruction_quality(PLAIN)
    assert margin(BETTER) > margin(PLAIN)


def test_needless_length_makes_an_instruction_worse() -> None:
    assert instruction_quality(BETTER + " Thank you very much." * 5) < instruction_quality(BETTER)


def test_an_input_beyond_the_context_is_the_requests_fault() -> None:
    huge = Example("huge", "a " * 800_000, "b")
    with pytest.raises(EngineError, match=r"example 'huge' has .* tokens"):
        SimulatedScorer("m").score(ScoreRequest(PLAIN, (huge,)))
    with pytest.raises(EngineError, match="no room"):
        SimulatedGenerator("m").generate([GenerateRequest(huge.input)])


def test_a_sample_depends_on_its_prompt_and_its_own_seed_alone() -> None:
    prompt = f"Instruction: {PLAIN}\n\nImprove it."
    generator = SimulatedGenerator("m")
    other = GenerateRequest("something else", n=3, seed=9)
    joined = generator.generate([GenerateRequest(prompt, n=8, seed=5), other])[0].samples
    single = [generator.generate([GenerateRequest(prompt, seed=5 + at)])[0].samples[0] for at in range(8)]
    assert list(joined) == single


def test_greedy_samples_are_all_the_same() -> None:
    [result] = SimulatedGenerator("m").generate([GenerateRequest("Rewrite it.", n=5, temperature=0)])
    assert len(set(result.samples)) == 1


def test_rewrites_are_good_repeated_empty_or_cut_off() -> None:
    request = GenerateRequest(f"Instruction: {PLAIN}\n\nImprove it.", n=200)
    [result] = SimulatedGenerator("m").generate([request])
    texts = [re.fullmatch(r".*<prompt>(.*)</prompt>", sample.text) for sample in result.samples]
    found = [match[1] if match else None for match in texts]
    assert {"", None, PLAIN} < set(found)
    better = {text for text in found if text and instruction_quality(text) > instruction_quality(PLAIN)}
    assert len(better) >= 3
    for text, sample in zip(found, result.samples, strict=True):
        assert sample.finished == (text is not None)


def test_a_prompt_without_an_instruction_gets_one_of_its_own() -> None:
    [result] = SimulatedGenerator("m").generate([GenerateRequest("Hello?", n=50)])
    assert any(FALLBACK_INSTRUCTION in sample.text for sample in result.samples)


@pytest.mark.parametrize(
    "instruction", [PLAIN, BETTER, "1. Read it.\n2. Check it!\n\nThen answer", "A. B. C. D. E. F. G."]
)
def test_segmentations_can_be_read(instruction: str) -> None:
    prompt = mask_prompt(instruction, 5)
    [result] = SimulatedGenerator("m").generate([GenerateRequest(prompt, temperature=0)])
    segments = parse_masked(result.samples[0].text, instruction, 5)
    assert segments
    assert all(instruction[part.start : part.end] == part.text for part in segments)


def test_stop_strings_and_the_token_limit_end_a_reply() -> None:
    request = GenerateRequest(f"Instruction: {BETTER}\n\nImprove it.", n=20, stop=("</prompt>",))
    [stopped] = SimulatedGenerator("m").generate([request])
    assert all("</prompt>" not in sample.text for sample in stopped.samples)
    [short] = SimulatedGenerator("m").generate([GenerateRequest(request.prompt, n=20, max_tokens=4)])
    assert all(sample.tokens <= 4 for sample in short.samples)
    assert any(not sample.finished for sample in short.samples)


def test_the_name_sets_the_pace() -> None:
    result = SimulatedScorer("simulated:tokens_per_s=100000").score(ScoreRequest(PLAIN, EXAMPLES))
    assert result.seconds == pytest.approx(result.tokens_computed / 100_000)
    assert SimulatedScorer("m").score(ScoreRequest(PLAIN, EXAMPLES)).seconds == 0


def test_jitter_and_stragglers_belong_to_a_request() -> None:
    engine = SimulatedScorer("simulated:tokens_per_s=1000,jitter=0.3,stragglers=0.1")
    requests = [ScoreRequest(f"Instruction {number}.", EXAMPLES) for number in range(300)]
    results = [engine.answer(request) for request in requests]
    shares = [result.seconds / (result.tokens_computed / 1000) for result in results]
    assert median(shares) == pytest.approx(1.0, abs=0.1)
    assert 10 <= sum(share > 2.5 for share in shares) <= 60
    assert [engine.answer(request).seconds for request in requests] == [r.seconds for r in results]


def test_an_ordered_fault_happens_once(tmp_path: Path) -> None:
    name = f"simulated:faults={tmp_path}"
    for kind in ("start", "error"):
        (tmp_path / f"{kind}-1").touch()
    with pytest.raises(RuntimeError, match="start was ordered"):
        SimulatedScorer(name)
    scorer, generator = SimulatedScorer(name), SimulatedGenerator(name)
    with pytest.raises(RuntimeError, match="call was ordered"):
        generator.generate([GenerateRequest("Hello?")])
    assert generator.generate([GenerateRequest("Hello?")])
    assert scorer.score(ScoreRequest(PLAIN, EXAMPLES)).scores
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "tokens_per_s",
        "tokens_per_s=fast",
        "tokens_per_s=0",
        "speed=3",
        "jitter=9",
        "stragglers=2",
        "faults=",
    ],
)
def test_an_unknown_setting_in_the_name_is_refused(setting: str) -> None:
    for engine in (SimulatedScorer, SimulatedGenerator):
        with pytest.raises(ModelError, match="tokens_per_s=NUMBER"):
            engine("simulated:" + setting)
