"""The scheduling benchmark measures what it says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.scheduling.ledger import TASK, Ledger
from benchmarks.scheduling.modes import Load, on_ray, virtual
from benchmarks.scheduling.virtual import run_virtual
from benchmarks.scheduling.work import CANDIDATES, SHAPES, bbh_shaped
from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.outcomes import Progress
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.negatives import with_hard_negatives

pytestmark = pytest.mark.slow


def test_virtual_time_passes_without_waiting_and_in_order() -> None:
    async def work() -> list[tuple[float, int]]:
        loop, seen = asyncio.get_running_loop(), list[tuple[float, int]]()

        async def sleeper(seconds: int) -> None:
            await asyncio.sleep(seconds)
            seen.append((loop.time(), seconds))

        await asyncio.gather(*(sleeper(seconds) for seconds in (5_000_000, 3, 86_400)))
        return seen

    assert [seconds for _, seconds in run_virtual(work())] == [3, 86_400, 5_000_000]
    assert all(time == pytest.approx(seconds) for time, seconds in run_virtual(work()))


def test_the_lower_bound_is_the_longest_of_work_and_chains() -> None:
    ledger = Ledger()
    for task, state, number, seconds in (
        ("a", "rewriting", 1, (4.0, 1.0)),
        ("a", "scoring", 1, (2.0, 3.0)),
        ("b", "scoring", 1, (5.0,)),
    ):
        TASK.set(task)
        ledger.observe(Progress(task, state, number, 1))  # type: ignore[arg-type]
        for second in seconds:
            ledger.add("rewriter" if state == "rewriting" else "scorer", second)
    # Scoring takes 10 s in all, rewriting 5; the phases of task a follow each other: 4 + 3.
    assert ledger.lower_bound({"scorer": 1, "rewriter": 1}, ["a", "b"]) == 10
    assert ledger.lower_bound({"scorer": 4, "rewriter": 4}, ["a", "b"]) == 7
    assert ledger.units == 5


@pytest.mark.parametrize("replicas", [1, 8])
def test_a_schedule_in_virtual_time_comes_near_the_lower_bound(replicas: int) -> None:
    row = virtual(Load(tasks=27, rounds=3, replicas=replicas))
    assert row.units == 27 * (1 + 3 * 2 * CANDIDATES)
    assert 1.0 <= row.ratio <= 1.1
    assert row.driver_ms_per_unit > 0


def test_tasks_one_after_another_leave_replicas_idle() -> None:
    load = Load(tasks=5, rounds=2, replicas=16)
    at_once, sequential = virtual(load), virtual(load, sequential=True)
    assert sequential.units == at_once.units
    assert sequential.lower_bound_s == pytest.approx(at_once.lower_bound_s, rel=1e-3)
    assert sequential.makespan_s > 2 * at_once.makespan_s
    assert sequential.idle_share > at_once.idle_share


def test_real_actors_do_the_same_work() -> None:
    load = Load(tasks=3, rounds=1, replicas=2)
    row = on_ray(load, speed=40.0)
    assert row.units == virtual(load).units
    assert row.ratio >= 1.0
    assert 0 <= row.idle_share < 1


def test_tasks_have_the_shapes_of_the_real_files(data_dir: Path) -> None:
    assert len(SHAPES) == 27
    for name, words, _, negatives in SHAPES:
        task = load_task(TaskConfig(name=f"bbh/{name}"), str(data_dir), 0)
        assert round(fmean(len(example.input.split()) for example in task.examples)) == words
        examples = with_hard_negatives(task, task.examples, 0)
        assert round(fmean(len(example.negatives) for example in examples)) == negatives
    assert len({task.name for task in bbh_shaped(54)}) == 54


def test_a_row_is_one_json_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scheduling", "--row", "virtual:2:4", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    row = json.loads(done.stdout)
    assert {"mode", "tasks", "replicas", "makespan_s", "lower_bound_s", "ratio", "idle_share"} <= set(row)
    assert {"driver_ms_per_unit", "driver_rss_mb"} <= set(row)
