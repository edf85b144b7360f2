"""The run folder keeps what is written to it, complete, and reports damage on one line."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from pmpo_ray.errors import RunFolderError
from pmpo_ray.outcomes import AnswerBias, ByLabel, Interval, LabelAccuracy, Shot, TaskResult
from pmpo_ray.store import (
    ClusterInfo,
    Manifest,
    RunStore,
    data_hash,
    hold,
    installed_versions,
    task_folder,
    write_document,
)
from pmpo_ray.store.documents import (
    SUMMARY_SCHEMA,
    decode_result,
    decode_summary,
    encode_result,
    encode_summary,
)
from pmpo_ray.store.rounds import (
    METADATA_KEY,
    decode_requests,
    decode_round,
    decode_segments,
    encode_requests,
    encode_round,
    encode_segments,
)
from pmpo_ray.store.scores import decode_scores, encode_scores, pack, unpack
from pmpo_ray.store.tables import from_parquet, to_parquet
from pmpo_ray.store.task_data import decode_task, encode_task
from pmpo_ray.store.train_examples import decode_training, encode_training
from pmpo_ray.types import (
    AnswerScore,
    Candidate,
    EngineInfo,
    Example,
    ExampleScore,
    Operator,
    Refusal,
    RoundRecord,
    ScoredCandidate,
    Segment,
    SegmentImportance,
    Task,
    WritingRequest,
)

CONFIG = "seed: 0\n"
TASK = "bbh/navigate"


def scored(name: str, round_: int, loss: float, parent: str | None = None) -> ScoredCandidate:
    scores = (
        ExampleScore(AnswerScore(-loss, 3), (AnswerScore(-2.5, 4), AnswerScore(-0.1, 1)), 17),
        ExampleScore(AnswerScore(-0.1 - loss, 2), (), 21),
    )
    operator: Operator = "seed" if parent is None else "rewrite"
    hard_case = None if parent is None else "e2"
    candidate = Candidate(name, f"Do it like {name}.", parent, "c0", operator, round_, (), hard_case)
    return ScoredCandidate(candidate, scores, (loss, loss + 0.1), loss + 0.05)


def rounds_of(task: str) -> tuple[RoundRecord, ...]:
    """A seed, a round that finds a better prompt, and one that drops a survivor and loses two texts."""
    seed, better, worse = scored("c0", 0, 1.5), scored("c1", 1, 1.25, "c0"), scored("c2", 1, 1.75, "c0")
    third = scored("c3", 2, 1.125, "c1")
    segment = SegmentImportance("c1", 0, Segment(0, 5, "Do it"), -0.25)
    refusals = (
        Refusal("c4", "", "c1", "c0", "rewrite", "no <prompt> in the reply"),
        Refusal("c5", "x" * 9000, "c1", "c0", "rewrite", "longer than the context", "failed", (), "e\n1"),
    )
    return (
        RoundRecord(task, 0, (seed,), ("c0",), tokens_scored=43, seconds=0.5),
        RoundRecord(task, 1, (seed, better, worse), ("c1", "c0"), (), (), 129, 77, 1.25),
        RoundRecord(task, 2, (better, seed, third), ("c3", "c1"), refusals, (segment,), 86, 50, 0.1 + 0.2),
    )


def result_of(task: str) -> TaskResult:
    before, after = Interval(0.5, 0.25, 0.75, 8), Interval(1 / 3, 0.1, 0.9, 9)
    return TaskResult(task, 2, "rounds", "Start.", "Best.", 1.5, 1.125, before, after, 258, 127, 0.3)


def is_one_line(error: pytest.ExceptionInfo[RunFolderError]) -> bool:
    return len(str(error.value).splitlines()) == 1


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(str(tmp_path / "run"), CONFIG)


def folder_of(store: RunStore) -> Path:
    return Path(store.location)


def files_of(store: RunStore) -> set[str]:
    base = folder_of(store)
    return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}


# What is written is read back exactly.

any_text = st.text(st.characters(exclude_categories=()))
any_float = st.floats(allow_nan=True, allow_infinity=True)
answers = st.builds(AnswerScore, any_float, st.integers(0, 2**31 - 1))
example_scores = st.builds(
    ExampleScore, answers, st.lists(answers, max_size=3).map(tuple), st.integers(0, 2**31 - 1)
)


@st.composite
def records(draw: st.DrawFn) -> RoundRecord:
    ids = draw(st.lists(any_text, min_size=1, max_size=4, unique=True))
    operators = st.sampled_from(["seed", "rewrite", "mask_drop", "Shorten"])
    shots = st.lists(any_text, max_size=2).map(tuple)
    number = draw(st.integers(0, 10_000))
    read = draw(st.booleans())
    candidates = tuple(
        draw(
            st.builds(
                ScoredCandidate,
                st.builds(
                    Candidate,
                    st.just(name),
                    any_text,
                    st.none() | any_text,
                    any_text,
                    operators,
                    st.integers(0, number),
                    shots,
                    st.none() | any_text,
                    st.none() | any_text,
                ),
                st.lists(example_scores, max_size=3).map(tuple),
                st.lists(any_float, max_size=3).map(tuple),
                any_float,
                st.integers(0, 2**31 - 1),
                **(dict.fromkeys(("surprisal", "penalty"), any_float) if read else {}),
            )
        )
        for name in ids
    )
    refusals = st.builds(
        Refusal,
        any_text,
        any_text,
        any_text,
        any_text,
        operators,
        any_text,
        st.sampled_from(["refused", "failed"]),
        shots,
        st.none() | any_text,
        st.none() | any_text,
    )
    places = st.integers(0, 2**31 - 1)
    names = st.lists(any_text, max_size=5).map(tuple)
    requests = st.builds(
        WritingRequest, any_text, operators, any_text, st.none() | any_text, names, places, places, any_text
    )
    segments = st.builds(
        SegmentImportance, any_text, places, st.builds(Segment, places, places, any_text), any_float
    )
    return RoundRecord(
        task=draw(any_text),
        round=number,
        candidates=candidates,
        survivors=tuple(draw(st.permutations(ids)))[: draw(st.integers(1, len(ids)))],
        refusals=tuple(draw(st.lists(refusals, max_size=2))),
        segments=tuple(draw(st.lists(segments, max_size=2))),
        tokens_scored=draw(st.integers(0, 2**60)),
        tokens_prompted=draw(st.integers(0, 2**60)),
        tokens_generated=draw(st.integers(0, 2**60)),
        seconds=draw(st.floats(0, 1e9)),
        requests=tuple(draw(st.lists(requests, max_size=2))),
    )


@pytest.mark.slow
@given(records())
@settings(deadline=None, max_examples=200)
def test_a_round_survives_its_file_exactly(record: RoundRecord) -> None:
    segments = decode_segments(encode_segments(record.segments))
    read = decode_round(encode_round(record), segments)
    read = replace(read, requests=decode_requests(encode_requests(record.requests)))
    # repr tells -0.0 from 0.0 and lets a nan equal a nan; float repr is exact.
    assert repr(read) == repr(record)


def test_a_round_of_an_earlier_version_has_no_demonstrations_and_requests() -> None:
    record = replace(rounds_of(TASK)[2], segments=())
    table = pq.read_table(pa.BufferReader(encode_round(record)))
    assert decode_round(to_parquet(table.drop_columns(["shots", "request", "left"])), ()) == record


def test_a_round_has_columns_of_readings_only_if_texts_were_read() -> None:
    record = replace(rounds_of(TASK)[2], segments=())
    read = replace(
        record, candidates=tuple(replace(one, surprisal=2.5, penalty=0.25) for one in record.candidates)
    )
    plain, full = (pq.read_table(pa.BufferReader(encode_round(one))) for one in (record, read))
    assert set(full.column_names) - set(plain.column_names) == {"surprisal", "penalty"}
    assert full["surprisal"].to_pylist() == [2.5] * len(record.candidates) + [None] * len(record.refusals)
    assert decode_round(encode_round(read), (), ()).candidates[0].value == record.candidates[0].loss + 0.25


def asked(record: RoundRecord) -> RoundRecord:
    """The round with a request, which one of its texts answers."""
    request = WritingRequest("002.01", "rewrite", "c0", "e2", ("e2",), 1, 4, "Say \ud83d better.\x1a")
    last = record.candidates[-1]
    answer = replace(last, candidate=replace(last.candidate, request=request.id))
    return replace(record, candidates=(*record.candidates[:-1], answer), requests=(request,))


def test_a_round_is_kept_with_its_requests_and_continued_without_them(store: RunStore) -> None:
    seed, first, second = rounds_of(TASK)
    for record in (seed, first, asked(second)):
        store.write_round(record)
    again = RunStore.open(store.location)
    assert again.read_rounds(TASK) == (seed, first, asked(second))
    assert again.continue_rounds(TASK) == (seed, first, replace(asked(second), requests=()))
    assert again.last_round(TASK) == again.continue_rounds(TASK)[-1]
    names = {name.rpartition("/")[2] for name in files_of(store) if "requests" in name}
    assert names == {"requests-0002.parquet"}


@pytest.mark.parametrize("content", [b"", b"PAR1", encode_segments(())])
def test_damaged_requests_are_left_out_with_one_warning(
    store: RunStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for record in (*rounds_of(TASK)[:2], asked(rounds_of(TASK)[2])):
        store.write_round(record)
    (folder_of(store) / "tasks/bbh__navigate/requests-0002.parquet").write_bytes(content)
    for _ in range(2):
        assert store.read_rounds(TASK)[2] == replace(asked(rounds_of(TASK)[2]), requests=())
        assert len(store.continue_rounds(TASK)) == 3
    [message] = [record.getMessage() for record in caplog.records]
    assert "requests-0002.parquet' is damaged" in message
    assert message.endswith("the meta-prompts of its round are not shown")


def test_requests_of_a_round_that_was_not_finished_do_not_enter_the_next_try(store: RunStore) -> None:
    leftover = folder_of(store) / "tasks/bbh__navigate/requests-0000.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(encode_requests(asked(rounds_of(TASK)[2]).requests))
    store.write_round(rounds_of(TASK)[0])
    assert store.read_rounds(TASK) == rounds_of(TASK)[:1]


def test_rounds_are_read_in_order_and_task_by_task(store: RunStore) -> None:
    other = "bbh/word_sorting"
    for record in (*rounds_of(TASK), rounds_of(other)[0]):
        store.write_round(record)
    again = RunStore.open(store.location)
    assert again.read_rounds(TASK) == rounds_of(TASK)
    assert again.read_rounds(other) == rounds_of(other)[:1]
    assert again.read_rounds("bbh/never_started") == ()
    assert again.config_yaml() == CONFIG


@pytest.mark.slow
@given(any_text.filter(lambda text: not any(0xDC00 <= ord(char) < 0xE000 for char in text)), any_float)
@example("cut emoji \ud83d, \x1aD83D, \\ud83d", float("inf"))
@settings(deadline=None)
def test_task_results_survive_json_and_parquet_exactly(
    tmp_path_factory: pytest.TempPathFactory, text: str, loss: float
) -> None:
    store = RunStore.create(str(tmp_path_factory.mktemp("run") / "run"), CONFIG)
    shots, biases = (Shot(text, "yes"), Shot("in", text)), (AnswerBias(text, loss), AnswerBias("yes", -1.5))
    result = replace(result_of(text), best=text, loss_after=loss, shots=shots, biases=biases)
    plain = replace(result, accuracy_before=None, accuracy_after=None)
    store.write_task_result(text, result)
    store.write_summary([result, plain])
    assert repr(store.read_task_result(text)) == repr(result)
    assert repr(store.read_summary()) == repr((result, plain))


def with_labels(task: str) -> TaskResult:
    rare = LabelAccuracy("a \x1a\ud83d rare one", Interval(0.5, 0.1, 0.9, 2, "bootstrap"))
    labels = ByLabel(
        (LabelAccuracy("frequent", Interval(0.9, 0.8, 0.95, 98)), rare),
        Interval(0.7, 0.4, 0.9, 100, "Wilson by label"),
    )
    return replace(result_of(task), labels_before=labels, labels_after=labels, p_value=0.5)


def test_accuracies_by_label_survive_json_and_parquet(store: RunStore) -> None:
    results = (with_labels("a"), result_of("b"))
    store.write_task_result("a", results[0])
    store.write_summary(results)
    assert store.read_task_result("a") == results[0]
    assert store.read_summary() == results


def test_results_of_an_earlier_version_have_no_accuracies_by_label(store: RunStore) -> None:
    """Their intervals, all Wilson's, did not name a method."""
    document = json.loads(encode_result(with_labels("a")))
    for key in ("labels_before", "labels_after"):
        del document[key]
    for key in ("accuracy_before", "accuracy_after"):
        del document[key]["method"]
    earlier = replace(with_labels("a"), labels_before=None, labels_after=None)
    assert decode_result(json.dumps(document).encode(), "a") == earlier
    table = from_parquet(encode_summary([earlier]), SUMMARY_SCHEMA)
    added = ["labels_before", "labels_after", "shots", "prompt_before", "prompt_after", "tokens_prompted"]
    added += ["biases"]
    assert decode_summary(to_parquet(table.drop_columns(added))) == (earlier,)
    with pytest.raises(ValueError, match="not those of this version"):
        decode_summary(to_parquet(table.drop_columns(["p_value"])))


