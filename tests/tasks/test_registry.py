"""Registered tasks: their list, loading from a data folder, and the hub's errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks import TaskListing, list_tasks, load_task
from pmpo_ray.tasks.bbh import DESCRIPTIONS
from pmpo_ray.tasks.negatives import with_hard_negatives
from pmpo_ray.types import Task


@pytest.fixture(scope="module")
def tasks(data_dir: Path) -> dict[str, Task]:
    """Every registered task, loaded once."""
    return {
        listing.task: load_task(TaskConfig(name=listing.task), str(data_dir), seed=0)
        for listing in list_tasks(None)
    }


def _load(name: str, data_dir: Path | None = None) -> Task:
    return load_task(TaskConfig(name=name), None if data_dir is None else str(data_dir), seed=0)


def test_all_registered_names_are_listed_with_and_without_files(data_dir: Path, tmp_path: Path) -> None:
    published = list_tasks(None)
    counted = list_tasks(str(data_dir))
    others = {"gsm8k", "aqua", "alpaca_eval", "sst2", "subj", "trec"}
    names = {"tickets", *others, *(f"bbh/{subtask}" for subtask in DESCRIPTIONS)}
    assert len(names) == 34
    assert {listing.task for listing in published} == {listing.task for listing in counted} == names
    assert sum(listing.rows for listing in counted if listing.task.startswith("bbh/")) == 6511
    assert [x for x in published if x.task.startswith("bbh/")] == [
        x for x in counted if x.task.startswith("bbh/")
    ]
    assert [listing.task for listing in list_tasks(str(tmp_path))] == ["tickets"]
    with pytest.raises(DataError, match=r"no such folder; set data_dir"):
        list_tasks(str(tmp_path / "absent"))


@pytest.mark.slow
def test_a_listing_counts_what_loading_gives(tasks: dict[str, Task], data_dir: Path) -> None:
    for listing in list_tasks(str(data_dir)):
        task = tasks[listing.task]
        assert listing == TaskListing(task.name, len(task.examples), task.kind)
        everything = (*task.examples, *task.test_examples)
        assert len({example.id for example in everything}) == len(everything)
        # Free text gets negatives where something compares answers.
        assert all(example.negatives for example in with_hard_negatives(task, everything, 0))
        assert bool(task.labels) == (task.kind == "labels")
        assert {example.target for example in everything} <= set(task.labels) or not task.labels


def test_every_task_has_a_description_of_its_own_and_an_instruction(tasks: dict[str, Task]) -> None:
    assert len({task.description for task in tasks.values()}) == len(tasks)
    for task in tasks.values():
        assert len(re.findall(r"[.!?)] |[.:]$|\.\"?$", task.description)) >= 2, task.description
        assert "{" not in task.description
        if task.name.startswith("bbh/") or task.name in ("gsm8k", "aqua"):
            assert task.instruction == "Let's think step by step."
        assert all(label in task.instruction for label in task.labels) or task.name.startswith("bbh/")


def test_gsm8k_targets_are_worked_solutions_without_calculator_marks(tasks: dict[str, Task]) -> None:
    task = tasks["gsm8k"]
    assert (len(task.examples), len(task.test_examples)) == (7473, 300)
    for example in task.examples:
        assert "<<" not in example.target
        assert re.search(r"\n#### \S+$", example.target)
    assert task.examples[0].target.startswith("Natalia sold 48/2 = 24 clips in May.\n")


def test_aqua_lists_its_options_and_closes_with_the_answer_once(tasks: dict[str, Task]) -> None:
    task = tasks["aqua"]
    assert (len(task.examples), len(task.test_examples)) == (254, 100)
    for example in (*task.examples, *task.test_examples):
        assert re.search(r"\nOptions:(\n\([A-E]\) .*){5}$", example.input), example.input
        assert re.search(r"(^|\n)The answer is \([A-E]\)\.$", example.target)
        assert not re.search(r"(?i)answer\s*(is|:)?\s*[A-E]\.?\nThe answer is", example.target)
    assert "\nOptions:\n(A) 32400\n(B) 6000\n" in task.examples[0].input
    assert task.examples[0].target.endswith("= 60 * 540 = 32400\nThe answer is (A).")


def test_alpaca_eval_keeps_pairs_with_a_clear_margin(tasks: dict[str, Task], data_dir: Path) -> None:
    task = tasks["alpaca_eval"]
    rows = [json.loads(line) for line in (data_dir / "alpaca_eval" / "pairs.jsonl").open(encoding="utf-8")]
    clear = [row for row in rows if row["margin"] >= 0.5 and row["chosen"] != row["rejected"]]
    assert task.kind == "pairs"
    assert [(e.input, e.target, *e.negatives) for e in task.examples] == [
        (row["instruction"].strip(), row["chosen"].strip(), row["rejected"].strip()) for row in clear
    ]


@pytest.mark.parametrize(("name", "classes"), [("sst2", 2), ("subj", 2), ("trec", 6)])
def test_classification_tasks_are_balanced_and_bring_a_test_part(
    name: str, classes: int, tasks: dict[str, Task]
) -> None:
    task = tasks[name]
    counts = Counter(example.target for example in task.examples)
    assert set(counts) == set(task.labels)
    assert len(set(counts.values())) == 1
    assert len(task.labels) == classes
    assert task.test_examples
    assert all(len(example.negatives) == classes - 1 for example in task.examples)


def test_tickets_load_without_any_folder() -> None:
    task = _load("tickets")
    assert task.kind == "labels"
    assert len(task.labels) == 6
    assert {len(example.negatives) for example in task.examples} == {5}


def test_ids_depend_on_the_content_alone(data_dir: Path) -> None:
    config = TaskConfig(name="bbh/sports_understanding")
    first, second = (load_task(config, str(data_dir), seed) for seed in (0, 1))
    ids = [example.id for example in first.examples]
    assert ids == [example.id for example in second.examples]
    assert all(re.fullmatch(r"[0-9a-f]{12}(-2)?", name) for name in ids)
    assert sum(name.endswith("-2") for name in ids) == 2  # the file holds two rows twice


def test_instruction_and_description_can_be_replaced(data_dir: Path) -> None:
    config = TaskConfig(name="bbh/navigate", instruction="Walk.", description="A walk.")
    task = load_task(config, str(data_dir), seed=0)
    assert (task.instruction, task.description) == ("Walk.", "A walk.")


def test_an_unknown_name_names_what_was_meant() -> None:
    for name, meant in (("bbh/navigat", "bbh/navigate"), ("navigate", "bbh/navigate"), ("gsm8", "gsm8k")):
        with pytest.raises(ConfigError, match=f"did you mean {meant}") as raised:
            _load(name)
        assert "`pmpo tasks`" in str(raised.value)
    with pytest.raises(ConfigError, match=r"^task 'zzzzz' is not registered; run `pmpo tasks`"):
        _load("zzzzz")


def test_settings_for_own_data_do_not_go_with_a_registered_name() -> None:
    for config in (
        TaskConfig(name="tickets", labels=("a", "b")),
        TaskConfig(name="tickets", test_path="x.jsonl"),
        TaskConfig(name="tickets", columns=ColumnsConfig(input="text")),
    ):
        with pytest.raises(ConfigError, match=r"cannot be set; remove"):
            load_task(config, None, seed=0)


def test_a_missing_or_broken_benchmark_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"navigate\.json: no such file; put it there, or remove data_dir"):
        _load("bbh/navigate", tmp_path)
    folder = tmp_path / "bbh"
    folder.mkdir()
    (folder / "navigate.json").write_text('{"examples": [{"input": "a"}]}')
    with pytest.raises(DataError, match=r"navigate\.json row 1: there is no column 'target', only input"):
        _load("bbh/navigate", tmp_path)
    (folder / "web_of_lies.json").write_text('{"examples": [{"input": "a", "target": "Maybe"}]}')
    with pytest.raises(DataError, match=r"row 1: target 'Maybe' is none of the labels Yes, No"):
        _load("bbh/web_of_lies", tmp_path)


def _in_fresh_process(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The hub client reads its settings when it is imported, so each setting needs its own process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )


_LOAD_FROM_HUB = """
import sys
from pmpo_ray.config.run import TaskConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks import load_task
for name in ("gsm8k", "bbh/navigate"):
    try:
        load_task(TaskConfig(name=name), None, seed=0)
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["unreachable", "offline"])
def test_a_hub_that_cannot_be_read_is_one_line_that_says_what_to_do(setting: str, tmp_path: Path) -> None:
    environment = {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_OFFLINE": "1"} if setting == "offline" else {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = _in_fresh_process(_LOAD_FROM_HUB, environment)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("hub data set openai/gsm8k/main[train]: ")
    assert first.endswith("check the network, or set data_dir to a folder that contains gsm8k/train.jsonl")
    assert second.endswith("set data_dir to a folder that contains bbh/navigate.json")


_LOAD_HUB_FOLDER = """
import sys
import datasets
from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import DataError
from pmpo_ray.tasks import load_task
features = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["cold", "warm"])}
)
rows = {"sentence": [f"{n} degrees" for n in range(20)], "label": [n // 10 for n in range(20)]}
datasets.Dataset.from_dict(rows, features).to_parquet(sys.argv[1] + "/train.parquet")
columns = ColumnsConfig(input="sentence", target="label")
task = load_task(TaskConfig(name="weather", hub=sys.argv[1], columns=columns), None, seed=0)
print(task.kind, task.labels, task.examples[0].target, task.examples[-1].target)
for setting in ({"hub_split": "test"}, {"columns": ColumnsConfig()}):
    config = TaskConfig.model_validate({"name": "weather", "hub": sys.argv[1], "columns": columns, **setting})
    try:
        load_task(config, None, seed=0)
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_hub_data_set_of_ones_own_loads_with_label_names(tmp_path: Path) -> None:
    folder = tmp_path / "weather"
    folder.mkdir()
    script = f"import sys; sys.argv.append({str(folder)!r})\n{_LOAD_HUB_FOLDER}"
    done = _in_fresh_process(script, {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    loaded, wrong_split, wrong_column = done.stdout.splitlines()
    assert loaded == "labels ('cold', 'warm') cold warm"
    assert wrong_split.endswith("; check the name and the network, or set path to a local file")
    assert "there is no column 'input', only sentence, label; set columns.input" in wrong_column
