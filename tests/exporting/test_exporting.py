"""The contents of exports, and the files that `pmpo export` writes; test_tools.py runs the tools."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from pyarrow import fs

from pmpo_ray.config.engines import DEFAULT_MODEL
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.loading import load_tokenizer
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import DataError, RunFolderError
from pmpo_ray.exporting import Form, export
from pmpo_ray.exporting.prompts import prompts_of
from pmpo_ray.exporting.quoting import (
    brace_quoted,
    expression_quoted,
    json_document,
    json_line,
    yaml_document,
)
from pmpo_ray.history.run_history import RunHistory, load_history
from pmpo_ray.outcomes import AnswerBias
from pmpo_ray.prepared_task import prepare_tasks
from pmpo_ray.runs.run_folder import keep_function_tasks
from pmpo_ray.store import RunStore
from pmpo_ray.text import is_hidden
from pmpo_ray.types import Example, Layout
from tests.exports import HOSTILE, run_with
from tests.run_folders import write_run

ROOT = Path(__file__).parents[2]
STEERING = "\x1b\x7f\x9b\u061c\u200e\u200f\u2028\u2029\u202e\u2066\ufeff"
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",))),
    st.text(alphabet="{}%#-+ \n\r\t'\"\\ax:|>&*!" + STEERING),
    st.sampled_from(HOSTILE),
)


@given(TEXTS)
def test_quoted_texts_render_to_themselves(text: str) -> None:
    jinja = Environment(keep_trailing_newline=True, autoescape=False)  # noqa: S701 (as lm-eval's)
    assert jinja.from_string(expression_quoted(text)).render() == text
    assert brace_quoted(text).format() == text
    # Nunjucks stops at the end of a comment that never began.
    beside = re.sub(r"\{\{ '(?:\{|#|\\r)' \}\}", " ", expression_quoted(text))
    assert "{" not in beside
    assert "#}" not in beside


@given(TEXTS, TEXTS)
def test_documents_read_back_and_hold_nothing_that_steers(first: str, second: str) -> None:
    value = {"text": first, "list": [second, {"text": first}], first: None, "numbers": [0, -1.5, True]}
    for document in (json_document(value), json_line(value)):
        assert json.loads(document) == value
        assert not set(document) & set(STEERING)
    written = yaml_document(value)
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert yaml.load(written, loader) == value  # noqa: S506 (both are safe)
    assert not set(written) & set(STEERING)


@pytest.mark.parametrize("hidden", ["\u200b", "\U000e0041", "\u202e", "\x1b"])
def test_hidden_characters_are_escaped_in_documents(hidden: str) -> None:
    """U+E0041, a tag character, is beyond UTF-16's code units: JSON and YAML escape it differently."""
    assert is_hidden(hidden)
    value = {"text": f"one{hidden} line", "lines": f"first\nsecond{hidden}\n", f"key{hidden}": [hidden]}
    for document in (json_document(value), json_line(value)):
        assert json.loads(document) == value
        assert not any(map(is_hidden, document))
    written = yaml_document(value)
    assert yaml.safe_load(written) == value
    assert not any(map(is_hidden, written))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["system", "user", "plain"])
@pytest.mark.parametrize("shots", [0, 2])
def test_the_prompt_is_the_one_that_is_scored(tmp_path: Path, layout: Layout, shots: int) -> None:
    tokenizer = load_tokenizer(resolve_model(DEFAULT_MODEL, progress=False), trust_remote_code=False)
    encoder = PromptEncoder(tokenizer, layout)
    history = run_with(tmp_path / "run", "Name the topic.", layout, split={"shots": shots})
    (prompt,) = prompts_of(history, history.tasks, shots=True)
    assert len(prompt.shots) == shots
    scored = encoder.context("Name the topic.", "Where is it?", prompt.shots)
    if layout == "plain":
        before, after = prompt.running_text()
        exported = before + "Where is it?" + after
    else:
        *earlier, last = prompt.turns()
        messages = [{"role": turn.role, "content": turn.text} for turn in earlier]
        messages.append({"role": "user", "content": last.text + "Where is it?"})
        exported = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if layout == "user":
            # This model's template puts a system turn of its own before a conversation without one.
            assert messages[0]["role"] == "user"
    assert tokenizer.decode(list(scored)) == exported


