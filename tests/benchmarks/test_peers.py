"""The comparison with other optimizers: what is counted and refused, who gets which rows, what a run keeps,
and what the tables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.__main__ import Comparison, main
from benchmarks.peers.answering import Evaluator, Measured
from benchmarks.peers.job import ANSWERING, REWRITING, Job, first_label
from benchmarks.peers.job import account as counted
from benchmarks.peers.proxy import Account, Proxy
from benchmarks.peers.running import Contestant, ContestantError, FinishedRun, commands, finished, run
from benchmarks.peers.server import ServerError, served_model
from benchmarks.peers.tables import (
    Row,
    against_best_peer,
    identity,
    means,
    row_of,
    summary,
    tables,
    write,
)
from benchmarks.peers.tasks import HELD_OUT_ROWS, TASKS, TRAINING_ROWS, PeerTask, peer_task
from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.tasks.keys import input_key
from tests.engines.openai.test_generator import MODEL, Post, Reply, Server, chat, failure, in_turn, running

pytestmark = pytest.mark.slow

ANSWER_TOKENS = 17
"""Tokens of an answer of `chat`: 7 of the prompt and 10 of the reply."""
ASKS_UNTIL_REFUSED = """\
import json, sys, urllib.error, urllib.request
from benchmarks.peers.job import Job
from pathlib import Path

job = Job.read(Path(sys.argv[1]))
body = json.dumps({"model": job.model, "messages": [], **job.answering}).encode()
asked = 0
while True:
    url, headers = job.task_url + "/chat/completions", {"Content-Type": "application/json"}
    try:
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()
    except urllib.error.HTTPError as error:
        assert (error.code, json.load(error)["error"]["code"]) == (403, "budget_exhausted")
        break
    asked += 1
assert job.spent()
outcome = {"instruction": job.train[0].input, "own_tokens": 5, "asked": asked}
Path(sys.argv[2]).write_text(json.dumps(outcome))
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running() as state:
        state.reply = in_turn(chat("praise"))
        yield state


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.url) as started:
        yield started


@pytest.fixture(scope="module")
def tickets() -> PeerTask:
    return peer_task("tickets", None)


def ask(url: str, path: str = "chat/completions", **fields: Any) -> tuple[int, Any]:
    """The status and the answer of a request."""
    body = json.dumps({"model": MODEL, "messages": [], **fields}).encode()
    request = urllib.request.Request(f"{url}/{path}", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


# --- the proxy ----------------------------------------------------------------------------------------------


def test_the_proxy_counts_every_role_and_refuses_what_comes_after_the_budget(
    server: Server, proxy: Proxy
) -> None:
    account = proxy.open("one", 30)
    assert ask(proxy.url("one", "task"))[1]["choices"][0]["message"]["content"] == "praise"
    assert not account.spent
    assert ask(proxy.url("one", "rewriter"))[0] == 200
    status, answer = ask(proxy.url("one", "task"))
    assert (status, answer["error"]["code"]) == (403, "budget_exhausted")
    assert len(server.posted) == 2
    assert counted(proxy.account_url("one")) == account.document()
    assert account.document() == {
        "budget": 30,
        "spent": True,
        "tokens": {"task": ANSWER_TOKENS, "rewriter": ANSWER_TOKENS},
        "requests": {"task": 1, "rewriter": 1},
        "refused": 1,
        "failed": 0,
    }
    # Another run has a budget of its own, and a run that begins again a new one.
    proxy.open("two", None)
    proxy.open("one", 30)
    assert [ask(proxy.url(name, "task"))[0] for name in ("one", "two")] == [200, 200]


def test_nothing_passes_the_proxy_uncounted(server: Server, proxy: Proxy) -> None:
    account = proxy.open("one", 1000)
    assert ask(proxy.url("one", "task"), stream=True)[0] == 400
    assert ask(proxy.url("one", "task"), "embeddings")[0] == 404
    assert ask(proxy.url("unknown", "task"))[0] == 404
    assert server.posted == []
    server.reply = in_turn(Reply({"choices": []}), failure(500), Reply(drop=True))
    assert [ask(proxy.url("one", "task"))[0] for _ in range(3)] == [502, 500, 502]
    assert (account.failed, account.tokens.total()) == (3, 0)


def test_the_model_is_known_through_the_proxy(server: Server, proxy: Proxy) -> None:
    assert served_model(proxy.url("one", "task")) == MODEL
    server.models = [{"id": "a"}, {"id": "b"}]
    with pytest.raises(ServerError, match="serves 2 models"):
        served_model(server.url)
    server.models = None
    with pytest.raises(ServerError, match="no OpenAI-compatible server answers"):
        served_model(server.url)


# --- the answer rule, and the rows --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("Positive.", "positive"),
        ("not negative but positive", "negative"),
        ("positively great", None),
        ("a non-negative view", "negative"),
        ("", None),
    ],
)
def test_the_first_label_of_a_reply_counts(reply: str, label: str | None) -> None:
    assert first_label(reply, ("negative", "positive")) == label


