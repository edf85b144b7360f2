"""Exports loaded by the tools they are for.

Tests of a tool that is not installed are skipped. promptfoo is found through PMPO_PROMPTFOO (the path of its
command) or on PATH.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pmpo_ray.exporting import export
from pmpo_ray.history.run_history import RunHistory
from pmpo_ray.types import Layout
from tests.exports import HOSTILE, run_with

pytestmark = pytest.mark.slow

ASKED = "Where is my parcel? {input} {{ input }}"
LAYOUTS: tuple[Layout, ...] = ("system", "user", "plain")


def expected(instruction: str, layout: Layout, asked: str = ASKED) -> list[tuple[str, str]] | str:
    """The prompt without shots: (role, text) for each message, or the running text."""
    if layout == "plain":
        return f"{instruction}\n\nInput: {asked}\nOutput:"
    if layout == "system":
        return [("system", instruction), ("user", asked)]
    return [("user", f"{instruction}\n\n{asked}")]


@pytest.mark.parametrize("instruction", HOSTILE)
def test_dspy_loads_the_instruction(tmp_path: Path, instruction: str) -> None:
    dspy = pytest.importorskip("dspy")
    history = run_with(tmp_path / "run", instruction)
    path = tmp_path / "state.json"
    path.write_text(export(history, None, "dspy")["tickets.json"], encoding="utf-8")
    program = dspy.Predict("input -> answer")
    program.load(path)
    assert program.signature.instructions == inspect.cleandoc(instruction)
    assert program.demos == []


def test_dspy_shows_instruction_and_shots_and_saves_the_same_state(tmp_path: Path) -> None:
    dspy = pytest.importorskip("dspy")
    history = run_with(tmp_path / "run", "Name the topic.", split={"shots": 2})
    written = export(history, None, "dspy")["tickets.json"]
    (tmp_path / "state.json").write_text(written, encoding="utf-8")
    program = dspy.Predict("input -> answer")
    program.load(tmp_path / "state.json")
    messages = dspy.ChatAdapter().format(program.signature, program.demos, {"input": ASKED})
    assert "Name the topic." in messages[0]["content"]
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    program.save(tmp_path / "again.json")
    again, first = json.loads((tmp_path / "again.json").read_text(encoding="utf-8")), json.loads(written)
    assert {**again, "metadata": {}} == {**first, "metadata": {}}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("instruction", HOSTILE)
def test_langchain_loads_the_prompt(tmp_path: Path, instruction: str, layout: Layout) -> None:
    load = pytest.importorskip("langchain_core.load")
    history = run_with(tmp_path / "run", instruction, layout)
    prompt = load.loads(export(history, None, "langchain")["tickets.json"], allowed_objects="core")
    assert prompt.input_variables == ["input"]
    if layout == "plain":
        assert prompt.format(input=ASKED) == expected(instruction, layout)
    else:
        names = {"human": "user", "ai": "assistant"}
        messages = prompt.format_messages(input=ASKED)
        assert [(names.get(m.type, m.type), m.content) for m in messages] == expected(instruction, layout)


def test_langchain_shows_the_shots(tmp_path: Path) -> None:
    load = pytest.importorskip("langchain_core.load")
    history = run_with(tmp_path / "run", "Name {the} topic.", split={"shots": 2})
    prompt = load.loads(export(history, None, "langchain")["tickets.json"], allowed_objects="core")
    messages = prompt.format_messages(input=ASKED)
    assert [message.type for message in messages] == ["system", *["human", "ai"] * 2, "human"]
    assert messages[0].content == "Name {the} topic."


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("instruction", HOSTILE)
def test_openai_takes_the_body(tmp_path: Path, instruction: str, layout: Layout) -> None:
    body = json.loads(export(run_with(tmp_path / "run", instruction, layout), None, "openai")["tickets.json"])
    check_body(body, "/v1/completions" if layout == "plain" else "/v1/chat/completions")
    if layout == "plain":
        assert filled(body["prompt"]) == expected(instruction, layout)
    else:
        *earlier, last = body["messages"]
        shown = [(message["role"], message["content"]) for message in earlier]
        assert [*shown, (last["role"], filled(last["content"]))] == expected(instruction, layout)


def filled(text: str) -> str:
    """A text with the input in place of its last placeholder."""
    before, placeholder, after = text.rpartition("{{input}}")
    assert placeholder
    return before + ASKED + after


def check_body(body: Mapping[str, Any], url: str) -> None:
    """The openai package's own types take every field of the body."""
    pytest.importorskip("openai")
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Chat
    from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as Completion
    from pydantic import TypeAdapter

    kind: Any = Completion if url == "/v1/completions" else Chat
    checked = TypeAdapter(kind).validate_python(body)
    assert checked.keys() == body.keys()