def test_json_stays_json_for_other_readers_when_a_loss_is_infinite(store: RunStore) -> None:
    store.write_task_result(TASK, replace(result_of(TASK), loss_after=float("-inf"), best="a\ud83d b"))

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    content = (folder_of(store) / "tasks/bbh__navigate/result.json").read_text(encoding="utf-8")
    assert json.loads(content, parse_constant=refuse)["loss_after"] == "-inf"


def test_a_task_without_result_and_a_run_without_manifest_read_as_none(store: RunStore) -> None:
    assert store.read_task_result(TASK) is None
    assert store.read_manifest() is None


def test_the_manifest_survives(store: RunStore) -> None:
    engine = EngineInfo("transformers", "org/model", "abc", 135_000_000, 2048, "user", "float32", "cpu")
    manifest = Manifest(
        versions=installed_versions(),
        scorer=engine,
        rewriter=None,
        data={TASK: data_hash([Example("1", "in", "out")])},
        seed=7,
        cluster=ClusterInfo("local", 1, 2.0, 0.0),
        started="2026-01-01T00:00:00+00:00",
    )
    store.write_manifest(manifest)
    assert store.read_manifest() == manifest
    finished = replace(manifest, ended="2026-01-01T01:00:00+00:00", tokens_scored=5, seconds=0.1)
    store.write_manifest(finished)
    assert RunStore.open(store.location).read_manifest() == finished


