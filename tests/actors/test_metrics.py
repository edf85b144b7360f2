"""The metrics of a run: the arithmetic alone, and the page that a real Ray serves."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.actors.metrics import TAG_CHARS, Metrics, pool_change, publish, tag_value, tasks_by_state
from pmpo_ray.outcomes import Progress


@dataclass(frozen=True, slots=True)
class Totals:
    queued: int = 0
    in_flight: int = 0
    done: int = 0
    retries: int = 0
    failed: int = 0
    tokens: int = 0
    busy_seconds: float = 0.0
    ready_seconds: float = 0.0
    states: Mapping[str, int] = field(default_factory=dict)


def test_a_change_is_what_came_since_the_last_look() -> None:
    before = Totals(done=10, retries=1, failed=0, tokens=1000, busy_seconds=20.0, ready_seconds=40.0)
    after = Totals(done=14, retries=2, failed=3, tokens=1600, busy_seconds=23.0, ready_seconds=50.0)
    change = pool_change(before, after, 5.0)
    assert (change.done, change.retries, change.failed, change.tokens) == (4, 1, 3, 600)
    assert change.tokens_per_second == pytest.approx(120.0)
    assert change.idle_share == pytest.approx(0.7)


def test_the_first_look_counts_all_that_was_done_and_has_no_rates() -> None:
    change = pool_change(None, Totals(done=7, tokens=70, busy_seconds=3.0, ready_seconds=3.0), 0.0)
    assert (change.done, change.tokens) == (7, 70)
    assert change.tokens_per_second is None
    assert change.idle_share is None


def test_rates_that_do_not_exist_are_none() -> None:
    before = Totals(tokens=5, busy_seconds=1.0, ready_seconds=2.0)
    assert pool_change(before, replace(before, tokens=9), 0.0).tokens_per_second is None
    assert pool_change(before, replace(before, tokens=9), 5.0).idle_share is None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_idle_share_stays_between_0_and_1(busy: float, ready: float) -> None:
    share = pool_change(Totals(), Totals(busy_seconds=busy, ready_seconds=ready), 5.0).idle_share
    assert share is None or 0.0 <= share <= 1.0


def test_every_state_of_a_task_is_counted_also_at_0() -> None:
    tasks = [Progress("a", "scoring", 0, 3), Progress("b", "scoring", 1, 3), Progress("c", "done", 3, 3)]
    assert tasks_by_state(tasks) == {
        "waiting": 0,
        "scoring": 2,
        "masking": 0,
        "rewriting": 0,
        "evaluating": 0,
        "done": 1,
        "failed": 0,
    }


@given(st.text(st.characters(), min_size=1))
def test_a_tag_is_bounded_printable_ascii(text: str) -> None:
    tag = tag_value(text)
    assert tag.isascii()
    assert tag.isprintable()
    assert len(tag) <= TAG_CHARS


def test_ordinary_names_are_their_own_tags_and_different_names_stay_different() -> None:
    assert tag_value("bbh/logical_deduction") == "bbh/logical_deduction"
    names = ["a\nb", "a\\nb", "a\x00b", "日本", "sur\udc80", "x" * 10_000, "x" * 10_000 + "y"]
    assert len({tag_value(name) for name in names}) == len(names)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def page() -> Iterator[Callable[[], str]]:
    """Reads the metrics page of a local Ray that has no dashboard, as those of `pmpo_ray.runs` have none."""
    port = free_port()
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
    )

    def read() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text: str = answer.read().decode()
        except urllib.error.URLError:
            return ""
        return text

    yield read
    ray.shutdown()


def values(page: str) -> dict[tuple[str, str, str], float]:
    """The samples of this project by name, task or pool, and state."""
    samples = {}
    for line in page.splitlines():
        if line.startswith("ray_pmpo_"):
            name, labels, number = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
            tags = dict(re.findall(r'(pool|task|state)="((?:\\.|[^"\\])*)"', labels))
            key = (name, tags.get("pool", tags.get("task", "")), tags.get("state", ""))
            assert key not in samples, line
            samples[key] = float(number)
    return samples


async def until(
    page: Callable[[], str], good: Callable[[dict[tuple[str, str, str], float]], bool]
) -> dict[tuple[str, str, str], float]:
    """The content of the page once `good` holds, or at the end of a long wait."""
    seen: dict[tuple[str, str, str], float] = {}
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        seen = values(await asyncio.to_thread(page))
        if good(seen):
            break
        await asyncio.sleep(0.3)
    return seen


@pytest.mark.slow
async def test_prometheus_reads_pools_and_tasks_under_their_names(page: Callable[[], str]) -> None:
    scorer = Totals(4, 2, 10, 1, 3, 500, 1.0, 2.0, {"ready": 2, "suspect": 1})
    rewriter = Totals(states={"starting": 1})
    seconds = [0.0]
    metrics = Metrics()
    odd = ['quo"te', "back\\slash", "new\nline", "sur\udc80", "日本", "x" * 100_000]
    for name in odd:
        metrics.observe_task(Progress(name, "waiting", 0, 3))
    metrics.observe_task(Progress("tickets", "rewriting", 2, 3, (0.9, 0.75, 0.8)))
    metrics.observe_task(Progress("hopeless", "failed", 1, 3, (math.inf, math.nan)))
    pools = {"scorer": lambda: scorer, "rewriter": lambda: rewriter}
    publishing = asyncio.create_task(publish(metrics, pools, interval=0.2, clock=lambda: seconds[0]))

    first = await until(page, lambda seen: len(seen) >= 27)
    shown = {key: value for key, value in first.items() if key[1] == "scorer"}
    assert shown == {
        ("ray_pmpo_units_queued", "scorer", ""): 4,
        ("ray_pmpo_units_in_flight", "scorer", ""): 2,
        ("ray_pmpo_units_done_total", "scorer", ""): 10,
        ("ray_pmpo_unit_retries_total", "scorer", ""): 1,
        ("ray_pmpo_units_failed_total", "scorer", ""): 3,
        ("ray_pmpo_tokens_total", "scorer", ""): 500,
        ("ray_pmpo_replicas", "scorer", "ready"): 2,
        ("ray_pmpo_replicas", "scorer", "suspect"): 1,
    }
    assert first["ray_pmpo_replicas", "rewriter", "starting"] == 1
    assert first["ray_pmpo_task_loss", "tickets", ""] == 0.75
    assert first["ray_pmpo_task_round", "tickets", ""] == 2
    assert ("ray_pmpo_task_loss", "hopeless", "") not in first
    assert first["ray_pmpo_tasks", "", "waiting"] == len(odd)
    assert first["ray_pmpo_tasks", "", "done"] == 0
    assert sum(name == "ray_pmpo_task_round" for name, _, _ in first) == len(odd) + 2

    # The last state is shown when the loop ends: the clock moves on and no further round of it comes.
    publishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await publishing
    publishing = asyncio.create_task(publish(metrics, pools, interval=3600, clock=lambda: seconds[0]))
    await asyncio.sleep(0)
    seconds[0] = 4.0
    scorer = Totals(0, 0, 12, 1, 3, 900, 2.0, 6.0, {"ready": 3})
    metrics.observe_task(Progress("tickets", "done", 3, 3, (0.9, 0.75, 0.8, 0.5)))
    publishing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await publishing
    last = await until(page, lambda seen: seen.get(("ray_pmpo_tokens_per_second", "scorer", "")) == 100)
    assert last["ray_pmpo_units_done_total", "scorer", ""] == 12
    assert last["ray_pmpo_tokens_total", "scorer", ""] == 900
    assert last["ray_pmpo_tokens_per_second", "scorer", ""] == pytest.approx(100)
    assert last["ray_pmpo_idle_share", "scorer", ""] == pytest.approx(0.75)
    assert last["ray_pmpo_replicas", "scorer", "suspect"] == 0
    assert last["ray_pmpo_task_loss", "tickets", ""] == 0.5
    assert last["ray_pmpo_tasks", "", "done"] == 1
