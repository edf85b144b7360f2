"""The large model's benchmark: what a whole optimisation scores, and what is counted of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.large_model import KERNELS, SHAPES, main, measured, optimisation, random_model
from benchmarks.scoring.instructions import INSTRUCTIONS
from benchmarks.scoring.work import model_shape

pytestmark = pytest.mark.slow


def test_every_round_has_thirteen_instructions_and_five_masked_variants_and_no_text_comes_twice() -> None:
    rounds = optimisation(20)
    assert {len(texts) for texts in rounds} == {13 + 5}
    assert len({text for texts in rounds for text in texts}) == 20 * 18
    assert rounds[0][:13] == INSTRUCTIONS
    for parent, *_ in rounds:
        assert parent.count(". ") == 4


def test_masked_variants_are_the_parent_without_a_part() -> None:
    for texts in optimisation(3):
        parent, masked = texts[0], texts[13:]
        assert all(len(text) < len(parent) for text in masked)
        assert all(parent.startswith(text[:20]) for text in masked[1:])
        assert all(parent.endswith(text[-20:]) for text in masked[:-1])


def test_rounds_do_not_depend_on_how_many_there_are() -> None:
    assert optimisation(3) == optimisation(5)[:3]


def test_the_paper_sized_shape_has_fourteen_billion_parameters() -> None:
    shape = model_shape(SHAPES["qwen2.5-14b"]())
    # Qwen2.5-14B has 14.8 billion parameters, 13.1 of them below the vocabulary and besides its embeddings.
    assert shape.body_weights == 48 * 5120 * (2 * 5120 + 2 * 1024 + 3 * 13824)
    assert 14.7e9 < shape.body_weights + 2 * shape.hidden * shape.vocabulary < 14.8e9
    assert shape.windows == (None,) * 48


def test_random_weights_are_bf16_and_repeatable() -> None:
    first, again = (random_model(SHAPES["tiny"](), "cpu") for _ in range(2))
    assert first.dtype == torch.bfloat16
    weight = first.get_input_embeddings().weight
    assert torch.equal(weight, again.get_input_embeddings().weight)
    assert float(weight.float().std()) == pytest.approx(0.02, rel=0.05)


def test_a_tiny_model_runs_a_whole_optimisation(data_dir: Path) -> None:
    outcome = measured("tiny", 2, "cpu", data_dir, examples=2)
    assert (outcome.calls, len(outcome.rounds)) == (2 * 18, 2)
    assert outcome.triples == 2 * 18 * 2 * 7  # seven objects, seven options
    assert outcome.seconds == pytest.approx(sum(each.seconds for each in outcome.rounds))
    assert outcome.unique_tokens == sum(each.unique_tokens for each in outcome.rounds)
    assert outcome.gflop == pytest.approx(sum(each.gflop for each in outcome.rounds))
    assert outcome.tokens_computed == sum(each.tokens_computed for each in outcome.rounds)
    assert outcome.tokens_computed >= outcome.unique_tokens
    assert outcome.useful_mfu == pytest.approx(outcome.gflop / outcome.seconds / outcome.matmul_gflops)
    assert outcome.fallback == ""
    assert list(outcome.first_round_seconds) == list(KERNELS["cpu"])
    assert "2 rounds: 36 scoring calls, 504 triples" in outcome.summary()


def test_the_command_refuses_what_it_cannot_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--shape", "tiny", "--rounds", "0"])
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--shape", "tiny", "--rounds", "1", "--data-dir", str(tmp_path)])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmarks.large_model: ")
    assert json.dumps(str(tmp_path))[1:-1] in line