def test_versions_name_python_and_what_is_installed() -> None:
    versions = installed_versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"pyarrow", "ray", "torch", "transformers"} <= versions.keys()


def test_the_data_hash_depends_on_every_field_and_on_the_order() -> None:
    first = Example("1", "in", "out", ("no",), 1.0)
    second = Example("2", "in", "out")
    variants = [
        [first, second],
        [second, first],
        [first],
        [],
        [replace(first, id="3"), second],
        [replace(first, input="in\ud800"), second],
        [replace(first, target="o"), second],
        [replace(first, negatives=("n", "o")), second],
        [replace(first, weight=0.5), second],
        [replace(first, also_right=("too",)), second],
    ]
    hashes = [data_hash(examples) for examples in variants]
    assert len(set(hashes)) == len(variants)
    assert data_hash([replace(first), replace(second)]) == hashes[0]


def test_the_best_prompt_stands_with_its_way_back_to_the_seed(store: RunStore) -> None:
    store.write_best(TASK, rounds_of(TASK)[:1])
    store.write_best(TASK, rounds_of(TASK))
    best = json.loads((folder_of(store) / "tasks/bbh__navigate/best.json").read_text(encoding="utf-8"))
    assert (best["task"], best["round"]) == (TASK, 2)
    assert (best["instruction"], best["loss"]) == ("Do it like c3.", 1.175)
    assert best["start"] == {"instruction": "Do it like c0.", "loss": 1.55}
    assert [(step["id"], step["operator"], step["round"]) for step in best["lineage"]] == [
        ("c0", "seed", 0),
        ("c1", "rewrite", 1),
        ("c3", "rewrite", 2),
    ]