def test_of_two_labels_at_one_place_the_longer_one_is_meant() -> None:
    labels = ("bug", "bug report", "C++")
    assert first_label("A BUG REPORT, then", labels) == "bug report"
    assert first_label("a bug", labels) == "bug"
    assert first_label("in C++ (bug)", labels) == "C++"


@pytest.mark.parametrize("name", TASKS)
def test_training_rows_are_balanced_and_never_held_out(name: str, data_dir: Path) -> None:
    task = peer_task(name, str(data_dir))
    held_out = {input_key(row.input) for row in task.held_out}
    assert len(held_out) == HELD_OUT_ROWS
    for seed in range(3):
        rows = task.training_rows(seed)
        assert rows == task.training_rows(seed)
        assert len({row.input for row in rows}) == TRAINING_ROWS
        assert not held_out & {input_key(row.input) for row in rows}
        for size in (10, TRAINING_ROWS):
            counts = Counter(row.target for row in rows[:size])
            assert max(counts.values()) - min(counts[label] for label in task.labels) <= 1
    assert set(task.training_rows(0)) != set(task.training_rows(1))
    assert all(label in task.start for label in task.labels)


def test_fewer_held_out_rows_change_no_training_row(tickets: PeerTask) -> None:
    few = peer_task("tickets", None, 30)
    assert few.held_out == tickets.held_out[:30]
    assert few.training_rows(1) == tickets.training_rows(1)


def test_halves_have_all_labels_in_equal_parts(tickets: PeerTask, tmp_path: Path) -> None:
    job = job_of(tickets, tmp_path, "http://127.0.0.1:1")
    first, second = job.halves()
    assert len(first) == len(second) == TRAINING_ROWS // 2
    assert set(first) | set(second) == set(job.train)
    for half in (first, second):
        counts = Counter(row.target for row in half)
        assert set(counts) == set(job.labels)
        assert max(counts.values()) - min(counts.values()) <= 1


# --- runs ---------------------------------------------------------------------------------------------------


def job_of(task: PeerTask, folder: Path, url: str, budget: int = 100, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "task": task.name,
        "description": task.description,
        "labels": task.labels,
        "start": task.start,
        "train": task.training_rows(0),
        "seed": 0,
        "budget": budget,
        "model": MODEL,
        "weights": MODEL,
        "task_url": f"{url}/task/v1",
        "rewriter_url": f"{url}/rewriter/v1",
        "account_url": url,
        "folder": str(folder / "work"),
        "answering": ANSWERING,
        "rewriting": REWRITING,
    }
    return Job(**{**values, **changes})


def program(text: str) -> Contestant:
    return Contestant("mine", (sys.executable, "-c", text))


def test_a_job_is_the_same_after_its_file(tickets: PeerTask, tmp_path: Path) -> None:
    job = job_of(tickets, tmp_path, "http://127.0.0.1:1")
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_a_finished_run_is_kept_until_its_job_changes(
    proxy: Proxy, tickets: PeerTask, tmp_path: Path
) -> None:
    job = job_of(tickets, tmp_path, proxy.account_url("one"))
    contestant = program(ASKS_UNTIL_REFUSED)
    assert finished(tmp_path, contestant, job) is None
    done = run(tmp_path, contestant, job, proxy.open("one", job.budget))
    assert done.outcome == {"instruction": job.train[0].input, "own_tokens": 5, "asked": 6}
    assert (done.tokens, done.stopped) == (6 * ANSWER_TOKENS + 5, "budget")
    assert done.account["requests"] == {"task": 6}
    assert finished(tmp_path, contestant, replace(job, task_url="http://127.0.0.1:2")) == done
    assert finished(tmp_path, contestant, replace(job, start="Answer.")) is None
    assert finished(tmp_path, replace(contestant, name="other"), job) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit('out of luck')", "exit code 1: out of luck"),
        ("pass", "wrote no outcome"),
        ("import sys; open(sys.argv[2], 'w').write('{}')", "its outcome has no instruction"),
    ],
)
def test_a_contestant_that_fails_keeps_nothing(
    text: str, reason: str, tickets: PeerTask, tmp_path: Path
) -> None:
    job = job_of(tickets, tmp_path, "http://127.0.0.1:1")
    with pytest.raises(ContestantError, match=reason):
        run(tmp_path, program(text), job, Account(100))
    assert finished(tmp_path, program(text), job) is None