def test_json_and_yaml_tell_the_result(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluated=False)
    history = load_history(str(tmp_path / "run"))
    task = history.task()
    document = json.loads(export(history, None, "json")["instructions.json"])
    assert yaml.safe_load(export(history, None, "yaml")["instructions.yaml"]) == document
    assert document["run"] == str(tmp_path / "run")
    assert history.manifest is not None
    assert document["pmpo_ray"] == history.manifest.versions["pmpo-ray"]
    assert document["model"] == "simulated"
    (exported,) = document["tasks"]
    assert exported["instruction"] == task.best.candidate.text
    assert exported["start"] == task.start.candidate.text != exported["instruction"]
    assert (exported["loss_before"], exported["loss_after"]) == (task.start.loss, task.best.loss)
    assert exported["accuracy_before"]["value"] == 0.3
    assert exported["accuracy_after"]["low"] < exported["accuracy_after"]["value"] == 0.375
    assert exported["lineage"][0]["text"] == exported["start"]
    assert exported["lineage"][-1]["text"] == exported["instruction"]
    assert exported["finished"] is True


def test_a_run_at_work_is_exported_without_accuracies(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluated=False)
    history = load_history(str(tmp_path / "run"))
    start = replace(history.task().start, loss=math.inf)
    first = replace(history.task().records[0], candidates=(start,))
    working = replace(history.task(), result=None, records=(first,), best_id=start.candidate.id)
    unfinished = replace(history, tasks=(working,), manifest=None)
    document = json.loads(export(unfinished, None, "json")["instructions.json"])
    assert document["pmpo_ray"] is None
    (exported,) = document["tasks"]
    assert exported["finished"] is False
    assert exported["loss_after"] is None
    assert exported["accuracy_after"] is None


def own_csv(folder: Path, rows: int = 40) -> Path:
    path = folder / "own.csv"
    lines = "".join(f"is {n} even?,{'yes' if n % 2 == 0 else 'no'}\n" for n in range(rows))
    path.write_text("input,target\n" + lines)
    return path


def test_several_tasks_are_one_document_or_a_file_each(tmp_path: Path) -> None:
    more = [{"name": "Own/Task", "path": str(own_csv(tmp_path))}]
    history = run_with(tmp_path / "run", "Name it.", more=more)
    assert list(export(history, None, "json")) == ["instructions.json"]
    suffixes: dict[Form, str] = {"text": "txt", "dspy": "json", "langchain": "json", "promptfoo": "yaml"}
    for form, suffix in suffixes.items():
        ordinary, other = export(history, None, form)
        assert ordinary == f"tickets.{suffix}"
        assert other.startswith("Own__Task~")
        assert list(export(history, "tickets", form)) == [f"tickets.{suffix}"]
    assert set(export(history, "tickets", "lm-eval")) == {"tickets.yaml", "tickets.jsonl", "pmpo_rows.py"}
    assert len(export(history, None, "lm-eval")) == 5
    assert len(export(history, None, "openai")["requests.jsonl"].splitlines()) == 2
    with pytest.raises(RunFolderError, match="holds no task absent"):
        export(history, "absent", "text")