# Other programs read it.


def test_pandas_reads_rounds_segments_and_summary(store: RunStore) -> None:
    for record in rounds_of(TASK):
        store.write_round(record)
    store.write_summary([result_of(TASK)])
    tasks = folder_of(store) / "tasks/bbh__navigate"
    frame = pd.read_parquet(tasks / "round-0002.parquet")
    assert list(frame["status"]) == ["survivor", "dropped", "survivor", "refused", "failed"]
    assert list(frame["rank"].fillna(-1)) == [1, -1, 0, -1, -1]
    assert list(frame["losses"][2]) == [1.125, 1.225]
    assert [list(negatives) for negatives in frame["negative_logprobs"][2]] == [[-2.5, -0.1], []]
    header = json.loads(pq.read_schema(tasks / "round-0002.parquet").metadata[METADATA_KEY])
    assert (header["task"], header["round"], header["tokens_scored"]) == (TASK, 2, 86)
    assert list(pd.read_parquet(tasks / "segments-0002.parquet")["text"]) == ["Do it"]
    summary = pd.read_parquet(folder_of(store) / "summary.parquet")
    assert summary["accuracy_after_low"][0] == 0.1


# Rounds are append-only.


def test_a_round_is_never_written_twice(store: RunStore) -> None:
    record = rounds_of(TASK)[0]
    store.write_round(record)
    with pytest.raises(RunFolderError, match=r"round-0000\.parquet' exists") as error:
        store.write_round(replace(record, tokens_scored=0))
    assert is_one_line(error)
    assert store.read_rounds(TASK) == (record,)


def test_a_run_is_never_started_over_another(store: RunStore) -> None:
    with pytest.raises(RunFolderError, match="already contains a run") as error:
        RunStore.create(store.location, "seed: 1\n")
    assert is_one_line(error)
    assert store.config_yaml() == CONFIG


def test_segments_of_a_round_that_was_not_finished_do_not_enter_the_next_try(store: RunStore) -> None:
    with_segments = rounds_of(TASK)[2]
    seed_round = rounds_of(TASK)[0]
    leftover = folder_of(store) / "tasks/bbh__navigate/segments-0000.parquet"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(encode_segments(with_segments.segments))
    assert store.read_rounds(TASK) == ()
    store.write_round(seed_round)
    assert store.read_rounds(TASK) == (seed_round,)


# What is wrong is said in one line that names the file.


@pytest.mark.parametrize("missing", ["round-0001.parquet", "segments-0001.parquet"])
def test_a_gap_is_named(store: RunStore, missing: str) -> None:
    for record in rounds_of(TASK):
        store.write_round(record)
    (folder_of(store) / "tasks/bbh__navigate" / missing).unlink()
    with pytest.raises(RunFolderError, match=rf"{missing}' is missing") as error:
        store.continue_rounds(TASK)
    assert is_one_line(error)