def test_a_comparison_names_failures_and_repeats_nothing_finished(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    task = peer_task("tickets", None, 12)
    comparison = Comparison(server.url, MODEL, proxy, tmp_path)
    contestants = [program(ASKS_UNTIL_REFUSED), Contestant("broken", (sys.executable, "-c", "1 / 0"))]
    rows, errors = comparison.results([task], contestants, [50, 40], [0])
    assert [identity(row) for row in rows] == [("tickets", 50, "mine", 0), ("tickets", 40, "mine", 0)]
    assert [error.split(":")[0] for error in errors] == ["tickets-broken-50-0", "tickets-broken-40-0"]
    assert all("ZeroDivisionError" in error for error in errors)
    asked = len(server.posted)
    again, _ = Comparison(server.url, MODEL, proxy, tmp_path).results([task], contestants[:1], [50, 40], [0])
    assert (again, len(server.posted)) == (rows, asked)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("gepa", "gepa"),
        ("mipro", "optuna"),
        ("capo", "promptolution"),
        ("evoprompt", "promptolution"),
        ("opro", "promptolution"),
    ],
)
def test_a_peer_ends_with_its_budget(
    name: str, library: str, server: Server, proxy: Proxy, tickets: PeerTask, tmp_path: Path
) -> None:
    python = os.environ.get("PMPO_PEERS_PYTHON", sys.executable)
    known = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
    if subprocess.run([python, "-c", known], check=False).returncode:
        pytest.skip(f"{library} is not installed; PMPO_PEERS_PYTHON names the Python that has it")
    better = "Name the kind of ticket."

    def reply(post: Post) -> Reply:
        system = post.body["messages"][0]
        # dspy's client has the newer name.
        most = post.body.get("max_tokens", post.body.get("max_completion_tokens"))
        if most == ANSWERING["max_tokens"]:
            return chat("praise" if system["content"] != tickets.start else "nothing")
        return chat(
            f"```\n{better}\n```\n<prompt>{better}</prompt>\n[[ ## proposed_instruction ## ]]\n{better}"
        )

    server.reply = reply
    job = job_of(tickets, tmp_path, proxy.account_url("one"), budget=5000)
    [contestant] = commands([name], {}, sys.executable, python)
    done = run(tmp_path, contestant, job, proxy.open("one", job.budget))
    assert done.outcome["instruction"] == better
    assert done.account["spent"] or name == "mipro"
    assert set(done.account["requests"]) == {"task", "rewriter"}


