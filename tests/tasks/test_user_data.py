"""User data: file types, columns, the inferred kind, and errors with their place."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from pmpo_ray.config.tasks import ColumnsConfig, TaskConfig
from pmpo_ray.errors import ConfigError, DataError
from pmpo_ray.tasks import load_task
from pmpo_ray.types import Task

_ROWS = [{"input": f"what is {n} and {n}?", "target": f"together they make {2 * n}"} for n in range(12)]


def _lines(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _load(path: Path, **settings: object) -> Task:
    return load_task(TaskConfig.model_validate({"name": "own", "path": str(path), **settings}), None, seed=0)


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.name == "lines.json":
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps({"examples": rows} if path.name == "bbh.json" else rows), encoding="utf-8")
    else:
        path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "bbh.json", "lines.json", "a.csv", "a.parquet"])
def test_every_file_type_gives_the_same_task(name: str, tmp_path: Path) -> None:
    task = _load(_write(tmp_path / name, _ROWS))
    assert task == _load(_write(tmp_path / "reference.jsonl", _ROWS))
    assert [(example.input, example.target) for example in task.examples] == [
        (row["input"], row["target"]) for row in _ROWS
    ]
    assert task.kind == "text"
    assert not any(example.negatives for example in task.examples)  # made only where they are needed
    assert task.instruction
    assert task.description


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"q": str(n), "a": f"yes {n}", "no": [f"no {n}", 7], "r": n / 2} for n in range(4)]
    columns = ColumnsConfig(input="q", target="a", negatives="no", weight="r")
    task = _load(_lines(tmp_path / "a.jsonl", rows), columns=columns)
    assert task.kind == "pairs"
    assert [example.negatives for example in task.examples] == [(f"no {n}", "7") for n in range(4)]
    assert [example.weight for example in task.examples] == [0.0, 0.5, 1.0, 1.5]


def test_negatives_in_a_csv_are_a_json_list_or_one_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'input,target,bad\na,good,"[""b"", ""c""]"\nb,good,[sic] bad\nc,good,bad\n', encoding="utf-8"
    )
    task = _load(path, columns={"negatives": "bad"})
    assert [example.negatives for example in task.examples] == [("b", "c"), ("[sic] bad",), ("bad",)]


def test_numbers_and_truth_values_become_text(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"input": 1, "target": True}, {"input": 2.5, "target": False}]
    task = _load(_lines(tmp_path / "a.jsonl", rows))
    assert [(example.input, example.target) for example in task.examples] == [
        ("1", "true"),
        ("2.5", "false"),
    ]


def test_a_closed_set_of_targets_is_a_label_set(tmp_path: Path) -> None:
    rows = [{"input": str(n), "target": ("no", "yes")[n % 2]} for n in range(6)]
    task = _load(_lines(tmp_path / "a.jsonl", rows))
    assert (task.kind, task.labels) == ("labels", ("no", "yes"))
    assert "no, yes" in task.instruction
    assert task.examples[0].negatives == ("yes",)
    assert _load(_lines(tmp_path / "b.jsonl", rows[:4])).kind == "text"  # two of each are too few to tell


def test_many_labels_are_not_all_in_the_instruction(tmp_path: Path) -> None:
    rows = [{"input": str(n), "target": f"a kind of message {n % 150}"} for n in range(600)]
    task = _load(_lines(tmp_path / "a.jsonl", rows))
    assert len(task.labels) == 150
    assert "one of 150 labels, such as a kind of message 0, " in task.instruction
    assert len(task.instruction) < 1000


def test_options_in_the_inputs_are_recognised_before_labels(tmp_path: Path) -> None:
    rows = [
        {"input": f"{n}?\nOptions:\n(A) a\n(B) b" + "\n(C) c" * (n % 2), "target": "(A)"} for n in range(9)
    ] + [{"input": "9?", "target": "(C)"}]
    task = _load(_lines(tmp_path / "a.jsonl", rows))
    assert task.kind == "options"
    assert task.examples[0].negatives == ("(B)",)
    assert task.examples[1].negatives == ("(B)", "(C)")
    assert task.examples[9].negatives == ("(A)",)  # lists no options: the task's letters stand in


def test_given_labels_decide_and_are_checked(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"input": str(n), "target": "bbba"[n]} for n in range(4)])
    task = _load(path, labels=["b", "a", "c"])
    assert (task.kind, task.labels) == ("labels", ("b", "a", "c"))
    assert task.examples[0].negatives == ("a", "c")
    with pytest.raises(DataError, match=r"a\.jsonl line 1: target 'b' is none of the labels a, c"):
        _load(path, labels=["a", "c"])
    for labels in (["b"], ["b", "B "], ["b", " "]):
        with pytest.raises(ConfigError, match=r"^task 'own': labels must be two or more different"):
            _load(path, labels=labels)


def test_labels_may_have_meanings(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"input": str(n), "target": "bbba"[n]} for n in range(4)])
    task = _load(path, labels={"b": "an even\nnumber.", "a": "an odd one"})
    assert (task.labels, task.meanings) == (("b", "a"), ("an even number", "an odd one"))
    assert task.description.endswith("The output is one of these labels: b (an even number), a (an odd one).")
    assert task.instruction == "Read the input and answer with exactly one of these labels: b, a."
    for blank in (" ", None, ["even"]):
        with pytest.raises(ValidationError, match="'b' should have a meaning; give every label one"):
            _load(path, labels={"b": blank, "a": "an odd one"})
    with pytest.raises(ValidationError, match="should be a list of texts, or a mapping from each"):
        _load(path, labels=[1, 2])


def test_the_first_of_several_instructions_is_the_start(tmp_path: Path) -> None:
    path = _lines(tmp_path / "a.jsonl", [{"input": str(n), "target": "ab"[n % 2]} for n in range(8)])
    task = _load(path, instruction=["Sort it.", "Name it.", "Say it."])
    assert (task.instruction, task.starts) == ("Sort it.", ("Name it.", "Say it."))
    assert task.instructions == ("Sort it.", "Name it.", "Say it.")
    assert _load(path, instruction="Sort it.").instructions == ("Sort it.",)


def test_a_test_file_becomes_the_test_part(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", _ROWS)
    task = _load(path, test_path=str(_write(tmp_path / "test.csv", _ROWS[:2])))
    assert [example.input for example in task.test_examples] == [row["input"] for row in _ROWS[:2]]
    ids = [example.id for example in (*task.examples, *task.test_examples)]
    assert len(set(ids)) == len(ids)


def test_relative_paths_start_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "a.jsonl", _ROWS)
    monkeypatch.chdir(tmp_path)
    assert len(_load(Path("a.jsonl")).examples) == len(_ROWS)


_GOOD = '{"input": "a", "target": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", _GOOD + "{oops\n", "a.jsonl line 2: malformed JSON"),
        ("a.jsonl", _GOOD + "\n[1, 2]\n", "a.jsonl line 3: is a list, not an object"),
        (
            "a.jsonl",
            '{"question": "a", "target": "b"}\n',
            "no column 'input', only question, target; set",
        ),
        ("a.jsonl", _GOOD + '{"input": " ", "target": "b"}\n', "a.jsonl line 2: column 'input' is empty"),
        ("a.jsonl", '{"input": "a", "target": null}\n', "a.jsonl line 1: column 'target' is empty"),
        (
            "a.jsonl",
            '{"input": "a", "target": {"x": 1}}\n',
            "line 1: column 'target' is a dict; use text",
        ),
        (
            "a.jsonl",
            '{"input": "a", "target": "\\ud800"}\n',
            "line 1: column 'target' has a lone surrogate",
        ),
        ("a.jsonl", "\n", "a.jsonl: has no rows"),
        ("a.jsonl", "[" * 100_000, "a.jsonl line 1: malformed JSON"),
        ("a.json", '[{"input": "a"},\n oops]', "a.json line 2: malformed JSON"),
        ("a.json", '{"input": "a", "target": "b"}', "a.json: has no list of rows"),
        ("a.json", '[{"input": "a", "target": "b"}, 3]', "a.json row 2: is a int, not an object"),
        ("a.csv", 'input,target\n"a\nb",c\nd,e,f\n', "a.csv line 4: does not have the 2 fields"),
        ("a.csv", 'input,target\na,b\nc,"d\n', "a.csv line 3: malformed CSV"),
        ("a.csv", "input,target\n", "a.csv: has no rows"),
        (
            "a.csv",
            "question,target\na,b\n",
            "a.csv line 1: there is no column 'input', only question, target",
        ),
        ("a.parquet", "no parquet at all", "a.parquet: is not a readable Parquet file"),
        ("a.txt", "a b", "a.txt: unknown file type '.txt'; use a file that ends in one of .csv, .tsv, .json"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        _load(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("weight", [1e300, -1e7, "1e300", 1e-300, 5e-324])
def test_a_weight_is_of_a_magnitude_that_a_mean_can_hold(weight: object, tmp_path: Path) -> None:
    rows = [{"input": "a", "target": "b", "w": 1}, {"input": "c", "target": "d", "w": weight}]
    with pytest.raises(
        DataError, match=r"a\.jsonl line 2: column 'w' is .* use a weight from 1e-06 to 1e\+06, or 0"
    ):
        _load(_lines(tmp_path / "a.jsonl", rows), columns={"weight": "w"})


@pytest.mark.parametrize("weight", ["heavy", None, True, float("nan"), float("inf"), "-inf", [1], 10**400])
def test_a_weight_is_a_finite_number(weight: object, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"input": "a", "target": "b", "w": "1.5"},
        {"input": "c", "target": "d", "w": weight},
    ]
    with pytest.raises(DataError, match=r"a\.jsonl line 2: column 'w' is .* use a finite number as weight"):
        _load(_lines(tmp_path / "a.jsonl", rows), columns={"weight": "w"})


@pytest.mark.parametrize("negatives", [None, "", [], "b", ["B "], "[]"])
def test_a_pair_without_a_usable_negative_is_one_line(negatives: object, tmp_path: Path) -> None:
    rows = [{"input": "a", "target": "b", "no": negatives}]
    with pytest.raises(DataError, match=r"a\.jsonl line 1: no negative that differs from the target"):
        _load(_lines(tmp_path / "a.jsonl", rows), columns={"negatives": "no"})