@pytest.mark.parametrize("name", ["round-0001.parquet", "segments-0001.parquet"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_named(store: RunStore, name: str, kept: float) -> None:
    for record in rounds_of(TASK):
        store.write_round(record)
    path = folder_of(store) / "tasks/bbh__navigate" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(RunFolderError, match=rf"{name}' is damaged") as error:
        store.continue_rounds(TASK)
    assert is_one_line(error)


@pytest.mark.parametrize("name", ["round-0002.parquet", "segments-0002.parquet"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_damaged_last_round_is_set_aside_and_written_again(
    store: RunStore, name: str, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    expected = rounds_of(TASK)
    for record in expected:
        store.write_round(record)
    folder = folder_of(store) / "tasks/bbh__navigate"
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(kept * len(content))])
    assert store.continue_rounds(TASK) == expected[:2]
    assert caplog.text.count("is damaged") == 1
    assert "round-0002.parquet.damaged, and round 2 of task bbh/navigate is repeated" in caplog.text
    assert store.count_rounds(TASK) == 2
    store.write_round(expected[2])
    assert store.continue_rounds(TASK) == expected


def test_readers_leave_a_damaged_last_round_where_it_is(
    store: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    for record in rounds_of(TASK):
        store.write_round(record)
    (folder_of(store) / "tasks/bbh__navigate/round-0002.parquet").write_bytes(b"PAR1")
    before = files_of(store)
    assert store.read_rounds(TASK) == rounds_of(TASK)[:2]
    assert "round 2 of task bbh/navigate is left out" in caplog.text
    assert files_of(store) == before


def test_damaged_segments_cost_readers_only_the_segments(store: RunStore) -> None:
    for record in rounds_of(TASK):
        store.write_round(record)
    (folder_of(store) / "tasks/bbh__navigate/segments-0002.parquet").write_bytes(b"")
    assert store.read_rounds(TASK)[2] == replace(rounds_of(TASK)[2], segments=())


def test_a_flipped_bit_in_the_data_is_found(store: RunStore) -> None:
    record = rounds_of(TASK)[2]
    content = encode_round(record)
    metadata = pq.ParquetFile(pa.BufferReader(content)).metadata
    column = next(
        metadata.row_group(0).column(index)
        for index in range(metadata.num_columns)
        if metadata.row_group(0).column(index).path_in_schema == "loss"
    )
    end = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size
    damaged = bytearray(content)
    damaged[end - 1] ^= 1
    with pytest.raises((OSError, ValueError)):
        decode_round(bytes(damaged), ())


def test_a_file_of_another_task_round_or_program_is_refused(store: RunStore) -> None:
    for record in rounds_of(TASK)[:2]:
        store.write_round(record)
    folder = folder_of(store) / "tasks/bbh__navigate"
    for content in (
        encode_round(rounds_of("other")[0]),
        encode_round(rounds_of(TASK)[1]),
        encode_segments(()),
    ):
        (folder / "round-0000.parquet").write_bytes(content)
        with pytest.raises(RunFolderError, match=r"round-0000\.parquet' is damaged or of another") as error:
            store.read_rounds(TASK)
        assert is_one_line(error)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"task": "a"}', b"\xff", b"null", b"3", b"[" * 10**6]
)
def test_a_damaged_document_is_left_out_with_one_warning(
    store: RunStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.write_task_result(TASK, result_of(TASK))
    (folder_of(store) / "tasks/bbh__navigate/result.json").write_bytes(content)
    (folder_of(store) / "manifest.json").write_bytes(content)
    (folder_of(store) / "summary.parquet").write_bytes(content)
    for _ in range(2):
        assert store.read_task_result(TASK) is None
        assert store.read_manifest() is None
        assert store.read_summary() == ()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for name, message in zip(("result.json", "summary.parquet", "manifest.json"), messages, strict=True):
        assert f"{name}' is damaged" in message
        assert len(message.splitlines()) == 1


def test_a_folder_that_is_no_run_folder_is_not_opened(tmp_path: Path) -> None:
    assert not RunStore.exists(str(tmp_path))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for location in (tmp_path, tmp_path / "absent", tmp_path / "file", tmp_path / "two\nlines"):
        assert not RunStore.exists(str(location))
        with pytest.raises(RunFolderError, match="is not a run folder") as error:
            RunStore.open(str(location))
        assert is_one_line(error)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(
        RunFolderError, match=r"cannot create the run folder '.*/file/run': '.*/file' is a file; choose"
    ) as error:
        RunStore.create(str(tmp_path / "file" / "run"), CONFIG)
    assert is_one_line(error)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("a\ud800", "not valid Unicode"),
        ("http://host/run", "http:// addresses are not supported"),
        ("s3://KEY:S3CRET@bucket/run", "credentials"),
        ("s3://KEY:S3/CRET@bucket/run", "credentials"),
        ("s3://KEY@bucket/run", "credentials"),
        ("s3://bucket/run#1?region=us-east-1", "%23"),
        ("s3://bucket/my run?region=us-east-1", "%XX"),
        ("s3://bucket/run?region=us-east-1&colour=blue", "colour"),
        ("s3://?region=us-east-1", "no folder in the address"),
        ("file://host/run", "check the address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(location: str, said: str) -> None:
    with pytest.raises(RunFolderError, match=said) as error:
        RunStore.create(location, CONFIG)
    assert is_one_line(error)
    assert not any(part in str(error.value) for part in ("KEY", "S3CRET", "CRET@"))


def test_only_new_plain_names_name_other_documents(store: RunStore) -> None:
    store.write_file("report.html", b"<p>1")
    store.write_file("report.html", b"<p>2")
    assert (folder_of(store) / "report.html").read_bytes() == b"<p>2"
    for name in ("../report.html", "a/b", "", ".hidden", "config.yaml", "summary.parquet"):
        with pytest.raises(ValueError, match="cannot name"):
            store.write_file(name, b"")


# Places.


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "hé 漢字 🎈",
        "50%",
        "%2e%2e",
        "a#b",
        "a?b=c",
        "q'\"",
        "back\\slash",
        "new\nline",
        "c:d",
        "*[x]",
        "~",
    ],
)
def test_local_paths_with_odd_characters_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    store = RunStore.create(str(tmp_path / name / "run"), CONFIG)
    for record in rounds_of(TASK):
        store.write_round(record)
    assert (tmp_path / name / "run" / "config.yaml").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert RunStore.open(str(tmp_path / name / "run")).read_rounds(TASK) == rounds_of(TASK)


def test_relative_paths_and_file_uris_name_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore.create("a run", CONFIG)
    assert store.location == str(tmp_path / "a run")
    monkeypatch.chdir("/")
    assert store.config_yaml() == CONFIG
    assert RunStore.open((tmp_path / "a run").as_uri()).config_yaml() == CONFIG


# Task names.


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("bbh/navigate", "bbh__navigate"),
        ("gsm8k", "gsm8k"),
        ("my-task_2.1", "my-task_2.1"),
        ("a/b/c", "a__b__c"),
    ],
)
def test_ordinary_task_names_stay_readable(name: str, folder: str) -> None:
    assert task_folder(name) == folder