def test_pmpo_counts_what_it_scores_and_stays_within_its_budget(
    server: Server, proxy: Proxy, tickets: PeerTask, tmp_path: Path
) -> None:
    server.reply = in_turn(chat("<prompt>Read the message and name the kind of ticket.</prompt>"))
    weights = str(resolve_model(DEFAULT_MODEL, progress=False).path)
    job = job_of(tickets, tmp_path, proxy.account_url("one"), budget=8000, weights=weights)
    [contestant] = commands(["pmpo"], {}, sys.executable, None)
    done = run(tmp_path, contestant, job, proxy.open("one", job.budget))
    assert done.stopped == "token budget"
    assert done.shots == []
    assert done.account["tokens"].get("rewriter", 0) == done.outcome["rewriter_tokens"]
    assert job.budget / 2 < done.tokens <= job.budget


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--contestant", "pmpo", "gepa"), "name the Python that has the peers' libraries"),
        (("--contestant", "pmpo", "--external", "pmpo=mine"), "should be NAME=COMMAND with a new name"),
        (("--contestant", "pmpo", "--external", "mine"), "should be NAME=COMMAND with a new name"),
    ],
)
def test_a_command_that_lacks_something_says_what(
    arguments: tuple[str, ...],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert reason in " ".join(capsys.readouterr().err.split())


# --- the evaluation -----------------------------------------------------------------------------------------


def test_a_prompt_is_asked_once_for_each_row(server: Server, tmp_path: Path) -> None:
    task = peer_task("tickets", None, 20)
    praised = {row.input for row in task.held_out if row.target == "praise"}
    server.reply = lambda post: chat("Praise!" if post.body["messages"][-1]["content"] in praised else "none")
    evaluator = Evaluator(server.url, MODEL, MODEL, tmp_path)
    found = evaluator.measure(replace(task, held_out=task.held_out[:15]), "Sort.")
    assert len(server.posted) == 15
    found = evaluator.measure(task, "Sort.")
    assert len(server.posted) == 20
    assert found.values == {row.id: float(row.target == "praise") for row in task.held_out}
    assert found.without_label == 1 - len(praised) / 20
    shots = [{"input": "Thanks!", "target": "praise"}]
    evaluator.measure(task, "Sort.", shots)
    assert len(server.posted) == 40
    last = server.posted[-1]
    assert [message["role"] for message in last["messages"]] == ["system", "user", "assistant", "user"]
    assert (last["temperature"], last["max_tokens"]) == (0, 12)
    server.reply = in_turn(failure(500))
    with pytest.raises(ServerError, match="the same command continues the runs"):
        evaluator.measure(task, "Sort it.")


# --- the tables ---------------------------------------------------------------------------------------------


def measured(right: int, n: int = 100, without: int = 0) -> Measured:
    """Answers of which the first `right` are right, and the last `without` name no label."""
    answers = {str(index): None if index >= n - without else "praise" for index in range(n)}
    return Measured({str(index): float(index < right) for index in range(n)}, answers)


def row(contestant: str, right: int, *, task: str = "sst2", seed: int = 0, budget: int = 1000) -> Row:
    account = {"requests": {"task": 10, "rewriter": 2}, "refused": 1, "failed": 0, "spent": True}
    outcome = {"instruction": f"{contestant}'s\nwords", "own_score": 0.5}
    done = FinishedRun(contestant, {}, outcome, account, 1010, 12.5)
    baselines = {"start": measured(40), "description": measured(50)}
    return row_of(done, task, seed, budget, measured(right, without=4), baselines)


def test_a_row_has_what_a_run_found_and_cost() -> None:
    found = row("gepa", 70)
    assert (found["accuracy"], found["n"], found["without_label"]) == (0.7, 100, 0.04)
    assert found["low"] < 0.7 < found["high"]
    assert found["over_start"]["gain"] == pytest.approx(0.3)
    assert found["over_description"]["gain"] == pytest.approx(0.2)
    assert (found["tokens"], found["requests"], found["stopped"]) == (1010, 12, "budget")


def test_every_run_is_in_the_tables_with_its_text() -> None:
    rows = [
        row(name, right, task=task, seed=seed)
        for name, right in (("pmpo", 80), ("gepa", 70), ("opro", 60))
        for task in ("sst2", "trec")
        for seed in (0, 1)
    ]
    shown = tables(rows)
    assert shown.count("### ") == 2
    assert shown.count("pmpo's words") == 4
    assert shown.count("\n| ") == 2 * (1 + 6)
    assert "Start 40.0%, description alone 50.0%, on 100 held-out rows." in shown
    assert means(rows).count("\n| 1,000 | ") == 6
    assert "| 1,000 | sst2 | pmpo | 2 | 80.0% | +40.0 [" in means(rows)


def test_pmpo_is_compared_with_the_best_of_the_others() -> None:
    rows = [row("pmpo", 80 + seed, task=task, seed=seed) for task in ("sst2", "trec") for seed in (0, 1)]
    rows += [row("pmpo_demos", 90, task=task) for task in ("sst2", "trec")]
    rows += [row("gepa", 70, task=task, seed=seed) for task in ("sst2", "trec") for seed in (0, 1)]
    rows += [row("opro", 75, task="trec", seed=seed) for seed in (0, 1)]
    found = against_best_peer(rows)
    assert [(one["contestant"], one["task"], one["peer"], one["searches"]) for one in found] == [
        ("pmpo", "sst2", "gepa", 2),
        ("pmpo", "trec", "opro", 2),
        ("pmpo", "all", "the best of each task", 4),
        ("pmpo_demos", "sst2", "gepa", 1),
        ("pmpo_demos", "trec", "opro", 1),
        ("pmpo_demos", "all", "the best of each task", 2),
    ]
    assert [one["over"]["examples"]["gain"] for one in found] == pytest.approx(
        [0.105, 0.055, 0.08, 0.2, 0.15, 0.175]
    )
    assert found[0]["over"]["examples"]["p_adjusted"] >= found[0]["over"]["examples"]["p_value"]
    assert found[0]["over"]["searches"]["low"] < 0.105 < found[0]["over"]["searches"]["high"]
    assert found[3]["over"]["searches"] is None
    assert summary(found).count("\n| 1,000 | ") == 6


def test_pmpo_without_peers_is_compared_with_nobody() -> None:
    assert against_best_peer([row("pmpo", 80), row("pmpo_demos", 80)]) == []


def test_the_file_keeps_other_runs_and_replaces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "peers.json"
    write(file, [row("pmpo", 80), row("gepa", 70)])
    write(file, [row("gepa", 60), row("gepa", 65, budget=2000), row("gepa", 65, seed=1)])
    kept = json.loads(file.read_text())
    assert [(*identity(one), one["accuracy"]) for one in kept] == [
        ("sst2", 1000, "gepa", 0, 0.6),
        ("sst2", 1000, "gepa", 1, 0.65),
        ("sst2", 1000, "pmpo", 0, 0.8),
        ("sst2", 2000, "gepa", 0, 0.65),
    ]
    assert all("values" not in one for one in kept)