def test_an_export_calls_no_function_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "their_rows.py").write_text(
        "print('imported')\n"
        "def rows():\n"
        "    print('called')\n"
        "    return [{'input': f'number {n}', 'target': 'odd' if n % 2 else 'even'} for n in range(60)]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = {"name": "mine", "function": "their_rows:rows", "description": "Tell odd from even."}
    history = run_with(tmp_path / "run", "Even?", task=task, split={"shots": 2})
    (prepared,) = prepare_tasks(history.config)
    assert "called" in capsys.readouterr().out
    for form in ("openai", "lm-eval"):
        with pytest.raises(DataError, match=r"come from the function their_rows:rows, which no export calls"):
            export(history, None, form)  # type: ignore[arg-type]
    keep_function_tasks(history.config, RunStore.open(history.location), [prepared])
    monkeypatch.delitem(sys.modules, "their_rows")
    (body,) = export(history, None, "openai").values()
    assert prepared.split.shots[0].input in body
    assert prepared.split.test[0].input in export(history, None, "lm-eval")["mine.jsonl"]
    assert capsys.readouterr().out == ""


def test_shots_are_read_from_the_data_of_the_run(tmp_path: Path) -> None:
    task = {"name": "own", "path": str(own_csv(tmp_path))}
    history = run_with(tmp_path / "run", "Even?", task=task, split={"shots": 3})
    (prepared,) = prepare_tasks(history.config)
    body = json.loads(export(history, None, "openai")["own.json"])
    shots = [(shot.input, shot.target) for shot in prepared.split.shots]
    contents = [message["content"] for message in body["messages"]]
    assert contents == ["Even?", *(text for shot in shots for text in shot), "{{input}}"]

    own_csv(tmp_path, rows=41)
    with pytest.raises(DataError, match="data of task own have changed since the run"):
        export(history, None, "openai")
    (tmp_path / "own.csv").unlink()
    with pytest.raises(DataError, match=r"needs the data of its tasks, and .*own\.csv"):
        export(history, None, "openai")
    assert export(history, None, "text") == {"own.txt": "Even?"}


@pytest.fixture
def demonstrated(tmp_path: Path) -> RunHistory:
    """A run whose best instruction has demonstrations of its own, without its data."""
    search = {"rounds": 2, "operators": [], "masking": "off", "demonstrations": 3}
    task = {"name": "own", "path": str(own_csv(tmp_path)), "instruction": "Even?"}
    store = write_run(tmp_path / "run", evaluated=False, tasks=[task], search=search)
    manifest = store.read_manifest()
    assert manifest is not None
    assert manifest.scorer is not None
    store.write_manifest(replace(manifest, scorer=replace(manifest.scorer, layout="system")))
    (tmp_path / "own.csv").unlink()
    return load_history(str(tmp_path / "run"))


def test_demonstrations_are_read_from_the_run_folder(
    demonstrated: RunHistory, caplog: pytest.LogCaptureFixture
) -> None:
    (task,) = demonstrated.tasks
    shots = [(shot.input, shot.target) for shot in task.demonstrations]
    assert len(shots) == len(task.best.candidate.shots) == 3
    body = json.loads(export(demonstrated, None, "openai")["own.json"])
    contents = [message["content"] for message in body["messages"]]
    assert contents == ["Even?", *(text for shot in shots for text in shot), "{{input}}"]
    (document,) = json.loads(export(demonstrated, None, "json")["instructions.json"])["tasks"]
    assert [(shot["input"], shot["target"]) for shot in document["shots"]] == shots
    assert document["lineage"][-1]["shots"] == list(task.best.candidate.shots)
    assert "leaves out" not in caplog.text
    assert export(demonstrated, None, "text") == {"own.txt": "Even?"}
    assert "--format text leaves out the demonstrations (3)" in caplog.text


def test_constants_of_calibrated_choices_are_exported_or_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = run_with(tmp_path / "run", "Even?", task={"name": "own", "path": str(own_csv(tmp_path))})
    store = RunStore.open(history.location)
    result = store.read_task_result("own")
    assert result is not None
    store.write_task_result("own", replace(result, biases=(AnswerBias("yes", -0.5),)))
    history = load_history(history.location)
    for form, name in (("json", "instructions.json"), ("yaml", "instructions.yaml")):
        [document] = yaml.safe_load(export(history, None, form)[name])["tasks"]  # type: ignore[arg-type]
        assert document["biases"] == [{"answer": "yes", "nats": -0.5}]
    assert "calibrated" not in caplog.text
    export(history, None, "openai")
    assert (
        "task own: its accuracy is that of calibrated choices, and --format openai has no place"
        in caplog.text
    )


def test_lost_demonstrations_are_named(demonstrated: RunHistory) -> None:
    (examples,) = Path(demonstrated.location).glob("tasks/*/examples.parquet")
    examples.unlink()
    history = load_history(demonstrated.location)
    with pytest.raises(DataError, match=r"examples\.parquet of task own is lost .*; restore it, or export"):
        export(history, None, "openai")
    assert export(history, None, "text") == {"own.txt": "Even?"}


def test_data_are_not_needed_without_shots(tmp_path: Path) -> None:
    history = run_with(tmp_path / "run", "Even?", task={"name": "own", "path": str(own_csv(tmp_path))})
    (tmp_path / "own.csv").unlink()
    assert json.loads(export(history, None, "openai")["own.json"])["messages"][0]["content"] == "Even?"
    with pytest.raises(DataError, match="needs the data of its tasks"):
        export(history, None, "lm-eval")


def test_variants_of_a_grid_are_tasks_of_their_own(tmp_path: Path) -> None:
    grid = {"a": {"variants": 2}, "b": {"variants": 3}}
    history = run_with(tmp_path / "run", "Name it.", split={"shots": 1}, grid=grid)
    assert list(export(history, None, "text")) == ["tickets.a.txt", "tickets.b.txt"]
    assert "tickets.b.jsonl" in export(history, "tickets.b", "lm-eval")


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    history = run_with(tmp_path / "run", "half \ud800")
    with pytest.raises(DataError, match="has a lone surrogate"):
        export(history, None, "json")


def test_promptfoo_shows_training_examples_that_it_takes_as_they_are(tmp_path: Path) -> None:
    history = run_with(tmp_path / "run", "Answer.")
    examples = (
        Example("1", "{{ env.HOME }}", "a"),
        Example("2", "file:///etc/passwd", "a"),
        Example("3", "package:x:y", "a"),
        Example("4", "plain", "{% raw %}"),
        Example("5", "cut\n", "a"),
        Example("6", "Kept: {one} brace", "short"),
        Example("7", "long answer", "x" * 81),
    )
    known = replace(history, tasks=(replace(history.task(), examples=examples),))
    shown = yaml.safe_load(export(known, None, "promptfoo")["tickets.yaml"])["tests"]
    assert [test["vars"]["input"] for test in shown] == ["Kept: {one} brace", "long answer"]
    assert [test.get("assert") for test in shown] == [[{"type": "equals", "value": "short"}], None]
    assert all(test["metadata"] == {"part": "training"} for test in shown)
    older = replace(history, tasks=(replace(history.task(), examples=()),))
    assert len(yaml.safe_load(export(older, None, "promptfoo")["tickets.yaml"])["tests"]) == 1


@pytest.mark.parametrize("instruction", ["exec:touch ran", "langfuse://x", "file:///etc/passwd", "*.txt"])
def test_promptfoo_takes_no_prompt_for_a_command_or_a_file(tmp_path: Path, instruction: str) -> None:
    # It tells by how a prompt begins, and takes one of several lines for no file.
    for layout in ("system", "plain"):
        history = run_with(tmp_path / layout, instruction, layout)
        (prompt,) = yaml.safe_load(export(history, None, "promptfoo")["tickets.yaml"])["prompts"]
        assert "\n" in prompt["raw"]
        assert prompt["raw"].startswith(("[", "{{ '' }}", "*"))


def test_promptfoo_asks_the_server_of_the_run(tmp_path: Path) -> None:
    history = run_with(tmp_path / "run", "Answer.")
    scorer = history.config.scorer
    url = "http://127.0.0.1:9/v1"
    endpoint = scorer.endpoint.model_copy(update={"url": url})
    remote = scorer.model_copy(update={"engine": "openai", "endpoint": endpoint})
    served = replace(history, config=history.config.model_copy(update={"scorer": remote}))
    (provider,) = yaml.safe_load(export(served, None, "promptfoo")["tickets.yaml"])["providers"]
    assert provider["config"]["apiBaseUrl"] == url
    (local,) = yaml.safe_load(export(history, None, "promptfoo")["tickets.yaml"])["providers"]
    assert local["id"] == "openai:chat:simulated"
    assert local["config"]["apiBaseUrl"] == "http://localhost:8000/v1"


def test_lm_eval_gets_the_test_part_of_the_run(tmp_path: Path) -> None:
    history = run_with(tmp_path / "run", "Name it.")
    (prepared,) = prepare_tasks(history.config)
    rows = [json.loads(line) for line in export(history, None, "lm-eval")["tickets.jsonl"].splitlines()]
    assert [row["input"] for row in rows] == [example.input for example in prepared.split.test]
    assert [row["choices"][row["answer"]] for row in rows] == [
        example.target for example in prepared.split.test
    ]
    assert all(sorted(row["choices"]) == sorted(prepared.task.labels) for row in rows)


def test_lm_eval_needs_a_test_part(tmp_path: Path) -> None:
    task = {"name": "own", "path": str(own_csv(tmp_path))}
    history = run_with(tmp_path / "run", "Even?", task=task, split={"train_fraction": 0.5, "validation": 20})
    with pytest.raises(DataError, match="task own has no test part"):
        export(history, None, "lm-eval")


def pmpo_export(*arguments: object, **environ: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pmpo_ray", "export", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_the_command_prints_the_instruction_exactly(tmp_path: Path) -> None:
    for number in (6, 8, 9):
        run_with(tmp_path / f"run{number}", HOSTILE[number])
        done = pmpo_export(tmp_path / f"run{number}", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == HOSTILE[number] + "\n"


@pytest.mark.slow
def test_a_terminal_is_not_steered(tmp_path: Path) -> None:
    run_with(tmp_path / "run", "red \x1b[31m and \u202e back")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pmpo_ray", "export", str(tmp_path / "run")],
            cwd=ROOT,
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
        shown = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown == "red \\x1b[31m and \\u202e back\r\n"


@pytest.mark.slow
def test_the_command_writes_a_file_or_a_folder(tmp_path: Path) -> None:
    run_with(tmp_path / "run", "Name it. ", more=[{"name": "own", "path": str(own_csv(tmp_path))}])
    file = tmp_path / "deep" / "prompt.txt"
    done = pmpo_export(tmp_path / "run", "tickets", "--output", file)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"wrote {file}\n"
    assert file.read_bytes() == b"Name it. "
    done = pmpo_export(tmp_path / "run", "--format", "lm-eval", "--output", tmp_path / "tasks")
    assert done.stderr.decode() == f"wrote 5 files in {tmp_path / 'tasks'}\n"
    assert len(list((tmp_path / "tasks").iterdir())) == 5
    done = pmpo_export(tmp_path / "run", "own", "--format", "dspy", "--output", tmp_path / "tasks")
    assert (tmp_path / "tasks" / "own.json").is_file()


@pytest.mark.slow
def test_bad_calls_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    run_with(tmp_path / "run", "Name it.", more=[{"name": "own", "path": str(own_csv(tmp_path))}])
    (tmp_path / "file").touch()
    for arguments, expected in (
        ((), "--format text gives 2 files here; name a folder for them with --output, or one task after the"),
        (("own", "--format", "lm-eval"), "--format lm-eval gives 3 files here; name a folder for them with"),
        (("third",), "holds no task third; name one of tickets, own"),
        (("own", "--output", tmp_path / "file" / "x"), "cannot write"),
        (("--output", tmp_path / "file"), "cannot write"),
        (("--format", "docx"), "'docx' is not one of"),
    ):
        done = pmpo_export(tmp_path / "run", *arguments)
        lines = done.stderr.decode().splitlines()
        assert (done.returncode, done.stdout, len(lines)) == (2, b"", 1), done.stderr
        assert lines[0].startswith("error: ")
        assert expected in lines[0]
    assert pmpo_export(tmp_path / "absent").stderr.startswith(b"error: ")


@pytest.mark.slow
def test_a_run_in_object_storage_is_exported(tmp_path: Path, s3: str) -> None:
    run_with(tmp_path / "run", "Name it.")
    location = f"s3://runs/exported?{s3}"
    filesystem, base = fs.FileSystem.from_uri(location)
    fs.copy_files(str(tmp_path / "run"), base, fs.LocalFileSystem(), filesystem)
    done = pmpo_export(location)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Name it.\n", b"")