HOSTILE = [
    "../x", "a/../../b", "..", ".", "/", "/etc", "", "con", "CON", "con.txt", "con.txt/x", "nul", "%2e",
    "%2e%2e/x", "x" * 500, "x" * 499, "é", "e\u0301", "a\0b", "a\nb", "A", "a", "a__b", "a/b", "a_/b",
    "a/_b", "a//b", "a/", "a.", "a ", ".tmp-1-h", "\ud800", "a\\b", "~", "bbh", "BBH", task_folder("../x"),
    task_folder("A"), task_folder("a__b"),
]  # fmt: skip


def assert_distinct_and_inside(names: set[str]) -> None:
    folders = {task_folder(name) for name in names}
    # casefold: some file systems do not tell "A" from "a".
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert folder.isascii()
        assert 0 < len(folder) <= 120
        assert folder[0].isalnum()
        assert folder[-1].isalnum()
        assert all(char.isalnum() or char in "._~-" for char in folder)
        assert folder.split(".")[0].lower() not in {"con", "prn", "aux", "nul"}


def test_hostile_task_names_get_folders_of_their_own_inside() -> None:
    assert_distinct_and_inside(set(HOSTILE))


@given(st.sets(any_text | st.text("aAb_/.-~", max_size=6), max_size=20))
def test_distinct_task_names_get_distinct_folders(names: set[str]) -> None:
    assert_distinct_and_inside(names)


def test_hostile_task_names_stay_in_the_run_folder(tmp_path: Path) -> None:
    store = RunStore.create(str(tmp_path / "run"), CONFIG)
    for name in HOSTILE:
        store.write_round(rounds_of(name)[0])
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "tasks"}
    for name in HOSTILE:
        assert store.read_rounds(name) == rounds_of(name)[:1]


# Whole or not at all.

WRITER = """
import sys
from collections.abc import Callable
from dataclasses import replace
from pmpo_ray.store import RunStore
from tests.store.test_run_store import LARGE, TASK, large_round
store = RunStore.open(sys.argv[1])
number = len(store.read_rounds(TASK))
print("ready", flush=True)
while True:
    store.write_round(large_round(number))
    store.write_file("report.html", bytes([number % 256]) * LARGE)
    number += 1
"""
LARGE = 20_000_000


def large_round(number: int) -> RoundRecord:
    """A round whose file has more than 100 kB."""
    draw = random.Random(number)
    losses = tuple(draw.random() for _ in range(20_000))
    return RoundRecord(TASK, number, (replace(scored("c0", 0, 1.5), losses=losses),), ("c0",))


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_writers_leave_only_whole_files(store: RunStore) -> None:
    draw = random.Random(0)
    report = folder_of(store) / "report.html"
    for _ in range(10):
        writer = run_python(WRITER, store.location)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.05, 0.2))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        found = store.read_rounds(TASK)
        assert found == tuple(large_round(number) for number in range(len(found)))
        if report.exists():
            content = report.read_bytes()
            assert content == content[:1] * LARGE
    assert found
    assert report.exists()
    RunStore.open(store.location)
    assert not [name for name in files_of(store) if ".tmp-" in name]


