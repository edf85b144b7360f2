"""README and docs are true: their Python runs, their commands and settings are accepted, their links work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pmpo_ray.config.loading import config_from_mapping
from pmpo_ray.config.overrides import parse_overrides
from pmpo_ray.store.kept_config import kept_config, requested_config
from tests.run_folders import write_run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
READING = {"compare", "doctor", "export", "report", "show", "tasks", "--version"}
"""Commands that are run as they stand; those that take a model are checked without one."""
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is where it begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [
            Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
            for match in _FENCE.finditer(text)
            if match[1] in languages
        ]
    return found


def commands() -> list[tuple[str, list[str]]]:
    """Every command line of the pages, with its place."""
    return [
        (f"{block}", shlex.split(line, comments=True))
        for block in blocks("bash")
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: the configurations, own data, finished runs."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "configs", folder / "configs")
    rows = [("Where is my parcel, number {}?", "shipping"), ("The app closes at photo {}.", "bug report")]
    lines = [f'"{text.format(n)}",{label}' for n in range(20) for text, label in rows]
    (folder / "my.csv").write_text("question,answer\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "mine.txt").write_text("Name the kind of message.\n", encoding="utf-8")
    write_run(folder / "runs" / "mine")
    write_run(folder / "runs" / "other", search={"rounds": 2})
    return folder


SIMULATED = """\
import pmpo_ray

whole = pmpo_ray.optimize

def simulated(*sources, **settings):
    settings["scorer"] = {"engine": "simulated", "role": "both", **settings.get("scorer", {})}
    return whole(*sources, **settings)

pmpo_ray.optimize = simulated
"""
"""Examples are run as they are, with the simulated engine: the texts that win are not what they show."""


@pytest.mark.usefixtures("running_ray")
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block, desk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED + block.text],
        cwd=desk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_settings_are_accepted(block: Block) -> None:
    config_from_mapping(yaml.safe_load(block.text), str(block))


@pytest.mark.parametrize(
    ("place", "command"), commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_are_right(
    place: str, command: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    if command[:3] == ["ray", "job", "submit"]:
        command = command[command.index("--") + 1 :]
    match command:
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["git" | "cd" | "pip" | "open" | "ray", *_]:
            pass
        case ["python", "-m", module, *_]:
            done = subprocess.run(
                [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, check=False
            )
            assert done.returncode == 0
        case ["pmpo", name, *arguments] if name in READING:
            done = subprocess.run(
                [sys.executable, "-m", "pmpo_ray", name, *arguments],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "COLUMNS": "120"},
            )
            assert done.returncode == 0, done.stderr
        case ["pmpo", "optimize" | "evaluate" | "plan" as name, *arguments]:
            _check(name, arguments)
        case _:
            pytest.fail(f"{place}: what kind of command is {shlex.join(command)}?")


def _check(name: str, arguments: list[str]) -> None:
    """The command's options exist, and its settings are accepted."""
    import typer.main

    from pmpo_ray.cli.main import app

    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    parsed = command.make_context(name, list(arguments)).params
    overrides = parse_overrides(parsed["override"] or ())
    if name == "plan":
        requested_config(parsed["config"], overrides, None)
    elif name == "optimize":
        folder = parsed["run_dir"] if parsed["config"] is None else None
        requested_config(parsed["config"], overrides, folder)
    else:
        kept_config(parsed["source"], overrides)


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    heads = {
        re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if link.startswith("#"):
            assert link[1:] in heads, link
        elif "://" not in link:
            assert (ROOT / link.partition("#")[0]).exists(), link
