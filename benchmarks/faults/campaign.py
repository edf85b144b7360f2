"""The undisturbed run, the disturbed run and their comparison, with the simulated engine on a cluster.

Invariants: both runs are the same command with the same configuration on the same cluster, each in its own
run folder; every wait has a limit, and a run that exceeds it raises a FaultsError that says so.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.comparison import RoundWatch, compare, read_outcome
from benchmarks.faults.faults import Injector
from benchmarks.faults.lives import Driver
from benchmarks.faults.nodes import Nodes

GRACE = 0.5
POLL = 0.05
LABELS = ("billing", "delivery", "praise")
WORDS = ("order", "parcel", "invoice", "came", "late", "paid", "twice", "again", "lost", "refund", "thanks")
ROWS = 40
SCORERS, REWRITERS = 3, 2
FINDINGS = 50
"""The number of findings that a row keeps."""


class FaultsError(Exception):
    """The benchmark could not be carried out; one line says why."""


@dataclass(frozen=True, slots=True)
class Size:
    """The work of a run, and its number of faults over the first `spread` of its rounds, on `nodes` nodes.
    With `prompt` checks Ray notices a killed node early. `limit` bounds each run, in seconds."""

    faults: int
    tasks: int
    rounds: int
    spread: float
    nodes: int
    prompt: bool
    limit: float

    @property
    def all_rounds(self) -> int:
        """The number of rounds of all tasks, each with a round 0."""
        return self.tasks * (self.rounds + 1)


QUICK = Size(faults=20, tasks=4, rounds=6, spread=0.3, nodes=2, prompt=True, limit=180.0)
FULL = Size(faults=100, tasks=26, rounds=20, spread=0.6, nodes=3, prompt=False, limit=1500.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison of a disturbed run with an undisturbed one. `units` and `retries` are those of all
    lives of the disturbed run's driver. `lost` includes units that failed or that never ended although their
    driver did; `counted_twice` includes units with two answers in one life, and rounds written again."""

    engine: str
    seed: int
    faults: int
    by_kind: dict[str, int]
    without_effect: dict[str, int]
    units: int
    undisturbed_units: int
    lost: int
    counted_twice: int
    identical: bool
    retries: int
    replicas_lost: int
    driver_lives: int
    undisturbed_seconds: float
    disturbed_seconds: float
    seconds: float
    findings: tuple[str, ...]


def simulated(size: Size, seed: int, folder: Path, kinds: Iterator[str]) -> Row:
    """The row of the simulated engine, with faults of these kinds in this order. Writes into `folder`
    alone."""
    began = time.monotonic()
    orders = folder / "orders"
    orders.mkdir()
    with Nodes(size.nodes, prompt=size.prompt) as nodes:
        config, tasks = write_config(size, seed, folder, nodes.address)
        undisturbed = Driver(config, folder / "undisturbed", GRACE)
        driver = Driver(config, folder / "disturbed", GRACE)
        injector = Injector(driver, nodes, orders, random.Random(seed), kinds)
        watch = RoundWatch(folder / "disturbed")
        with ThreadPoolExecutor(max_workers=1) as beside:
            alone = beside.submit(run_alone, undisturbed, size.limit)
            nodes.grow()
            undisturbed_seconds = alone.result()
        try:
            disturbed_seconds = run_disturbed(driver, injector, watch, size)
        finally:
            injector.end_stopped()
    return compared(
        "simulated",
        tasks,
        (undisturbed, undisturbed_seconds),
        (driver, disturbed_seconds),
        seed=seed,
        rewritten=watch.rewritten,
        counts=injector.counts,
        missed=injector.missed,
        seconds=time.monotonic() - began,
    )


