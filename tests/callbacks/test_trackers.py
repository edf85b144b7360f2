"""Trackers: what they write is read back with the real tools. Each part needs the package it is about."""

from __future__ import annotations

import html
import json
import re
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray.callbacks.dispatch import Callback, RunStart, dispatching
from pmpo_ray.callbacks.tensorboard import code_block
from pmpo_ray.callbacks.trackers import trackers
from pmpo_ray.callbacks.values import flat_config, result_values, round_values, sendable
from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tracking import MlflowConfig, TensorboardConfig, TrackingConfig, WandbConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.outcomes import TaskFailure, TaskResult
from pmpo_ray.runs.optimize import RunResult
from pmpo_ray.types import EngineInfo, RoundRecord
from tests.run_folders import simulated_config, write_run

ENGINE = EngineInfo("simulated", "tiny", "abc123", 7, 8192, "system", "float32", "cpu")
HOSTILE = (
    "Answer {{question}} in {braces}. {% if x %}no{% endif %} {# gone #} ${HOME} %s\n"
    "```\n</pre><script>alert(1)</script>\n````` not closed\n"
    '\t"quoted" \\n <b>bold</b> &amp; [link](javascript:alert(1)) | a | b |\n\n# é 漢字 🙂'
)


@dataclass(frozen=True)
class Story:
    """A run of two tasks as its folder tells it, the second with a hostile best instruction."""

    start: RunStart
    rounds: dict[str, tuple[RoundRecord, ...]]
    results: dict[str, TaskResult]

    def first_part(self, callback: Callback) -> None:
        """The first two rounds of the first task, then an interruption."""
        with dispatching([callback]) as callbacks:
            callbacks.on_run_start(self.start)
            for record in self.rounds["tickets"][:2]:
                callbacks.on_round(record)
            callbacks.on_run_end(RunResult((), self.start.run_dir), False)

    def second_part(self, callback: Callback, rounds: int = 2) -> None:
        """All from round `rounds` of the first task on, to the end."""
        with dispatching([callback]) as callbacks:
            callbacks.on_run_start(replace(self.start, resumed={"tickets": rounds}))
            for name, records in self.rounds.items():
                for record in records[rounds if name == "tickets" else 0 :]:
                    callbacks.on_round(record)
                callbacks.on_task_end(self.results[name])
            callbacks.on_run_end(RunResult(tuple(self.results.values()), self.start.run_dir), True)


@pytest.fixture
def story(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Story]:
    rows = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(40))
    (tmp_path / "own.csv").write_text("input,target\n" + rows)
    tasks = ["tickets", {"name": "My Own: Task*", "path": str(tmp_path / "own.csv")}]
    store = write_run(tmp_path / "run", tasks=tasks, evaluated=False)
    config = simulated_config(tasks=tasks)
    names = tuple(task.name for task in config.tasks)
    results = {name: result for name in names if (result := store.read_task_result(name))}
    results[names[1]] = replace(results[names[1]], best=HOSTILE, p_value=None, accuracy_after=None)
    yield Story(
        RunStart("0123456789abcdef", store.location, config, names, ENGINE, ENGINE, {}),
        {name: store.read_rounds(name) for name in names},
        results,
    )
    assert "callback" not in caplog.text


def losses(records: tuple[RoundRecord, ...]) -> list[float]:
    return [record.scored_survivors[0].loss for record in records]


def tracker(section: str, settings: MlflowConfig | WandbConfig | TensorboardConfig, run_dir: str) -> Callback:
    """The tracker for one section of the configuration, if its package is here."""
    pytest.importorskip(section)
    [one] = trackers(TrackingConfig.model_validate({section: settings}), run_dir)
    return one


# All of them


def test_the_numbers_of_a_round_and_of_a_result(story: Story) -> None:
    first, second = story.results.values()
    record = story.rounds["tickets"][1]
    values = round_values(record)
    assert values["best_loss"] == min(scored.loss for scored in record.candidates)
    assert values["mean_loss"] >= values["best_loss"]
    assert (values["candidates"], values["refused"]) == (len(record.candidates), len(record.refusals))
    assert values["tokens_scored"] == record.tokens_scored > 0
    assert result_values(first)["accuracy_after"] == 75 / 200
    assert set(result_values(first)) - set(result_values(second)) == {"accuracy_after", "p_value"}


def test_the_flat_configuration_keeps_secrets_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-value")
    config = config_from_mapping(
        {
            "tasks": ["tickets", {"name": "own", "path": "a.csv", "instruction": "https://me:hush@host/"}],
            "scorer": {"endpoint": {"parameters": {"note": "whatever"}}, "vllm": {"options": {"seed": 1}}},
            "evaluation": {"instructions": {"mine": "say sk-very-secret-value"}},
            "tracking": {"mlflow": True},
        },
        "here",
    )
    flat = flat_config(config)
    assert flat["search.rounds"] == "20"
    assert flat["search.calibrate"] == "auto"
    assert flat["scorer.vllm.options"] == '{"seed": 1}'
    assert [task["name"] for task in json.loads(flat["tasks"])] == ["tickets", "own"]
    assert not {key for key in flat if "endpoint" in key or "tracking" in key}
    assert not re.search("hush|secret|whatever", str(flat))
    assert json.loads(flat_config(RunConfig())["tasks"]) == [{"name": "tickets"}]


