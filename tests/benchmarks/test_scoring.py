"""The scoring benchmark: what it counts, what it asks, and what it writes down."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.scoring.children import Roster, Setting, roster
from benchmarks.scoring.instructions import INSTRUCTIONS, candidates, sentences
from benchmarks.scoring.measuring import REPETITIONS, largest_difference, time_workload
from benchmarks.scoring.precision import candidate_losses, compared, rank_correlation
from benchmarks.scoring.precision import measure as measure_precision
from benchmarks.scoring.results import Report, Row, table
from benchmarks.scoring.work import LeastWork, MatmulRates, ModelShape, least_work, model_shape
from benchmarks.scoring.workloads import NAMES, Workload, encode, workload_texts
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.engines.answer_tree import Item, find_root
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ConfigError

pytestmark = pytest.mark.slow

ROW_KEYS = {
    "workload",
    "contestant",
    "seconds",
    "triples_per_s",
    "tokens_computed",
    "unique_tokens",
    "useful_mfu",
    "max_abs_diff_vs_fp32",
    "peak_rss_mb",
    "runs",
    "device",
    "dtype",
    "threads",
}
# Two layers, one of which sees two tokens; a body of 2 x 3 and twice 3 x 2 weights.
SHAPE = ModelShape(body={(2, 3): 1, (3, 2): 2}, hidden=2, vocabulary=10, attention_width=4, windows=(None, 2))


@pytest.fixture(scope="module")
def children() -> Iterator[Roster]:
    """Processes that hold a model: each takes longer to start than to answer."""
    with roster() as started:
        started.concurrent = True
        yield started


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(load_tokenizer(resolve_model(DEFAULT_MODEL), trust_remote_code=False))


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights and the packaged model's tokenizer, as a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(resolve_model(DEFAULT_MODEL), trust_remote_code=False).save_pretrained(folder)
    return folder


def row(**changes: Any) -> Row:
    whole = Row("small", "pmpo", 2.0, 40.0, 100, 90, 0.5, 0.1, 900.0, 3, "cpu", "bfloat16", 2)
    return replace(whole, **changes)


def test_least_work_of_one_item_counts_no_last_token_of_an_answer() -> None:
    # 1 2 [3 4 | 3 5 | 6]: nodes 1, 2, 3; rows behind 2 and behind 3.
    work = least_work([[Item((1, 2), ((3, 4), (3, 5), (6,)))]], SHAPE)
    assert (work.unique_tokens, work.scored_rows) == (3, 2)
    assert work.body == 2 * (6 + 12) * 3
    assert work.head == 2 * 2 * 10 * 2
    # Full attention sees 1 + 2 + 3 tokens, the window of two 1 + 2 + 2.
    assert work.attention == 4 * 4 * (6 + 5)
    assert work.total == work.body + work.attention + work.head


def test_least_work_shares_prefixes_between_items_and_between_requests() -> None:
    first = Item((1, 2, 3), ((7,), (8,)))
    second = Item((1, 2, 4), ((7,), (8,)))
    together = least_work([[first, second]], SHAPE)
    assert (together.unique_tokens, together.scored_rows) == (4, 2)
    assert least_work([[first], [second]], SHAPE) == together
    assert least_work([[first], [first]], SHAPE) == least_work([[first]], SHAPE)


def test_a_context_that_continues_another_items_answer_shares_its_tokens() -> None:
    # 1 2 3 | 9 holds the path of 1 | 2 3 whole.
    work = least_work([[Item((1,), ((2, 3),)), Item((1, 2, 3), ((9,),))]], SHAPE)
    assert (work.unique_tokens, work.scored_rows) == (3, 3)


def test_the_rate_at_own_shapes_weighs_each_shape_by_its_work() -> None:
    work = LeastWork(unique_tokens=1, scored_rows=1, body=30.0, attention=5.0, head=40.0)
    rates = MatmulRates(body={(2, 3): 10.0, (3, 2): 5.0}, head=20.0, square=99.0)
    # 10 operations at 10 a second, 20 at 5, 40 at 20: 70 operations in 7 seconds.
    assert rates.at_own_shapes(SHAPE, work) == pytest.approx(70 / 7)


@pytest.mark.parametrize(
    ("name", "requests", "items", "triples"),
    [
        ("small", 1, 16, 80),
        ("options", 13, 16, 13 * 80),
        ("options2", 13, 16, 13 * 160),
        ("solutions", 1, 40, 200),
        ("labels", 1, 200, 400),
        ("precision", 50, 50, 5000),
    ],
)
def test_workloads_have_the_stated_sizes(
    data_dir: Path, encoder: PromptEncoder, name: str, requests: int, items: int, triples: int
) -> None:
    workload = encode(name, workload_texts(name, data_dir), encoder)
    assert [len(request) for request in workload.requests] == [items] * requests
    assert workload.triples == triples


def test_a_round_has_thirteen_instructions_on_fifty_examples(data_dir: Path, encoder: PromptEncoder) -> None:
    workload = encode("round", workload_texts("round", data_dir), encoder)
    assert [len(request) for request in workload.requests] == [50] * 13
    answers = {len(item.answers) for item in workload.requests[0]}
    assert min(answers) == 2
    assert max(answers) >= 6


def test_an_instruction_is_shared_by_its_request_and_differs_from_the_others(
    data_dir: Path, encoder: PromptEncoder
) -> None:
    texts = workload_texts("options", data_dir)
    tokenizer = load_tokenizer(resolve_model(DEFAULT_MODEL), trust_remote_code=False)
    prefixes = set()
    for request, text in zip(encode("options", texts, encoder).requests, texts.instructions, strict=True):
        contexts = [item.context for item in request]
        prefixes.add(contexts[0][: find_root(contexts)])
        assert text in tokenizer.decode(list(contexts[0][: find_root(contexts)]))
    assert len(prefixes) == 13


def test_instructions_are_as_long_as_real_ones(encoder: PromptEncoder) -> None:
    empty = len(encoder.context("x", "Is it so?")) - 1
    lengths = [len(encoder.context(text, "Is it so?")) - empty for text in INSTRUCTIONS]
    assert 80 <= lengths[0] <= 92
    assert all(40 <= length <= 130 for length in lengths)


def test_labels_are_single_tokens_of_which_one_forward_pass_reads_both(
    data_dir: Path, encoder: PromptEncoder
) -> None:
    [request] = encode("labels", workload_texts("labels", data_dir), encoder).requests
    assert {len(answer) for item in request for answer in item.answers} == {1}
    assert all(len(set(item.answers)) == 2 for item in request)


def test_the_long_window_workload_exceeds_the_window_and_the_small_one_does_not(
    data_dir: Path, encoder: PromptEncoder
) -> None:
    lengths = {}
    for name in ("window_small", "window_long"):
        [request] = encode(name, workload_texts(name, data_dir), encoder).requests
        lengths[name] = max(len(item.context) for item in request)
    assert lengths["window_small"] < 512 < 1024 < lengths["window_long"]


def test_every_name_is_a_workload_and_any_other_is_refused(data_dir: Path) -> None:
    for name in NAMES:
        assert workload_texts(name, data_dir).examples
    with pytest.raises(ConfigError, match=r"'smal'.*choose one of small"):
        workload_texts("smal", data_dir)


def test_candidates_are_the_instructions_and_then_those_without_one_sentence() -> None:
    texts = candidates(50)
    assert len(texts) == len(set(texts)) == 50
    assert texts[:13] == INSTRUCTIONS
    first = sentences(INSTRUCTIONS[0])
    assert texts[13] == " ".join(first[1:])
    assert texts[14] == " ".join((first[0], *first[2:]))
    assert candidates(6) == texts[:6]


def test_a_rank_correlation_sees_order_alone() -> None:
    values = [0.3, 1.0, 7.0, 2.0]
    assert rank_correlation(values, [math.exp(value) for value in values]) == pytest.approx(1.0)
    assert rank_correlation(values, [-value for value in values]) == pytest.approx(-1.0)
    # Ranks 1 2 3 4 against 2 1 3 4: 1 - 6 * 2 / (4 * 15).
    assert rank_correlation([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(0.8)


def test_equal_values_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 over the root of 4.5 * 5.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(math.sqrt(0.9))
    assert rank_correlation([1, 2, 2, 3], [10, 20, 20, 30]) == pytest.approx(1.0)
    assert math.isnan(rank_correlation([1, 1], [1, 2]))


def test_a_candidates_loss_is_the_mean_preference_loss_of_its_items() -> None:
    items = (Item((1,), ((2,), (3, 4))), Item((1,), ((2,), (3,), (5,))))
    workload = Workload("precision", "model", (items, items))
    # log sigmoid of 0, of log 3, and of 0 and log 3 in one item.
    gap = math.log(3)
    even, better = math.log(2), math.log(4 / 3)
    losses = candidate_losses(workload, [-1, -1, -1, -1, -1, -1, -1 - gap, -1, -1, -1 - gap])
    assert losses == pytest.approx([even, (better + (even + better) / 2) / 2])


def test_precision_compares_mean_errors_and_rankings() -> None:
    request = (Item((1,), ((2,), (3,))),)
    workload = Workload("precision", "model", (request,) * 3)
    fp32 = [-1.0, -2.0, -1.0, -3.0, -1.0, -4.0]
    packed = [-1.1, -2.0, -1.1, -3.0, -1.1, -4.0]
    swapped = [-1.0, -3.2, -1.0, -3.0, -1.0, -4.0]
    found = compared(workload, fp32=fp32, pmpo=packed, one_by_one=swapped)
    assert found.pmpo_error_nats == pytest.approx(0.05)
    assert found.one_by_one_error_nats == pytest.approx(0.2)
    assert found.error_ratio == pytest.approx(0.25)
    assert found.rank_pmpo_fp32 == pytest.approx(1.0)
    assert found.rank_one_by_one_fp32 == found.rank_pmpo_one_by_one == pytest.approx(0.5)
    assert set(found.facts()) >= {"precision_error_ratio", "precision_rank_pmpo_one_by_one"}
    assert "ratio of the errors 0.250 (target: 1.2 at most)" in found.table()


def test_precision_is_measured_with_bf16_and_fp32_processes(tiny_model: Path, children: Roster) -> None:
    request = tuple(Item((5, 6, number), ((7, 8), (9,))) for number in range(11, 14))
    workload = Workload("precision", str(tiny_model), (request, request[:2]))
    found = measure_precision(children, "cpu", workload)
    assert 0 < found.pmpo_error_nats < 0.1
    assert 0 < found.one_by_one_error_nats < 0.1


def test_a_models_shape_comes_from_its_folder_or_its_configuration(tiny_model: Path) -> None:
    shape = model_shape(tiny_model)
    assert shape == model_shape(LlamaConfig.from_pretrained(tiny_model))
    # Queries and outputs, keys and values, two products up and one down, in two layers.
    assert shape.body == {(32, 32): 4, (32, 16): 4, (32, 64): 4, (64, 32): 2}
    assert (shape.hidden, shape.vocabulary, shape.windows) == (32, 49152, (None, None))


def test_a_cut_keeps_the_first_requests_and_items() -> None:
    items = tuple(Item((number,), ((1,), (2,))) for number in range(3))
    cut = Workload("small", "model", (items, items)).cut(requests=1, items=2)
    assert cut.requests == (items[:2],)
    assert cut.triples == 4


def test_the_result_file_has_the_machine_and_rows_of_exactly_the_stated_keys(tmp_path: Path) -> None:
    report = Report(tmp_path / "scoring.json", {"cpu": "one"})
    report.add([row(), row(contestant="lm_eval", seconds=4.0, tokens_computed=None)])
    content = json.loads(report.path.read_text(encoding="utf-8")) if report.path else {}
    assert content["machine"] == {"cpu": "one"}
    assert [set(entry) for entry in content["rows"]] == [ROW_KEYS, ROW_KEYS]
    assert content["rows"][1]["tokens_computed"] is None
    report.add([row(workload="labels")])
    rows = json.loads((tmp_path / "scoring.json").read_text(encoding="utf-8"))["rows"]
    assert [entry["workload"] for entry in rows] == ["small", "small", "labels"]
    assert [file.name for file in tmp_path.iterdir()] == ["scoring.json"]


def test_the_table_compares_with_the_first_row_and_marks_what_ran_once() -> None:
    shown = table([row(), row(contestant="vllm", seconds=5.0, runs=1)], [[1.0, 2.0, 3.0], [5.0]])
    ours, theirs = shown.splitlines()[2:]
    assert "2.000 [1.000..3.000]" in ours
    assert "1.00" in ours
    assert "5.000 [5.000..5.000, runs=1]" in theirs
    assert "2.50" in theirs


def test_a_contestant_in_its_own_process_is_timed_and_agrees_with_one_triple_at_a_time(
    tiny_model: Path, children: Roster
) -> None:
    items = tuple(Item((5, 6, number), ((7, 8), (9,), (7, 10))) for number in range(11, 15))
    workload = Workload("small", str(tiny_model), (items,))
    setting = Setting(str(tiny_model), "cpu", "float32")
    timed = time_workload(children, ["pmpo"], setting, workload)
    expected = children.child("one_by_one", setting).rate(workload.requests).ratings
    assert timed.lost == ()
    [record] = timed.records
    assert len(record.times) == REPETITIONS
    assert largest_difference(record.logprobs, expected.logprobs) < 1e-4
    assert expected.tokens_computed == 4 * (4 + 3 + 4)
    assert record.tokens_computed is not None
    assert record.tokens_computed < expected.tokens_computed


def test_the_command_measures_the_named_contestants_on_the_named_workloads(
    data_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.json"
    choice = ["--quick", "--workload", "labels", "--contestant", "pmpo", "--data-dir", str(data_dir)]
    command = [sys.executable, "-m", "benchmarks.scoring", *choice, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(file.read_text())["rows"]
    assert (row["workload"], row["contestant"]) == ("labels", "pmpo")
