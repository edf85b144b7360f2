"""The public names: each can be imported, is used by the docs alone, and costs nothing before it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pmpo_ray

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "configs" / "README.md", *(ROOT / "docs").glob("*.md")])
EXAMPLES = sorted((ROOT / "tests" / "examples").glob("*.py"))


@pytest.mark.parametrize("name", pmpo_ray.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(pmpo_ray, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pmpo_ray.nothing


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: page.name)
def test_pages_and_examples_use_public_names_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^\s*(?:from|import) pmpo_ray\..*", text, re.MULTILINE)
    named = {
        name
        for names in re.findall(r"from pmpo_ray import (\([^)]*\)|[\w, ]+)", text)
        for name in re.findall(r"\w+", names)
    }
    assert named <= set(pmpo_ray.__all__)


def test_importing_the_package_loads_no_dependency() -> None:
    code = "import sys, pmpo_ray; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"ray", "torch", "transformers", "pydantic", "yaml", "pandas", "pyarrow"} & {
        *done.stdout.split()
    }
