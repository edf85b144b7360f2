"""The paper's tables in small, with real data, a real judge and a real process-reward model. The simulated
engine writes what they rate: what becomes of replies is tested, and a real model writes in tests/runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import figures
from benchmarks.paper.__main__ import main
from tests.engines.hf.test_process_reward import TrlFolder, trl
from tests.evaluation.test_alpaca import JUDGE, Post, RealJudge, Reply, Server, real_judge, reply_with, server

__all__ = ["real_judge", "server", "trl"]

pytestmark = [pytest.mark.usefixtures("running_ray"), pytest.mark.slow]
# The path is what is tested: few candidates, short texts, one model in both roles.
SMALL = (
    "scorer.role=both",
    "search.masking=off",
    "search.hard_examples=1",
    "search.variants=1",
    "search.reasks=0",
    "rewriter.max_tokens=24",
    "evaluation.max_tokens=12",
    "evaluation.follow_up=false",
)
SIMULATED = ("scorer.engine=simulated",)


def table(
    name: str, folder: Path, data_dir: Path, *words: str, settings: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The rows of a small table."""
    file = folder / "rows.json"
    places = ("--data-dir", str(data_dir), "--runs", str(folder / "runs"), "--json", str(file))
    main(["--table", name, "--limit", "3", *places, *words, "--set", *SMALL, *settings])
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return rows


def names(rows: list[dict[str, Any]]) -> set[str]:
    """What we have a figure of, all of them percentages."""
    ours = {row["name"] for row in rows if row["ours"] is not None}
    assert all(0 <= row["ours"] <= 100 for row in rows if row["ours"] is not None)
    return ours


def test_bbh_and_the_few_shot_table_share_a_run(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = ("--model", "simulated", "--task", "bbh/object_counting")
    rows = table("bbh", tmp_path, data_dir, *tasks, settings=SIMULATED)
    assert names(rows) == {
        "start",
        "best",
        "answer_only",
        "step_by_step",
        "rephrase",
        "step_back",
    }
    assert {row["name"]: row["paper"] for row in rows}["best"] == figures.BBH["best"] == 80.6
    printed = capsys.readouterr().out
    assert "ours (simulated, 3 examples a task)" in printed
    assert "SMALL" in printed
    rows = table("fewshot", tmp_path, data_dir, *tasks, settings=SIMULATED)
    assert [(row["shots"], row["name"]) for row in rows] == [
        (shots, name) for shots in (0, 3) for name in ("start", "best")
    ]
    assert rows[1]["paper"] == 79.21


def test_mathematics_and_process_rewards_share_a_run(tmp_path: Path, data_dir: Path, trl: TrlFolder) -> None:
    words = ("--model", "simulated", "--task", "gsm8k")
    rows = table("math", tmp_path, data_dir, *words, settings=SIMULATED)
    assert {"answer_only", "step_by_step", "rephrase", "step_back", "best"} <= names(rows)
    assert {row["name"]: row["paper"] for row in rows}["step_by_step"] == 90.7
    words = (*words, "--process-reward", str(trl.path))
    rows = table("process_reward", tmp_path, data_dir, *words, settings=SIMULATED)
    ours = {row["name"]: row["ours"] for row in rows if row["ours"] is not None}
    assert {"answer_only", "step_by_step", "best"} <= set(ours)
    assert all(0 < value < 1 for value in ours.values())


def test_transfer_between_two_models(tmp_path: Path, data_dir: Path) -> None:
    rows = table("transfer", tmp_path, data_dir, "--model", "first", "second", settings=SIMULATED)
    pairs = [(row["answers"], row["optimised_on"]) for row in rows]
    assert pairs == [(answers, source) for answers in ("first", "second") for source in ("first", "second")]
    assert all(0 <= row["ours"] <= 100 for row in rows)


def test_ablations_are_one_run(tmp_path: Path, data_dir: Path) -> None:
    words = ("--model", "simulated", "--task", "bbh/web_of_lies")
    rows = table("ablation", tmp_path, data_dir, *words, settings=SIMULATED)
    assert names(rows) == set(figures.ABLATION)
    tasks = {path.name for path in (tmp_path / "runs").glob("ablation-*/run/tasks/*")}
    assert tasks == {f"bbh__web_of_lies.{variant}" for variant in figures.ABLATION}


def test_win_rates_by_a_real_judge(
    tmp_path: Path, data_dir: Path, server: Server, real_judge: RealJudge
) -> None:
    def weighed(post: Post) -> Reply:
        """The model's own probabilities of the two answers, however unlikely both are to it."""
        likely = real_judge.first_token(post.body["messages"], 40_000)
        return reply_with("m", {token: likely[token] for token in ("m", "M")}, ended="length")

    server.reply = weighed
    judge = ("--judge", JUDGE, "--judge-url", server.url)
    rows = table("alpaca", tmp_path, data_dir, "--model", "simulated", *judge, settings=SIMULATED)
    ours = {row["name"]: row["ours"] for row in rows}
    # Under the start instruction the answers are the references.
    assert ours["start"] == 50
    assert 0 <= ours["best"] <= 100
    [run] = (tmp_path / "runs").glob("alpaca-*/run")
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("outputs-*.json")]
    assert [len(document) for document in documents] == [3, 3]
    assert set(documents[0][0]) == {"instruction", "output", "generator", "dataset"}


def test_a_judge_has_to_be_named() -> None:
    with pytest.raises(SystemExit, match=r"--table alpaca needs a judge: --judge NAME \[--judge-url URL\]"):
        main(["--table", "alpaca", "--limit", "3"])


@pytest.mark.parametrize("table_of", [figures.BBH, figures.ABLATION, figures.ALPACA])
def test_the_papers_figures_are_percentages(table_of: dict[str, float]) -> None:
    assert all(10 < value < 100 for value in table_of.values())