def test_openai_takes_the_lines_of_a_batch(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "input,target\n" + "".join(f"is {n} even?,{'no' if n % 2 else 'yes'}\n" for n in range(40))
    )
    history = run_with(tmp_path / "run", "Name it.", more=[{"name": "own", "path": str(own)}])
    lines = export(history, None, "openai")["requests.jsonl"].splitlines()
    requests = [json.loads(line) for line in lines]
    assert [request["custom_id"] for request in requests] == ["tickets", "own"]
    for request in requests:
        assert request["method"] == "POST"
        check_body(request["body"], request["url"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("instruction", HOSTILE)
def test_lm_eval_renders_the_prompt(tmp_path: Path, instruction: str, layout: Layout) -> None:
    pytest.importorskip("lm_eval")
    folder = lm_eval_folder(tmp_path, instruction, layout)
    task = lm_eval_task(folder, "pmpo_tickets")
    doc = task.test_docs()[3]
    assert rendered(task, doc, layout) == expected(instruction, layout, doc["input"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lm_eval_shows_the_shots_and_scores_choices(tmp_path: Path, layout: Layout) -> None:
    pytest.importorskip("lm_eval")
    folder = lm_eval_folder(tmp_path, "Name {{the}} topic.", layout, split={"shots": 2})
    moved = folder.rename(tmp_path / "moved")
    task = lm_eval_task(moved, "pmpo_tickets")
    doc = task.test_docs()[0]
    shown = rendered(task, doc, layout)
    if isinstance(shown, str):
        assert shown.startswith("Name {{the}} topic.\n\nInput: ")
        assert shown.count("\nOutput: ") == 2
        assert shown.endswith(f"\n\nInput: {doc['input']}\nOutput:")
    else:
        *_, first, answer, _, _, last = shown
        assert [role for role, _ in shown if role != "system"] == ["user", "assistant"] * 2 + ["user"]
        assert first[1].startswith("Name {{the}} topic.\n\n") == (layout == "user")
        assert answer[1] in doc["choices"]
        assert last == ("user", doc["input"])
    requests = task.construct_requests(doc, "context", apply_chat_template=layout != "plain")
    blank = " " if layout == "plain" else ""
    assert [request.args[1] for request in requests] == [blank + choice for choice in doc["choices"]]
    right = [(0.0 if n == doc["answer"] else -1.0, False) for n in range(len(requests))]
    assert task.process_results(doc, right) == {"acc": 1.0}


def test_lm_eval_reads_numbers_out_of_replies(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    own = tmp_path / "sums.jsonl"
    rows = ({"input": f"What is {n} + 1000?", "target": f"We add. #### {n + 1000:,}"} for n in range(40))
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = lm_eval_folder(tmp_path, "Work it out.", "system", task={"name": "sums", "path": str(own)})
    task = lm_eval_task(folder, "pmpo_sums")
    doc = task.test_docs()[0]
    assert task.process_results(doc, [str(doc["answer"])]) == {"exact_match": 1.0}
    assert task.doc_to_target(doc).isdigit()
    request = task.construct_requests(doc, "context", doc_id=0, metadata=("sums", 0, 1))
    request.resps = [f"First 7, so the answer is {int(doc['answer']):,}."]
    (found,) = task._filters
    found.apply([request])
    assert task.process_results(doc, [request.filtered_resps["last_number"]]) == {"exact_match": 1.0}


def lm_eval_folder(tmp_path: Path, instruction: str, layout: Layout, **settings: Any) -> Path:
    files = export(run_with(tmp_path / "run", instruction, layout, **settings), None, "lm-eval")
    folder = tmp_path / "exported"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    return folder


def lm_eval_task(folder: Path, name: str) -> Any:
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    assert name in manager.all_tasks
    return manager.load([name])["tasks"][name]


def rendered(task: Any, doc: Mapping[str, Any], layout: Layout) -> list[tuple[str, str]] | str:
    """The context of a row as lm-eval builds it, as separate messages."""
    if layout == "plain":
        return str(task.fewshot_context(doc, task.config.num_fewshot))

    def as_json(messages: Sequence[Mapping[str, str]], **_: object) -> str:
        return json.dumps(messages)

    text = task.fewshot_context(
        doc,
        task.config.num_fewshot,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=as_json,
    )
    return [(message["role"], message["content"]) for message in json.loads(text)]


@pytest.fixture(scope="module")
def promptfoo() -> str:
    command = os.environ.get("PMPO_PROMPTFOO") or shutil.which("promptfoo")
    if command is None:
        pytest.skip("promptfoo is not installed: set PMPO_PROMPTFOO to its command, or put it on PATH")
    return command


@pytest.mark.parametrize("layout", LAYOUTS)
def test_promptfoo_renders_the_prompts(tmp_path: Path, promptfoo: str, layout: Layout) -> None:
    files = []
    for number, instruction in enumerate(HOSTILE):
        history = run_with(tmp_path / f"run{number}", instruction, layout)
        files.append(promptfoo_file(history, tmp_path / f"{number}.yaml"))
    asked = history.task().examples[0].input
    assert echoed(promptfoo, tmp_path, files) == [expected(text, layout, asked) for text in HOSTILE]


@pytest.mark.parametrize(("instruction", "layout"), [(HOSTILE[1], "system"), ("exec:touch ran", "plain")])
def test_promptfoo_finds_a_file_valid(
    tmp_path: Path, promptfoo: str, instruction: str, layout: Layout
) -> None:
    history = run_with(tmp_path / "run", instruction, layout, split={"shots": 2})
    path = promptfoo_file(history, tmp_path / "promptfooconfig.yaml")
    done = run_promptfoo(promptfoo, tmp_path, "validate", "-c", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    (shown,) = echoed(promptfoo, tmp_path, [path])
    if isinstance(shown, str):
        assert shown.startswith(f"{instruction}\n\nInput: ")
        assert shown.count("\nOutput: ") == 2
    else:
        assert [role for role, _ in shown] == ["system", *["user", "assistant"] * 2, "user"]
        assert shown[0] == ("system", instruction)


def promptfoo_file(history: RunHistory, path: Path) -> Path:
    path.write_bytes(export(history, None, "promptfoo")["tickets.yaml"].encode())
    return path


def echoed(promptfoo: str, folder: Path, files: Sequence[Path]) -> list[list[tuple[str, str]] | str]:
    """The prompt of each file that promptfoo sends to a model for the first example."""
    configs = [argument for path in files for argument in ("-c", str(path))]
    out = folder / "results.json"
    options = ("--providers", "echo", "--filter-first-n", "1", "--no-cache", "--no-table", "-o", str(out))
    done = run_promptfoo(promptfoo, folder, "eval", *configs, *options)
    assert out.exists(), done.stdout + done.stderr
    results = json.loads(out.read_text(encoding="utf-8"))["results"]["results"]
    results.sort(key=lambda result: result["promptIdx"])
    return [_sent(result["response"]["raw"]) for result in results]


def _sent(output: str) -> list[tuple[str, str]] | str:
    if output.endswith("\nOutput:"):
        return output
    return [(message["role"], message["content"]) for message in json.loads(output)]


def run_promptfoo(command: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    quiet = ("TELEMETRY", "UPDATE", "REMOTE_GENERATION", "SHARING")
    environ = {
        **os.environ,
        **{f"PROMPTFOO_DISABLE_{name}": "1" for name in quiet},
        "PROMPTFOO_CONFIG_DIR": str(folder / "settings"),
        "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
    }
    return subprocess.run(
        [command, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
