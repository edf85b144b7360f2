"""configs/README.md: it documents every key, its default, and the keys that may change on continuing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pmpo_ray.config.engines import ReplicaConfig
from pmpo_ray.config.keys import key_paths
from pmpo_ray.config.resume import CHANGEABLE
from pmpo_ray.config.run import RunConfig
from pmpo_ray.config.tasks import TaskConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def documented() -> dict[str, str]:
    """The default of each key in configs/README.md."""
    rows = re.findall(
        r"^\| `([^`|]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$",
        (CONFIGS / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    keys = [key for key, _ in rows]
    assert sorted(set(keys)) == sorted(keys), "a key is documented twice"
    return dict(rows)


def field_at(path: str) -> FieldInfo:
    section: type[BaseModel] = RunConfig
    *above, last = path.split(".")
    for part in above:
        if part == "N":
            section = TaskConfig
        elif part != "tasks":
            kind = section.model_fields[part].annotation
            kind = next(iter(get_args(kind)), kind)  # a section that may be missing
            assert isinstance(kind, type)
            assert issubclass(kind, BaseModel)
            section = kind
    return section.model_fields[last]


def test_the_readme_documents_every_key_and_no_other() -> None:
    sections = {path.rpartition(".")[0] for path in key_paths()} - {"", "tasks.N"}
    leaves = [path for path in key_paths() if path not in sections]
    assert sorted(documented()) == sorted(leaves)


def test_the_readme_gives_the_true_defaults() -> None:
    for key, shown in documented().items():
        field = field_at(key)
        if field.is_required():
            assert shown == "required", key
        elif key == "tasks":
            assert yaml.safe_load(shown.strip("`")) == [task.name for task in RunConfig().tasks]
        else:
            value = yaml.safe_load(shown.strip("`")) if shown != "`[MASK]`" else "[MASK]"
            assert (tuple(value) if isinstance(value, list) else value) == field.get_default(
                call_default_factory=True
            ), key


def test_the_readme_names_every_key_that_may_change_on_a_resume() -> None:
    text = (CONFIGS / "README.md").read_text(encoding="utf-8").partition("## Continuing a run")[2]
    for key in CHANGEABLE:
        assert f"`{key.rpartition('.')[2]}`" in text, key
    assert {"replicas", "cpus", "gpus", "memory_gb", "threads"} < set(ReplicaConfig.model_fields)
