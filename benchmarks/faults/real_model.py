"""The same with the real small model: its only scorer is killed in the middle of rounds, on this machine.

In fp32: a unit that is made again is made whole, but by a replica that has not cached its instruction yet.
"""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults.campaign import POLL, FaultsError, Row, compared, run_alone
from benchmarks.faults.comparison import RoundWatch
from benchmarks.faults.lives import Driver, Replica, process

GRACE = 60.0
LIMIT = 900.0
KILL = "kill -9 of a scorer"
MOMENTS = (8, 25, 45)
"""Scores that were answered before the scorer is killed, which happens while another one is waited for. The
first round takes 4, all of them about 60."""


def real(seed: int, folder: Path) -> Row:
    """The row of the default model on the built-in task."""
    began = time.monotonic()
    config = folder / "config.yaml"
    settings = {
        "tasks": ["tickets"],
        "scorer": {"dtype": "float32", "chunk_examples": 3},
        "rewriter": {"dtype": "float32", "max_tokens": 64},
        "search": {"rounds": 2, "hard_examples": 2, "variants": 2},
        "split": {"train_max": 12},
        "evaluation": {"limit": 12},
        "seed": seed,
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    undisturbed = Driver(config, folder / "undisturbed", GRACE)
    undisturbed_seconds = run_alone(undisturbed, LIMIT)
    driver = Driver(config, folder / "disturbed", GRACE)
    watch = RoundWatch(folder / "disturbed")
    counts, missed, disturbed_seconds = run_killing(driver, watch)
    return compared(
        "transformers",
        ["tickets"],
        (undisturbed, undisturbed_seconds),
        (driver, disturbed_seconds),
        seed=seed,
        counts=counts,
        missed=missed,
        rewritten=watch.rewritten,
        seconds=time.monotonic() - began,
    )


def run_killing(driver: Driver, watch: RoundWatch) -> tuple[Counter[str], Counter[str], float]:
    """Kills that took effect, others, and seconds of a run whose scorer is killed at all MOMENTS. Raises
    FaultsError where it takes too long."""
    began = time.monotonic()
    moments, killed = list(MOMENTS), set[Replica]()
    driver.start()
    try:
        while driver.ended() is None:
            if time.monotonic() - began > LIMIT:
                raise FaultsError(f"the run with the real model had not ended after {LIMIT:g} s")
            driver.listen()
            watch.look()
            answered, asked = driver.told.answered["score"], driver.told.asked["score"]
            if moments and moments[0] <= answered < asked and (victim := kill_scorer(driver)) is not None:
                killed.add(victim)
                del moments[0]
            time.sleep(POLL)
    finally:
        driver.kill()
    driver.listen()
    watch.look()
    effective = sum(loss.replica in killed for loss in driver.told.losses)
    return Counter({KILL: effective}), Counter({KILL: len(MOMENTS) - effective}), time.monotonic() - began


def kill_scorer(driver: Driver) -> Replica | None:
    """Kill the ready scorer, which is a child of the raylet that this driver started; None where there is
    none now."""
    for replica in driver.told.ready:
        actor = process(replica.pid) if replica.pool == "scorer" else None
        raylet = None if actor is None else process(actor.parent)
        if actor and raylet and raylet.parent == driver.pid and actor.signal(signal.SIGKILL):
            return replica
    return None
