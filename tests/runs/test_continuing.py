"""A search continues from its rounds, whatever else of its folder is damaged."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from benchmarks.in_process import InProcessGenerator, InProcessScorer
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import RunFolderError
from pmpo_ray.outcomes import TaskResult
from pmpo_ray.prepared_task import prepare_tasks
from pmpo_ray.runs.optimize_task import optimize_task
from pmpo_ray.runs.run_context import RunContext
from pmpo_ray.runs.run_folder import open_store
from pmpo_ray.runs.run_manifest import new_manifest
from pmpo_ray.store import RunStore, hold
from tests.damaged_folders import WAYS
from tests.run_folders import simulated_config

TASK = "tasks/tickets"


def continued(folder: Path) -> TaskResult:
    """The result of the run in `folder`, which is begun or continued as `pmpo optimize` does, without Ray."""
    config = simulated_config(run_dir=str(folder), evaluation={"limit": 20})
    [prepared] = prepare_tasks(config)
    with hold(str(folder)) as lease:
        store = open_store(config, str(folder), lease)
        store.join_scores()
        store.write_manifest(new_manifest(config, [prepared], store))
        info = SimulatedScorer("simulated").info()
        context = RunContext(config, store, InProcessScorer(), InProcessGenerator(), info, lambda _: None)
        return asyncio.run(optimize_task(context, prepared, lambda _: None))


def timeless(result: TaskResult) -> tuple[object, ...]:
    return (result.best, result.rounds, result.loss_after, result.accuracy_after, result.tokens_scored)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaskResult]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, continued(folder)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        f"{TASK}/best.json",
        f"{TASK}/result.json",
        f"{TASK}/examples.parquet",
        f"{TASK}/round-0003.parquet",
        f"{TASK}/segments-0003.parquet",
    ],
)
def test_a_damaged_file_is_made_again(
    whole: tuple[Path, TaskResult],
    tmp_path: Path,
    name: str,
    way: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, expected = whole
    run = tmp_path / "run"
    shutil.copytree(folder, run)
    content = WAYS[way]((run / name).read_bytes())
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    assert timeless(continued(run)) == timeless(expected)
    damaged = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(damaged) == (1 if way != "missing" else len(damaged))
    assert all(len(message.splitlines()) == 1 for message in damaged)
    # Made again: now nothing is damaged.
    caplog.clear()
    assert timeless(continued(run)) == timeless(expected)
    assert "damaged" not in caplog.text
    before, after = (RunStore.open(str(place)).read_rounds("tickets") for place in (folder, run))
    assert [record.survivors for record in after] == [record.survivors for record in before]


def test_a_damaged_earlier_round_is_named(whole: tuple[Path, TaskResult], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / TASK / "round-0001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"round-0001\.parquet' is damaged.*restore it from a copy$"):
        continued(run)
    assert (run / TASK / "round-0003.parquet").exists()


def test_rounds_without_a_configuration_are_not_continued(
    whole: tuple[Path, TaskResult], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"holds rounds but no config\.yaml"):
        continued(run)


def test_rounds_of_other_examples_are_not_continued_without_a_manifest(
    whole: tuple[Path, TaskResult], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    (run / "manifest.json").unlink()
    store = RunStore.open(str(run))
    kept = store.read_training("tickets")
    assert kept is not None
    store.write_training("tickets", kept[::-1])
    with pytest.raises(RunFolderError, match="its data are not those"):
        continued(run)
