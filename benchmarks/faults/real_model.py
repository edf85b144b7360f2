"""A run with a real small model on this machine, whose only scorer is killed in the middle of rounds.

It computes in fp32, since a repeated unit is computed by a replica that has not cached its instruction yet.
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
    """Run with a kill of the scorer at all MOMENTS; return the kills that took effect, the other kills and
    the seconds. Raises FaultsError if the run takes too long."""
    began = time.monotonic()
    moments, killed = list(MOMENTS), set[Replica]()
    driver.start()
    try:
        while driver.ended() is None:
            if time.monotonic() - began > LIMIT:
                raise FaultsError(f"the run with the real model had not ended after {LIMIT:g} s")
            driver.listen()
            watch.look()
            answered, submitted = driver.observed.answered["score"], driver.observed.submitted["score"]
            if moments and moments[0] <= answered < submitted and (victim := kill_scorer(driver)) is not None:
                killed.add(victim)
                del moments[0]
            time.sleep(POLL)
    finally:
        driver.kill()
    driver.listen()
    watch.look()
    effective = sum(loss.replica in killed for loss in driver.observed.losses)
    return Counter({KILL: effective}), Counter({KILL: len(MOMENTS) - effective}), time.monotonic() - began


def kill_scorer(driver: Driver) -> Replica | None:
    """Kill the ready scorer, which is a child of the raylet that this driver started; None if no scorer is
    ready."""
    for replica in driver.observed.ready:
        actor = process(replica.pid) if replica.pool == "scorer" else None
        raylet = None if actor is None else process(actor.parent)
        if actor and raylet and raylet.parent == driver.pid and actor.signal(signal.SIGKILL):
            return replica
    return None
