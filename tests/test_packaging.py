"""The installed package: the contents of a wheel, and no clash with a user's modules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the contents of the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    # From a copy: a build leaves folders behind.
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.startswith(("actors/", "pmpo_ray")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (source / name).symlink_to((ROOT / name).readlink())
            else:
                (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_has_one_top_level_package_with_the_actors_in_it(installed: Path) -> None:
    assert [path.name for path in installed.iterdir() if path.suffix != ".dist-info"] == ["pmpo_ray"]
    actors = {path.name for path in (ROOT / "actors").glob("*.py")}
    assert {path.name for path in (installed / "pmpo_ray" / "actors").glob("*.py")} == actors


@pytest.mark.usefixtures("running_ray")
def test_a_script_beside_an_actors_module_optimises(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "actors.py").write_text("raise RuntimeError('the module of somebody else')\n")
    (tmp_path / "script.py").write_text(
        "from pmpo_ray import optimize\n"
        "rows = [{'input': f'text {n}', 'target': 'odd' if n % 2 else 'even'} for n in range(40)]\n"
        "engine = {'engine': 'simulated', 'model': 'simulated'}\n"
        "result = optimize(rows, instruction='Say odd or even.', rounds=1, scorer=engine, rewriter=engine)\n"
        "print(result['mine'].rounds)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_nothing_imports_the_actors_by_the_name_of_their_folder() -> None:
    """As `actors` they would be loaded a second time, or another package's modules would be loaded."""
    files = [
        path for room in ("actors", "pmpo_ray", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")
    ]
    named = re.compile(r"^\s*(?:from|import) actors\b", re.MULTILINE)
    assert [str(path) for path in files if named.search(path.read_text(encoding="utf-8"))] == []