def compared(
    engine: str,
    tasks: Sequence[str],
    undisturbed: tuple[Driver, float],
    disturbed: tuple[Driver, float],
    *,
    seed: int,
    counts: Counter[str],
    missed: Counter[str],
    rewritten: Sequence[str],
    seconds: float,
) -> Row:
    """The row of two finished runs, each given as its driver and its seconds."""
    (alone, alone_seconds), (driver, driver_seconds) = undisturbed, disturbed
    verdict = compare(
        read_outcome(alone.run, tasks), read_outcome(driver.run, tasks), killed=driver.lives > 1
    )
    lives = driver.units()
    without_answer = lives[-1].submitted - lives[-1].resolved + sum(units.failed for units in lives)
    repeated = sum(units.repeated for units in lives)
    findings = [
        *driver.observed.failures,
        *verdict.lost,
        *verdict.counted_twice,
        *rewritten,
        *verdict.differences,
    ]
    if driver.ended() != 0:
        findings.append(
            f"the disturbed run's driver ended with status {driver.ended()}: {driver.last_words()}"
        )
    return Row(
        engine=engine,
        seed=seed,
        faults=counts.total(),
        by_kind=dict(sorted(counts.items())),
        without_effect=dict(sorted((+missed).items())),
        units=sum(units.submitted for units in lives),
        undisturbed_units=sum(units.submitted for units in alone.units()),
        lost=len(verdict.lost) + without_answer,
        counted_twice=len(verdict.counted_twice) + len(rewritten) + repeated,
        identical=verdict.identical and driver.ended() == 0,
        retries=sum(units.retries for units in lives),
        replicas_lost=len(driver.observed.losses),
        driver_lives=driver.lives,
        undisturbed_seconds=round(alone_seconds, 1),
        disturbed_seconds=round(driver_seconds, 1),
        seconds=round(seconds, 1),
        findings=tuple(findings[:FINDINGS]),
    )


def write_config(size: Size, seed: int, folder: Path, address: str) -> tuple[Path, list[str]]:
    """Write the configuration of both runs and the artificial data of its tasks next to it; return the path
    and the names of the tasks."""
    tasks = [f"made-up-{number}" for number in range(size.tasks)]
    for task in tasks:
        (folder / f"{task}.jsonl").write_text(made_up(f"{seed}/{task}"), encoding="utf-8")
    config = {
        "tasks": [{"name": task, "path": str(folder / f"{task}.jsonl")} for task in tasks],
        # The folder of orders is part of the name, and so of both runs' configuration.
        "model": f"simulated:tokens_per_s=4000,jitter=0.2,stragglers=0.02,faults={folder / 'orders'}",
        "scorer": {"engine": "simulated", "replicas": SCORERS, "min_replicas": 2, "chunk_examples": 4},
        "rewriter": {"engine": "simulated", "replicas": REWRITERS, "min_replicas": 1, "batch": 4},
        "search": {"rounds": size.rounds, "hard_examples": 2, "variants": 2, "population": 2},
        "split": {"train_fraction": 0.3},
        "evaluation": {"limit": 8},
        "ray": {"address": address, "outage_timeout": 120.0, "idle_timeout": 5.0},
        "seed": seed,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path, tasks


def made_up(seed: str) -> str:
    """A task of ROWS rows as JSON lines."""
    draw = random.Random(seed)
    rows = [
        {
            "input": " ".join(draw.choices(WORDS, k=12)) + f" ({number})",
            "target": LABELS[number % len(LABELS)],
        }
        for number in range(ROWS)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def run_alone(driver: Driver, limit: float) -> float:
    """The seconds of a run without faults. Raises FaultsError if it fails or takes too long."""
    began = time.monotonic()
    driver.start()
    try:
        while driver.ended() is None:
            _check_time(began, limit, "undisturbed")
            time.sleep(POLL)
    finally:
        driver.kill()
    driver.listen()
    if driver.ended() != 0:
        raise FaultsError(f"the undisturbed run failed: {driver.last_words()}")
    return time.monotonic() - began


def run_disturbed(driver: Driver, injector: Injector, watch: RoundWatch, size: Size) -> float:
    """The seconds of a run with `size.faults` faults, spread over its rounds. The comparison judges how the
    driver ended, like every other effect of a fault. Raises FaultsError if the run takes too long."""
    began = time.monotonic()
    driver.start()
    try:
        while True:
            _check_time(began, size.limit, "disturbed")
            ended = driver.ended()
            driver.listen()
            injector.observe()
            share = watch.look() / size.all_rounds
            if ended is not None:
                break
            if injector.done < size.faults and share >= size.spread * injector.done / size.faults:
                injector.step()
            time.sleep(POLL)
    finally:
        driver.kill()
    injector.give_up()
    return time.monotonic() - began


def _check_time(began: float, limit: float, name: str) -> None:
    if time.monotonic() - began > limit:
        raise FaultsError(f"the {name} run had not ended after {limit:g} s; look for what it waits for")
