"""Data passed to `optimize` in Python (tables, lists of rows, tasks), and the run folder that keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from pmpo_ray import Example, RunConfig, Task, evaluate, load_run, optimize
from pmpo_ray.config.loading import dump_config, load_config
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.errors import ConfigError, DataError, RunFolderError
from pmpo_ray.outcomes import Progress
from pmpo_ray.prepared_task import prepare_tasks, tasks_from_python
from pmpo_ray.sources import TaskKeywords, requested
from pmpo_ray.store import RunStore
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.python_data import task_of_rows
from tests.run_folders import ENGINE

ROWS = [{"question": f"what is {n} and {n}?", "answer": f"together they make {2 * n}"} for n in range(20)]
COLUMNS = {"input": "question", "target": "answer"}
TASK = Task(
    name="own task",
    kind="labels",
    description="Sort it.",
    instruction="Say yes or no.",
    examples=tuple(
        Example(f"e{n}", f"input {n}", "yes" if n % 2 else "no", ("maybe",), 0.5) for n in range(20)
    ),
    labels=("yes", "no"),
    test_examples=(Example("t1", "another input", "yes", ("no", "maybe")),),
)


def quiet(progress: Progress) -> None:
    """An observer that ignores progress."""


def requested_by(
    source: Any, /, run_dir: str | None = None, **given: Any
) -> tuple[RunConfig, dict[str, Task]]:
    """The configuration and the tasks of a call of `optimize` with these arguments."""
    named = ("name", "columns", "labels", "instruction", "description")
    keywords = TaskKeywords(**{key: given.pop(key) for key in named if key in given})
    search = {key: given.pop(key) for key in ("rounds", "max_tokens", "max_seconds") if key in given}
    overrides = parse_overrides(given.pop("overrides", ()))
    return requested(source, keywords, search, settings=given, overrides=overrides, run_dir=run_dir)


def rows_as(kind: str, rows: Iterable[Mapping[str, object]]) -> Any:
    listed = [dict(row) for row in rows]
    if kind == "frame":
        return pd.DataFrame(listed)
    return datasets.Dataset.from_list(listed) if kind == "dataset" else listed


@pytest.mark.parametrize("kind", ["list", "frame", "dataset"])
def test_rows_in_python_are_the_task_that_the_same_file_is(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    config, given = requested_by(rows_as(kind, ROWS), columns=COLUMNS, instruction="Add them.", seed=3)
    [task] = config.tasks
    assert task.model_dump(exclude_defaults=True) == {
        "name": "mine",
        "given": True,
        "columns": COLUMNS,
        "instruction": "Add them.",
    }
    same = TaskConfig.model_validate({**task.model_dump(), "given": False, "path": str(file)})
    assert given["mine"] == load_task(same, None, 3)
    assert given["mine"].instruction == "Add them."


@pytest.mark.parametrize("kind", ["list", "frame", "dataset"])
def test_negatives_weights_and_labels_are_columns_as_in_files(kind: str) -> None:
    rows = [{"input": f"ask {n}", "target": "good", "worse": ["bad", "evil"], "r": n} for n in range(1, 9)]
    _, given = requested_by(rows_as(kind, rows), columns={"negatives": "worse", "weight": "r"}, name="pairs")
    task = given["pairs"]
    assert task.kind == "pairs"
    assert [example.negatives for example in task.examples] == [("bad", "evil")] * 8
    assert [example.weight for example in task.examples] == [float(n) for n in range(1, 9)]
    plain = rows_as(kind, [{"input": f"ask {n}", "target": ("yes", "no")[n % 2]} for n in range(5)])
    _, given = requested_by(plain, labels=["no", "yes"])
    assert given["mine"].labels == ("no", "yes")
    assert given["mine"].examples[0].negatives == ("no",)


def test_values_of_tables_mean_what_they_mean_in_files() -> None:
    frame = pd.DataFrame(
        {
            "input": [np.int64(3), 2.5, True],
            "target": pd.array(["a", "b", "c"], dtype="string"),
            "worse": [np.array(["x", "y"]), ("z",), "w"],
            "weight": pd.array([1, 2, 3], dtype="Int64"),
        }
    )
    columns = {"negatives": "worse", "weight": "weight"}
    task = task_of_rows(TaskConfig.model_validate({"name": "t", "given": True, "columns": columns}), frame, 0)
    assert [example.input for example in task.examples] == ["3", "2.5", "true"]
    assert [example.negatives for example in task.examples] == [("x", "y"), ("z",), ("w",)]
    assert [example.weight for example in task.examples] == [1.0, 2.0, 3.0]


def test_class_labels_of_a_data_set_come_as_their_names() -> None:
    features = datasets.Features(
        {"input": datasets.Value("string"), "target": datasets.ClassLabel(names=["n", "y"])}
    )
    table = datasets.Dataset.from_dict(
        {"input": [f"i{n}" for n in range(20)], "target": [n % 2 for n in range(20)]}, features=features
    )
    _, given = requested_by(table)
    assert given["mine"].labels == ("n", "y")


@pytest.mark.parametrize(
    ("rows", "words", "expected"),
    [
        ([], {}, r"mine: the data have no rows"),
        (
            ROWS,
            {},
            r"mine( row 1)?: there is no column 'input', only question, answer; set columns\.input",
        ),
        (
            [*ROWS, {"question": "x", "answer": " "}],
            {"columns": COLUMNS},
            r"mine row 21: column 'answer' is empty",
        ),
        (
            [*ROWS, {"question": "x", "answer": float("nan")}],
            {"columns": COLUMNS, "name": "sums"},
            r"sums row 21: column 'answer' is empty",
        ),
        ([{"input": {}, "target": "x"}], {}, r"mine row 1: column 'input' is a dict"),
    ],
)
@pytest.mark.parametrize("kind", ["list", "frame"])
def test_an_error_in_a_row_names_its_place(
    kind: str, rows: list[dict[str, object]], words: dict[str, Any], expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        requested_by(rows_as(kind, rows), **words)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_what_a_table_calls_missing_is_missing(missing: object) -> None:
    frame = pd.DataFrame({"input": pd.Series(["a", missing], dtype=object), "target": ["x", "y"]})
    with pytest.raises(DataError, match="mine row 2: column 'input' is empty"):
        requested_by(frame)
    with pytest.raises(DataError, match="mine row 2: no negative that differs"):
        requested_by(frame, columns={"input": "target", "negatives": "input"})


def test_a_task_is_taken_whole() -> None:
    config, given = requested_by(TASK, rounds=2)
    assert config.tasks == (TaskConfig(name="own task", given=True),)
    assert config.search.rounds == 2
    assert given == {"own task": TASK}
    [prepared] = prepare_tasks(config, given)
    assert prepared.task == TASK
    assert prepared.split.test == TASK.test_examples


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"examples": ()}, "has no name, no examples or no instruction"),
        ({"kind": "label"}, "kind is 'label'; use one of options, labels, text, pairs"),
        ({"labels": ()}, "a task has labels if and only if"),
        ({"meanings": ("is so",)}, "1 meanings for 2 labels; give each label one"),
        ({"starts": ("Sort it.", " ")}, "instruction and starts: text 3 of 3 should hold words; remove it"),
        ({"starts": ("say YES or no.",)}, "instruction and starts: texts 1 and 2 of 2 are the same but for"),
        ({"labels": ("yes", "maybe")}, "example 'e0': its target 'no' is none of the task's labels"),
        ({"test_examples": TASK.examples[:1]}, "two examples have the id 'e0'"),
        (
            {"examples": (Example("a", " ", "yes"),)},
            "example 'a': its id, input, target and negatives must be",
        ),
        ({"examples": (Example("a", "\ud83d", "yes"),)}, "has a lone surrogate"),
        (
            {"kind": "pairs", "labels": (), "examples": (Example("a", "x", "y"),)},
            "example 'a': has no negatives",
        ),
    ],
)
def test_a_task_that_cannot_be_used_is_refused(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        requested_by(replace(TASK, **changed))


def test_instructions_that_are_set_replace_all_of_a_task(kept: RunStore) -> None:
    several = replace(TASK, starts=("Decide.",))
    assert prepare_tasks(*requested_by(several))[0].task.instructions == ("Say yes or no.", "Decide.")
    for given in (["Go.", "Do it."], ("Go.", "Do it.")):
        config, data = requested_by(several, instruction=given)
        assert config.tasks[0].instructions == ("Go.", "Do it.")
        [task] = tasks_from_python(config, kept.location, data).values()
        assert task == replace(TASK, instruction="Go.", starts=("Do it.",))
    config, _ = requested_by("tickets", instruction=["Sort it.", "Name it."])
    assert prepare_tasks(config)[0].task.instructions == ("Sort it.", "Name it.")
    with pytest.raises(ConfigError, match=r"tasks\.0\.instruction: text 2 of 2 should hold words"):
        requested_by("tickets", instruction=["Sort it.", ""])


def test_names_files_and_tasks_may_be_the_first_argument(tmp_path: Path) -> None:
    config, given = requested_by("bbh/navigate", instruction="Navigate.", seed=4, max_seconds=60.0)
    assert config.tasks == (TaskConfig(name="bbh/navigate", instruction="Navigate."),)
    assert (config.seed, config.search.max_seconds, given) == (4, 60.0, {})
    config, given = requested_by(["tickets", "bbh/snarks", TASK])
    assert [task.name for task in config.tasks] == ["tickets", "bbh/snarks", "own task"]
    assert list(given) == ["own task"]
    for path in ("data/rows.csv", Path("data/rows.csv")):
        assert requested_by(path)[0].tasks == (TaskConfig(name="rows", path="data/rows.csv"),)
    assert requested_by("rows.parquet", name="own")[0].tasks == (TaskConfig(name="own", path="rows.parquet"),)


def test_configurations_are_taken_as_before(tmp_path: Path) -> None:
    config = RunConfig(seed=7)
    assert requested_by(config) == (config, {})
    file, other = tmp_path / "run.yaml", tmp_path / "run.conf"
    for path in (file, other):
        path.write_text("seed: 5\n", encoding="utf-8")
    assert requested_by(str(file), overrides=["search.rounds=3"])[0] == load_config(
        str(file), parse_overrides(["search.rounds=3"])
    )
    assert requested_by(other, rounds=4)[0].search.rounds == 4
    assert requested_by(None, tasks=["bbh/snarks"], search={"beta": 2.0}, rounds=4)[0].search.rounds == 4
    RunStore.create(str(tmp_path / "run"), dump_config(config))
    assert requested_by(None, run_dir=str(tmp_path / "run"), rounds=9)[0].search.rounds == 9


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        (RunConfig(), {"columns": {}}, "columns describes a task in the first argument"),
        (None, {"instruction": "x"}, "instruction describes a task in the first argument"),
        (RunConfig(), {"rounds": 3}, "used as it is"),
        (RunConfig(), {"seed": 3}, "not both"),
        ("tickets", {"overrides": ["seed=1"]}, "overrides change a YAML file"),
        ("tickets", {"tasks": ["tickets"]}, "as the first argument or as the keyword"),
        ("tickets", {"rounds": 3, "search": {"rounds": 4}}, "rounds is given twice"),
        (["tickets", TASK], {"name": "x"}, "name describes one task, but there are 2"),
        (3, {}, "cannot optimise for a int"),
        ([3], {}, "a int is not a task"),
        (datasets.DatasetDict(), {}, "cannot optimise for a DatasetDict"),
    ],
)
def test_arguments_that_do_not_go_together_are_a_mistake_in_the_script(
    source: object, given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(TypeError, match=expected):
        requested_by(source, **given)


def test_given_data_leave_no_room_for_others() -> None:
    with pytest.raises(ConfigError, match="leave out path, hub, function and test_path"):
        requested_by(None, tasks=[{"name": "x", "given": True, "path": "a.csv"}])


@pytest.fixture
def kept(tmp_path: Path) -> RunStore:
    return RunStore.create(str(tmp_path / "run"), "seed: 0\n")


def test_a_task_comes_back_from_the_run_folder_as_it_was(kept: RunStore) -> None:
    odd = replace(TASK, name="Odd/Name", instruction="\x1a \ud83d", labels=("yes", "no", "\udc00"))
    rich = replace(TASK, starts=("Decide.", "\ud83d \x1a"), meanings=("it is so", "it is not"))
    for task in (TASK, odd, rich):
        kept.write_task(task)
        assert kept.read_task(task.name) == task
    assert kept.read_task("never") is None


def test_a_damaged_task_is_named(kept: RunStore) -> None:
    kept.write_task(TASK)
    [file] = Path(kept.location).glob("tasks/*/data.parquet")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunFolderError, match=r"data\.parquet.* is damaged"):
        kept.read_task(TASK.name)


def test_a_task_comes_back_from_object_storage(s3: str) -> None:
    store = RunStore.create(f"s3://runs/given?{s3}", "seed: 0\n")
    store.write_task(TASK)
    config, _ = requested_by(TASK)
    assert tasks_from_python(config, store.location, {}) == {TASK.name: TASK}


def test_passed_data_win_over_kept_data_and_missing_data_are_reported(kept: RunStore, tmp_path: Path) -> None:
    config, given = requested_by(TASK, instruction="Start here.")
    with pytest.raises(DataError, match=r"task own task: its data were passed in Python and .* not keep"):
        tasks_from_python(config, kept.location, {})
    with pytest.raises(DataError, match="does not keep them"):
        tasks_from_python(config, str(tmp_path / "absent"), {})
    other = replace(TASK, description="Another.")
    kept.write_task(other)
    assert tasks_from_python(config, kept.location, given)[TASK.name] == replace(
        TASK, instruction="Start here."
    )
    assert tasks_from_python(config, kept.location, {})[TASK.name].description == "Another."


@pytest.mark.slow
@pytest.mark.usefixtures("running_ray")
def test_a_run_on_a_table_goes_on_and_is_evaluated_without_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": [f"input {n}" for n in range(30)], "label": ["yes", "no", "no"] * 10})
    words: dict[str, Any] = {
        "columns": {"input": "text", "target": "label"},
        "name": "sorting",
        "labels": {"yes": "it is so", "no": "it is not"},
        "instruction": ["Is it so?", "Say yes or no."],
    }
    settings: dict[str, Any] = {"scorer": ENGINE, "rewriter": ENGINE}
    folder = tmp_path / "run"
    result = optimize(frame, **words, **settings, rounds=1, run_dir=folder, observer=quiet)
    assert [task.task for task in result.tasks] == ["sorting"]
    assert load_run(folder) == result

    with pytest.raises(RunFolderError, match="task sorting: its data are not those that the run in"):
        optimize(frame.iloc[1:], **words, **settings, rounds=1, run_dir=folder, observer=quiet)
    same = optimize(frame, **words, **settings, rounds=1, run_dir=folder, observer=quiet)
    assert same == result

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pmpo_ray", "optimize", "--run-dir", str(folder), "--json"),
            *("--set", "search.rounds=2"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"][0]["rounds"] == 2
    evaluated = evaluate(result.run_dir, observer=quiet)
    assert {one.condition.task for one in evaluated.results} == {"sorting"}
    assert len(evaluated.results[0].outcomes) == 24