def test_only_what_no_file_can_hold_is_escaped() -> None:
    assert sendable(HOSTILE) == HOSTILE
    assert sendable("a\ud800b") == "a\\ud800b"


@pytest.mark.slow
@pytest.mark.parametrize("package", ["mlflow", "wandb", "tensorboard"])
def test_a_missing_package_is_said_before_anything_starts(package: str, tmp_path: Path) -> None:
    """A folder of that name, as wandb makes where it runs, is not the package."""
    (tmp_path / package).mkdir()
    (tmp_path / "run.yaml").write_text("tasks: [tickets]\n")
    script = f"import sys; sys.modules[{package!r}] = None; from pmpo_ray.cli.main import main; main()"
    options = ["optimize", "run.yaml", "--set", f"tracking.{package}=true", "--run-dir", "run"]
    done = subprocess.run(
        [sys.executable, "-c", script, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: tracking: {package} is not installed; pip install 'pmpo-ray[{package}]'\n"
    )
    assert not (tmp_path / "run").exists()


# MLflow


def mlflow_tracker(tmp_path: Path, **settings: Any) -> Callback:
    return tracker("mlflow", MlflowConfig(uri=f"sqlite:///{tmp_path}/m.db", **settings), "run")


@pytest.fixture
def no_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tools keep their files in `tmp_path` and report their use to nobody."""
    for name, value in {"DO_NOT_TRACK": "1", "WANDB_DIR": str(tmp_path), "WANDB_MODE": "offline"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("no_reports")
def test_mlflow_holds_a_run_and_its_tasks_across_an_interruption(story: Story, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    story.first_part(mlflow_tracker(tmp_path))
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    experiment = client.get_experiment_by_name("pmpo").experiment_id
    assert [one.info.status for one in client.search_runs([experiment])] == ["KILLED", "KILLED"]

    config = story.start.config
    longer = config.model_copy(update={"search": config.search.model_copy(update={"rounds": 5})})
    continued = replace(story, start=replace(story.start, config=longer, run_dir="moved/run"))
    continued.second_part(mlflow_tracker(tmp_path))
    continued.second_part(mlflow_tracker(tmp_path), rounds=4)
    found = client.search_runs([experiment])
    assert [one.info.status for one in found] == ["FINISHED"] * 3
    runs = {one.data.tags.get("pmpo.task", ""): one for one in found}
    assert set(runs) == {"", *story.start.tasks}
    parent = runs.pop("")
    assert parent.data.params["search.rounds"] == "3"
    assert parent.data.tags["changed.search.rounds"] == "5"
    assert parent.data.tags["engine.scorer.model"] == "tiny"
    assert parent.data.tags["version.ray"]
    assert parent.data.metrics["tasks_done"] == 2
    for name, child in runs.items():
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        history = client.get_metric_history(child.info.run_id, "best_loss")
        first_told = {one.step: one.value for one in reversed(history)}
        assert [first_told[step] for step in sorted(first_told)] == losses(story.rounds[name])
        assert child.data.metrics["loss_after"] == story.results[name].loss_after
        assert child.data.tags["instruction"] == story.results[name].best
        registered = client.get_prompt_version(*child.data.tags["prompt"].split("/")[-2:])
        assert registered.template == story.results[name].best
        assert registered.version == 1
        assert registered.tags["pmpo.run"] == story.start.id
        assert registered.tags["task"] == name
        assert float(registered.tags["loss_after"]) == pytest.approx(story.results[name].loss_after, 1e-5)
        assert registered.tags["mlflow_run"] == child.info.run_id
    assert len(client.search_prompts()) == 2
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_reports")
def test_mlflow_shows_what_failed_and_registers_only_where_wanted(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-value")
    mlflow = pytest.importorskip("mlflow")
    result = story.results["tickets"]
    failure = TaskFailure("My Own: Task*", "the key sk-very-secret-value is refused")
    one = mlflow_tracker(tmp_path, register_prompts=False, experiment="mine")
    with dispatching([one]) as callbacks:
        callbacks.on_run_start(story.start)
        callbacks.on_task_failed(failure)
        callbacks.on_task_end(result)
        callbacks.on_run_end(RunResult((result,), "run", (failure,)), True)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/m.db")
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    status = {one.data.tags.get("pmpo.task", ""): one.info.status for one in found}
    assert status == {"": "FAILED", "tickets": "FINISHED", "My Own: Task*": "FAILED"}
    reasons = [one.data.tags["failure"] for one in found if "failure" in one.data.tags]
    assert len(reasons) == 1
    assert "is refused" in reasons[0]
    assert "secret" not in reasons[0]
    assert client.search_prompts() == []


# TensorBoard


def test_tensorboard_lays_the_curves_of_all_tasks_over_each_other(story: Story, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    story.first_part(tracker("tensorboard", TensorboardConfig(), story.start.run_dir))
    story.second_part(tracker("tensorboard", TensorboardConfig(), story.start.run_dir))
    read = EventMultiplexer().AddRunsFromDirectory(f"{story.start.run_dir}/tensorboard").Reload()
    folders = sorted(set(read.Runs()) - {"."})
    assert len(folders) == 2
    assert "tickets" in folders
    for folder in folders:
        name = "tickets" if folder == "tickets" else "My Own: Task*"
        scalars = read.Scalars(folder, "round/best_loss")
        assert [one.step for one in scalars] == [record.round for record in story.rounds[name]]
        assert [one.value for one in scalars] == pytest.approx(losses(story.rounds[name]), rel=1e-5)
        [loss] = read.Scalars(folder, "result/loss_after")
        assert loss.value == pytest.approx(story.results[name].loss_after, rel=1e-5)
        [text] = read.Tensors(folder, "best instruction/text_summary")
        assert text.tensor_proto.string_val[0].decode() == code_block(story.results[name].best)
    configuration = read.Tensors(".", "configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "search.rounds = 3" in configuration


@pytest.mark.parametrize("text", [HOSTILE, "", "```", "a\n~~~\nb", "`" * 50, "    indented\n\n* list"])
def test_tensorboard_shows_an_instruction_as_it_is(text: str) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.plugin_util import markdown_to_safe_html

    shown = markdown_to_safe_html(code_block(text))
    inside = re.fullmatch(r"<pre><code>(.*)\n</code></pre>", shown, re.DOTALL)
    assert inside is not None
    # The tool itself shows a tab as spaces.
    assert html.unescape(inside[1]) == text.expandtabs(4)
    assert "<" not in inside[1]


def test_tensorboard_needs_a_folder_on_this_machine(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with pytest.raises(ConfigError, match=r"tracking\.tensorboard\.log_dir: required, since the run folder"):
        tracker("tensorboard", TensorboardConfig(), "s3://bucket/run?region=us-east-1")
    assert tracker(
        "tensorboard", TensorboardConfig(log_dir=str(tmp_path)), "s3://bucket/run?region=us-east-1"
    )


# Weights & Biases


def recorded(path: Path) -> Iterator[Any]:
    """The records of an offline run's file: chunks of 32 KiB with pieces of records behind a checksum, a
    length and a kind each (1 whole, 2 first, 3 middle, 4 last)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            break
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""


def wait_for_exits(parts: list[Path]) -> None:
    """Wait until every file ends with an exit record: wandb's service writes it after `finish` returns."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        kinds = [[record.WhichOneof("record_type") for record in recorded(part)] for part in parts]
        if all("exit" in found for found in kinds):
            return
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("no_reports")
def test_wandb_records_both_parts_of_a_run_as_one(story: Story, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    story.first_part(tracker("wandb", WandbConfig(project="mine"), "run"))
    story.second_part(tracker("wandb", WandbConfig(project="mine"), "run"))
    parts = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    wait_for_exits(parts)
    assert [part.name for part in parts] == ["run-pmpo-0123456789abcdef.wandb"] * 2
    history: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    steps: dict[str, str] = {}
    codes: list[int] = []
    for part in parts:
        for record in recorded(part):
            match record.WhichOneof("record_type"):
                case "run":
                    assert (record.run.run_id, record.run.project) == ("pmpo-0123456789abcdef", "mine")
                    config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                    assert config["search.rounds"] == "3"
                case "history":
                    history.append(_values(record.history.item))
                case "summary":
                    summary |= _values(record.summary.update)
                case "metric":
                    steps[record.metric.glob_name or record.metric.name] = record.metric.step_metric
                case "exit":
                    codes.append(record.exit.exit_code)
    assert codes == [1, 0]
    assert steps["tickets/*"] == "tickets/round"
    logged = [(row["tickets/round"], row["tickets/best_loss"]) for row in history if "tickets/round" in row]
    assert [number for number, _ in logged] == [record.round for record in story.rounds["tickets"]]
    assert [loss for _, loss in logged] == pytest.approx(losses(story.rounds["tickets"]))
    assert summary["tickets/accuracy_after"] == 75 / 200
    [table] = tmp_path.glob("wandb/offline-run-*/files/media/table/*.table.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"][:2] == ["task", "instruction"]
    assert [row[:2] for row in content["data"]] == [[r.task, r.best] for r in story.results.values()]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