FULL_DISK = """
import resource, sys
from pmpo_ray.errors import RunFolderError
from pmpo_ray.store import RunStore
from tests.store.test_run_store import large_round
store = RunStore.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.write_round(large_round(0))
except RunFolderError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_is_named_and_leaves_nothing_of_the_file(store: RunStore) -> None:
    output, errors = run_python(FULL_DISK, store.location).communicate(timeout=120)
    assert errors == ""
    assert len(output.splitlines()) == 1
    assert "round-0000.parquet" in output
    assert "free some space" in output
    assert files_of(store) == {"config.yaml", "tasks/bbh__navigate/segments-0000.parquet"}


def test_leftovers_of_killed_writers_are_ignored_then_removed(store: RunStore) -> None:
    store.write_round(rounds_of(TASK)[0])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    tasks = folder_of(store) / "tasks/bbh__navigate"
    host, digits = socket.gethostname(), "0" * 16
    store.write_scores(packed_scores(0, 1))
    folders = (tasks, folder_of(store), folder_of(store) / "scores")
    dead = [folder / f".tmp-{ended.pid}-{host}-{digits}" for folder in folders]
    kept = [
        tasks / f".tmp-{os.getpid()}-{host}-{digits}",
        tasks / f".tmp-{ended.pid}-not-{host}-{digits}",
        tasks / ".tmp-notes",
    ]
    for path in (*dead, *kept):
        path.write_bytes(b"PAR1 half a file")
    assert store.read_rounds(TASK) == rounds_of(TASK)[:1]
    RunStore.open(store.location)
    assert [path.exists() for path in (*dead, *kept)] == [False, False, False, True, True, True]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_run_folder_and_all_in_it_are_its_owners_alone(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        with hold(str(tmp_path / "runs" / "x")) as lease:
            store = RunStore.create(str(tmp_path / "runs" / "x"), "seed: 1\n", lease)
            for record in rounds_of(TASK):
                store.write_round(record)
            store.write_file("report.html", b"")
            write_document(store.location, folder_of(store) / "exports" / "deep" / "x.json", b"")
        write_document(store.location, tmp_path / "public" / "x.json", b"")
    finally:
        os.umask(mask)
    modes = {path: mode(path) for path in (folder_of(store), *folder_of(store).rglob("*"))}
    assert len(modes) > 8
    assert {path: 0o700 if path.is_dir() else 0o600 for path in modes} == modes
    # What is not in the run folder is a user's own business.
    assert mode(tmp_path / "runs") == 0o755
    assert mode(tmp_path / "public" / "x.json") == 0o644


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    RunStore.create(str(shared), "seed: 1\n")
    assert mode(shared) == 0o770
    assert mode(shared / "config.yaml") == 0o600


# Scores, in parts.


def packed_scores(first: int, last: int) -> dict[bytes, bytes]:
    """Scores under the keys `first` to `last` - 1, with another number of answers each."""
    return {
        number.to_bytes(16): pack(
            ExampleScore(
                AnswerScore(-0.1 * number, number), (AnswerScore(-1 / 3, 2),) * (number % 3), 10 + number
            )
        )
        for number in range(first, last)
    }


def bits(score: ExampleScore) -> list[object]:
    """Everything in a score, with the very bits of its floats."""
    answers = (score.target, *score.negatives)
    return [score.context_tokens, *((struct.pack("d", item.logprob), item.tokens) for item in answers)]


@pytest.mark.slow
@given(st.dictionaries(st.binary(min_size=16, max_size=16), example_scores, max_size=20))
@example({b"k" * 16: ExampleScore(AnswerScore(-0.0, 1), (AnswerScore(0.0, 1), AnswerScore(5e-324, 2)), 3)})
def test_scores_survive_their_file_bit_for_bit_and_in_order(scores: dict[bytes, ExampleScore]) -> None:
    read = decode_scores(encode_scores({key: pack(score) for key, score in scores.items()}))
    assert list(read) == list(scores)
    assert [bits(unpack(packed)) for packed in read.values()] == [bits(score) for score in scores.values()]


def test_parts_of_scores_are_added_and_joined_into_one(store: RunStore) -> None:
    assert store.join_scores() == {}
    for first, last in ((0, 3), (3, 4), (4, 9)):
        store.write_scores(packed_scores(first, last))
    parts = {f"scores/0000000{number}.parquet" for number in range(3)}
    assert files_of(store) == {"config.yaml", *parts}
    assert store.join_scores() == packed_scores(0, 9)
    assert files_of(store) == {"config.yaml", "scores/00000003.parquet"}
    before = (folder_of(store) / "scores/00000003.parquet").stat()
    assert RunStore.open(store.location).join_scores() == packed_scores(0, 9)
    assert (folder_of(store) / "scores/00000003.parquet").stat().st_mtime_ns == before.st_mtime_ns
    store.write_scores(packed_scores(9, 10))
    assert files_of(store) == {"config.yaml", "scores/00000003.parquet", "scores/00000004.parquet"}
    assert store.join_scores() == packed_scores(0, 10)


def test_parts_that_a_killed_process_had_joined_but_not_removed_do_no_harm(store: RunStore) -> None:
    store.write_scores(packed_scores(0, 3))
    store.write_scores(packed_scores(3, 5))
    store.write_scores(packed_scores(0, 5))
    (folder_of(store) / "scores/00000000.parquet").unlink()
    assert store.join_scores() == packed_scores(0, 5)
    assert files_of(store) == {"config.yaml", "scores/00000003.parquet"}


def test_pandas_reads_scores(store: RunStore) -> None:
    store.write_scores(packed_scores(5, 6))
    frame = pd.read_parquet(folder_of(store) / "scores/00000000.parquet")
    assert [(row.key, row.context_tokens, list(row.tokens)) for row in frame.itertuples()] == [
        ((5).to_bytes(16), 15, [5, 2, 2])
    ]
    assert list(frame["logprobs"][0]) == [-0.5, -1 / 3, -1 / 3]


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_part_of_scores_is_set_aside_and_the_others_are_kept(
    store: RunStore, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        store.write_scores(packed_scores(number, number + 1))
    path = folder_of(store) / "scores/00000001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    found = store.join_scores()
    assert found == packed_scores(0, 1) | packed_scores(2, 3)
    assert "1 of 3 parts of the scores damaged, such as" in caplog.text
    assert "scores/00000001.parquet.damaged" in files_of(store)
    assert RunStore.open(store.location).join_scores() == found


def test_a_part_of_scores_that_is_not_ours_is_not_read(store: RunStore) -> None:
    path = folder_of(store) / "scores/00000000.parquet"
    path.parent.mkdir()
    columns = pq.read_table(pa.BufferReader(encode_scores(packed_scores(0, 2))))
    lists = pa.array([[1, 2], [3]], columns.schema.field("tokens").type)
    for table in (
        columns.drop_columns("tokens"),
        columns.set_column(3, columns.schema.field("tokens"), lists),
    ):
        pq.write_table(table, path)
        assert store.join_scores() == {}
        assert "scores/00000000.parquet.damaged" in files_of(store)


def test_scores_that_cannot_be_written_are_named(store: RunStore) -> None:
    (folder_of(store) / "scores").write_bytes(b"in the way")
    with pytest.raises(RunFolderError, match=r"cannot write .*scores/00000000\.parquet") as error:
        store.write_scores(packed_scores(0, 1))
    assert is_one_line(error)


# Object storage: a real S3 server on loopback.


@pytest.mark.slow
def test_a_run_folder_in_s3_keeps_everything(s3: str, s3_port: int) -> None:
    location = f"s3://runs/my%20team/run%231?{s3}"
    assert not RunStore.exists(location)
    store = RunStore.create(location, CONFIG)
    assert store.location == location
    for record in rounds_of(TASK):
        store.write_round(record)
    store.write_best(TASK, rounds_of(TASK))
    store.write_task_result(TASK, result_of(TASK))
    store.write_summary([result_of(TASK)])

    again = RunStore.open(location)
    assert again.config_yaml() == CONFIG
    assert again.read_rounds(TASK) == rounds_of(TASK)
    assert again.read_rounds("other") == ()
    assert again.read_task_result(TASK) == result_of(TASK)
    assert again.read_task_result("other") is None
    assert again.read_summary() == (result_of(TASK),)
    with pytest.raises(RunFolderError, match=r"'s3://runs/my team/run#1/tasks/.*/round-0001.* exists"):
        again.write_round(rounds_of(TASK)[1])
    with pytest.raises(RunFolderError, match="already contains a run"):
        RunStore.create(location, CONFIG)

    system = fs.S3FileSystem(endpoint_override=f"127.0.0.1:{s3_port}", scheme="http", region="us-east-1")
    infos = system.get_file_info(fs.FileSelector("runs/my team/run#1", recursive=True))
    files = [info.path.removeprefix("runs/my team/run#1/") for info in infos if info.type == fs.FileType.File]
    numbered = [
        f"{kind}-000{number}.parquet" for kind, number in itertools.product(("round", "segments"), range(3))
    ]
    inside = [f"tasks/bbh__navigate/{name}" for name in (*numbered, "best.json", "result.json")]
    assert sorted(files) == sorted(["config.yaml", "summary.parquet", *inside])
    for file in files:
        with system.open_input_file(f"runs/my team/run#1/{file}") as stream:
            assert b"test-secret-value" not in stream.read()


def test_a_large_round_in_s3_is_uploaded_whole(s3: str) -> None:
    store = RunStore.create(f"s3://runs/large?{s3}", CONFIG)
    content = random.Random(0).randbytes(12_000_000)
    store.write_file("report.html", content)
    record = large_round(0)
    store.write_round(record)
    assert store.read_rounds(TASK) == (record,)


def test_scores_in_s3_are_added_and_joined(s3: str) -> None:
    store = RunStore.create(f"s3://runs/scores?{s3}", CONFIG)
    for number in range(3):
        store.write_scores(packed_scores(number, number + 1))
    assert store.join_scores() == packed_scores(0, 3)
    store.write_scores(packed_scores(3, 4))
    assert RunStore.open(store.location).join_scores() == packed_scores(0, 4)


@pytest.mark.slow
def test_storage_that_does_not_answer_is_named() -> None:
    server = "scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1"
    with pytest.raises(RunFolderError, match=r"cannot read 'gs://runs/run/config\.yaml'") as error:
        RunStore.exists(f"gs://anonymous@runs/run?{server}")
    assert is_one_line(error)


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(
        RunFolderError, match=r"cannot write 's3://absent/run/config\.yaml'.*bucket exists"
    ) as error:
        RunStore.create(f"s3://absent/run?{s3}", CONFIG)
    assert is_one_line(error)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        RunStore.open(f"s3://absent/run?{s3}")


def test_examples_of_earlier_versions_are_read() -> None:
    task = Task(
        "t", "text", "d", "i", (Example("1", "in", "out", ("no",)),), test_examples=(Example("2", "a", "b"),)
    )
    decoders: list[tuple[bytes, Callable[[bytes], object], object]] = [
        (encode_task(task), decode_task, task),
        (encode_training(task.examples), decode_training, task.examples),
    ]
    for content, decode, expected in decoders:
        table = pq.read_table(pa.BufferReader(content))
        assert decode(to_parquet(table.drop_columns(["also_right"]))) == expected
