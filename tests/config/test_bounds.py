"""Bounds of a configuration: no number is infinite or absurdly large, and no text takes long to read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from annotated_types import Le, Lt
from pydantic import BaseModel

from pmpo_ray.config.keys import key_paths, section_in
from pmpo_ray.config.loading import config_from_mapping, config_from_yaml, load_config
from pmpo_ray.config.overrides import Override, overridden
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.search import OBJECTIVES, SearchConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.search import objectives

UNBOUNDED = {"search.target_loss"}
"""A loss may have any size."""


def numbers(section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, type, Any]]:
    """The path, the type and the annotation of every key that holds a number or a list of numbers."""
    for name, field in section.model_fields.items():
        nested = section_in(field.annotation)
        if nested is not None:
            entry = ".0" if name == "tasks" else ""
            yield from numbers(nested, f"{prefix}{name}{entry}.")
            continue
        for kind in (int, float):
            if kind in flat(field.annotation):
                yield f"{prefix}{name}", kind, field


def flat(annotation: Any) -> list[Any]:
    return [annotation, *(inner for part in get_args(annotation) for inner in flat(part))]


def setting(path: str, value: object) -> dict[str, Any]:
    key = tuple(int(part) if part.isdecimal() else part for part in path.split("."))
    document = overridden({"tasks": ["tickets"]}, Override(key, value, "here"))
    return document if path != "evaluation.shots" else {"evaluation": {"shots": [value]}}


def complaint_about(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_from_yaml(text, "run.yaml")
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


def test_there_are_numbers_in_every_section() -> None:
    found = [path for path, _, _ in numbers()]
    assert {"seed", "search.variants", "evaluation.limit", "scorer.endpoint.timeout", "rewriter.cpus"} <= {
        *found
    }
    assert len(found) > 40
    assert all(path.replace(".0.", ".N.") in key_paths() for path in found)


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, kind, _ in numbers()])
def test_a_number_is_finite_and_bounded(path: str, kind: type) -> None:
    values: list[object] = [math.inf, -math.inf, math.nan]
    if path not in UNBOUNDED:
        values += [10**16, 10**400] if kind is int else [1e30, 10**400]
    for value in values:
        with pytest.raises(ConfigError) as caught:
            config_from_mapping(setting(path, value), "here")
        message = str(caught.value)
        assert path in message
        assert len(message.splitlines()) == 1
        assert len(message) < 500


def test_the_error_names_the_bound() -> None:
    assert complaint_about("search: {variants: 100000000}\n") == (
        "run.yaml:1: search.variants: should be less than or equal to 1000, not 100000000"
    )
    bounds = [mark for mark in SearchConfig.model_fields["variants"].metadata if isinstance(mark, Le | Lt)]
    assert bounds[-1] == Le(1000)


def test_settings_for_other_software_are_finite_too() -> None:
    for text in [
        "scorer: {vllm: {options: {a: [.nan]}}}",
        "rewriter: {endpoint: {parameters: {a: {b: .inf}}}}",
    ]:
        assert "infinite or not a number" in complaint_about(text)
    assert "grid.a.beta: should be a finite number" in complaint_about("grid: {a: {beta: .inf}}")
    found = complaint_about("grid:\n  a: {readability: 0}")
    assert ":2: grid.a.readability: should be greater than 0, not 0" in found
    assert "grid.a.hard_cases: should be highest_loss" in complaint_about("grid: {a: {hard_cases: hardest}}")
    assert "grid.a.steps: search has no such key" in complaint_about("grid: {a: {steps: 3}}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{new}: &{new} [{', '.join(9 * [f'*{old}'])}]\n" for old, new in pairwise("abcdefghi")
            ),
            "aliases (*name) repeat more than 10,000 values; write them out",
        ),
        (
            "a: &a {x: 1}\n"
            + "".join(
                f"{new}: &{new} {{<<: [{', '.join(9 * [f'*{old}'])}]}}\n"
                for old, new in pairwise("abcdefghi")
            ),
            "aliases (*name) repeat more than 10,000 values; write them out",
        ),
        ("[" * 9990, "run.yaml:1: not valid YAML: nested too deeply"),
        ("{" * 9990, "run.yaml:1: not valid YAML: nested too deeply"),
        ("{a: " * 2400, "run.yaml:1: not valid YAML: nested too deeply"),
        ("- " * 4990, "run.yaml:1: not valid YAML: nested too deeply"),
        ("".join(" " * level + "a:\n" for level in range(138)), "not valid YAML: nested too deeply"),
        (
            "seed: " + "9" * 9000,
            "run.yaml:1: seed: a number of more than 100 characters; put a text in quotes",
        ),
        ("seed: 0x" + "f" * 9000, "a number of more than 100 characters"),
        ("seed: 1" + ":59" * 3000, "a number of more than 100 characters"),
        ("seed: 1" + ":59" * 3000 + ".5", "a number of more than 100 characters"),
        ("a" * 900 + ": 1", "unknown key"),
        ("model: !" + "a" * 9000 + " x", "is not allowed"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_small_text_that_means_much_work_is_refused(text: str, expected: str) -> None:
    assert len(text) < 10_000
    assert expected in complaint_about(text)


def test_aliases_are_for_a_few_repetitions() -> None:
    text = "search: &s {rounds: 3}\ngrid: {a: *s, b: {<<: *s, beta: 2}}\n"
    assert config_from_yaml(text, "run.yaml").grid == {"a": {"rounds": 3}, "b": {"rounds": 3, "beta": 2}}


def test_many_variants_and_tasks_are_read_once_each() -> None:
    names = [f"task-{number}" for number in range(300)]
    grid = {f"v{number}": {} for number in range(300)}
    config = config_from_mapping({"tasks": names, "grid": grid}, "here")
    assert len(config.named_searches()) == 90_000


def test_a_nested_value_from_python_is_refused() -> None:
    value: dict[str, object] = {}
    value["search"] = value
    with pytest.raises(ConfigError, match="here: sections or lists are nested too deeply"):
        config_from_mapping(value, "here")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(
        ConfigError, match=r"data\.yaml: larger than 1,000,000 bytes: is this a configuration\?"
    ):
        load_config(str(path))
    with pytest.raises(ConfigError, match="larger than"):
        load_config("/dev/zero")


def test_the_names_of_objectives_are_those_of_the_search() -> None:
    assert ("auto", *objectives.OBJECTIVES) == OBJECTIVES
