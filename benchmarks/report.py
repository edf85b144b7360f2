"""The size of a large run's report, the time to write it, and its first paint in a browser.

    python -m benchmarks.report [--tasks 27] [--rounds 20] [--loads 5] [--folder DIR] [--json FILE]

The run is a search over simulated engines of tasks with BIG-Bench Hard's shapes, with about 13 new
instructions of some 600 characters in every round, mask analysis and evaluation included. The browser is
Chromium without a window, at a desk's size and at a phone's; first paint is its first contentful paint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.in_process import InProcessScorer
from benchmarks.scheduling.work import SHAPES, bbh_shaped
from pmpo_ray.config.engines import RewriterConfig
from pmpo_ray.config.loading import config_from_mapping, dump_config
from pmpo_ray.config.search import SearchConfig
from pmpo_ray.engines.simulated.engine import ADDITIONS, HELPFUL, SimulatedScorer
from pmpo_ray.outcomes import Condition, ConditionResult, Outcome, ReplicaCount, TaskResult
from pmpo_ray.report import write_report
from pmpo_ray.search.loop import search_task
from pmpo_ray.search.objectives import make_objective
from pmpo_ray.search.setup import SearchSetup
from pmpo_ray.store import Manifest, PoolUse, RunStore, installed_versions
from pmpo_ray.types import GenerateRequest, GenerateResult, Generation, RoundRecord, Split, Task

TRAIN, TEST = 50, 200
SENTENCES = 5
HARD, VARIANTS = 4, 3
"""12 rewrites a round; texts without a sentence come beside them whenever the best is a new one."""
_WORDS = ("answer", "before", "choose", "claim", "detail", "every", "fact", "given", "line", "mind", "name")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=len(SHAPES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--loads", type=int, default=5, help="times that the browser opens the report")
    parser.add_argument("--folder", type=Path, help="keep the run and its report there")
    parser.add_argument("--json", type=Path, help="write the row there, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "run"
        candidates = write_run(folder, arguments.tasks, arguments.rounds)
        began = time.perf_counter()
        report = Path(write_report(str(folder)))
        seconds = time.perf_counter() - began
        row = {
            "tasks": arguments.tasks,
            "rounds": arguments.rounds,
            "candidates": candidates,
            "write_s": round(seconds, 1),
            "size_mb": round(report.stat().st_size / 1e6, 2),
            **paints(report, arguments.loads),
        }
    print("  ".join(row))
    print("  ".join(f"{value:>{len(name)}}" for name, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([row], indent=1) + "\n")


def write_run(folder: Path, tasks: int, rounds: int) -> int:
    """A finished run in `folder`; how many instructions were scored in it."""
    names = bbh_shaped(tasks)
    config = config_from_mapping({"tasks": [{"name": task.name} for task in names]}, "benchmark")
    store = RunStore.create(str(folder), dump_config(config))
    results = [asyncio.run(_searched(store, task, rounds)) for task in names]
    store.write_summary(results)
    info = SimulatedScorer("simulated").info()
    store.write_manifest(
        Manifest(
            versions=installed_versions(),
            scorer=info,
            rewriter=info,
            data={},
            seed=0,
            cluster=None,
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T01:00:00+00:00",
            seconds=3600.0,
            pools={
                role: PoolUse(14_000, 40, 3, 4_000_000, 20_000.0, 25_000.0) for role in ("scorer", "rewriter")
            },
        )
    )
    draw = random.Random(0)
    store.write_replicas(
        1, [ReplicaCount(10.0 * n, "scorer", draw.randint(0, 8), draw.randint(0, 2)) for n in range(360)]
    )
    store.write_evaluation([one for result in results for one in _condition_results(result)])
    return sum(
        len({scored.candidate.id for record in store.read_rounds(task.name) for scored in record.candidates})
        for task in names
    )


async def _searched(store: RunStore, task: Task, rounds: int) -> TaskResult:
    start = replace(task, instruction=_text(random.Random(task.name)))
    store.write_training(task.name, task.examples[:TRAIN])

    async def keep(record: RoundRecord, so_far: Sequence[RoundRecord]) -> None:
        store.write_round(record)
        store.write_best(task.name, so_far)

    outcome = await search_task(
        SearchSetup(
            task=start,
            split=Split(train=task.examples[:TRAIN], shots=(), test=()),
            objective=make_objective("preference", beta=1.0, per_token=False),
            style="long",
            settings=SearchConfig(
                rounds=rounds, hard_examples=HARD, variants=VARIANTS, masking="rules", racing=None
            ),
            sampling=RewriterConfig(),
            seed=0,
            scorer=InProcessScorer(),
            rewriter=_Rewriter(),
            keep=keep,
            observer=lambda _: None,
            clock=time.monotonic,
        )
    )
    result = TaskResult(
        task=task.name,
        rounds=rounds,
        stopped=outcome.stopped,
        start=outcome.start.candidate.text,
        best=outcome.best.candidate.text,
        loss_before=outcome.start.loss,
        loss_after=outcome.best.loss,
        accuracy_before=None,
        accuracy_after=None,
        tokens_scored=0,
        tokens_generated=0,
        seconds=0.0,
    )
    store.write_task_result(task.name, result)
    return result


def _condition_results(result: TaskResult) -> list[ConditionResult]:
    draw = random.Random(result.task)
    chances = {"start": 0.4, "best": 0.4 + 0.3 * draw.random(), "description": 0.35}
    return [
        ConditionResult(
            Condition(result.task, "simulated", name, result.best, 0, 0, "likelihood"),
            tuple(Outcome(str(n), draw.random() < chance, "x") for n in range(TEST)),
        )
        for name, chance in chances.items()
    ]


class _Rewriter:
    """Every sample is a new instruction."""

    async def generate(self, request: GenerateRequest, *, rounds_left: int = 0) -> GenerateResult:
        samples = tuple(
            Generation(f"<prompt>{_text(random.Random(request.seed + n))}</prompt>", 150, True)
            for n in range(request.n)
        )
        return GenerateResult(samples, 400, 0.0)


def _text(draw: random.Random) -> str:
    """Five sentences of about 120 characters, some of them with words that lower the simulated loss."""
    sentences = []
    for number in range(SENTENCES):
        words = [*draw.choices((*_WORDS, *HELPFUL), k=14), f"{draw.getrandbits(24):06x}"]
        draw.shuffle(words)
        sentences.append(f"{draw.choice(ADDITIONS)[:-1]} {number}, {' '.join(words)}.")
    return " ".join(sentences)


# A promise, as the page's policy lets no text become script while one waits for something to be true.
_FIRST_PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
    for (const entry of list.getEntriesByName("first-contentful-paint")) done(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""


def paints(report: Path, loads: int) -> dict[str, Any]:
    """Milliseconds to the first contentful paint and to the end of loading: medians over fresh contexts."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, width in (("desk", 1200), ("phone", 390)):
            paint, load = [], []
            for _ in range(loads):
                context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
                page = context.new_page()
                page.goto(report.as_uri())
                paint.append(page.evaluate(_FIRST_PAINT))
                load.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
                context.close()
            found |= {f"{name}_paint_ms": round(median(paint)), f"{name}_load_ms": round(median(load))}
        browser.close()
    return found


if __name__ == "__main__":
    main()
