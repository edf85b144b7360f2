"""A pool whose replicas fail in every possible way, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scheduling.virtual import run_virtual
from pmpo_ray.actors.autoscaling import Bounds
from pmpo_ray.actors.handles import ReplicaError, ReplicaFaultError, ReplicaLostError, ReplicaUnreachableError
from pmpo_ray.actors.pool import Pool
from pmpo_ray.actors.pool_spec import PoolSpec
from pmpo_ray.actors.units import FAULTS_PER_UNIT
from pmpo_ray.engines.simulated.engine import SimulatedScorer
from pmpo_ray.errors import DataError, EngineError, ModelError, PmpoError, ResourceError
from pmpo_ray.types import EngineInfo

INFO = SimulatedScorer("test").info()
FOREVER = 1e9

Behaviour = Callable[["Scripted", int], Any]


class Scripted:
    """A replica that follows a script: `behave` gives a call its outcome: an exception or seconds of work."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number = number
        self.plan = plan
        self.gone = asyncio.get_running_loop().create_future()

    async def ping(self) -> str:
        await self._unless_gone(self.plan.place_seconds(self.number))
        return f"virtual:{self.number}"

    async def start(self) -> EngineInfo:
        failure = self.plan.start_failure(self.number)
        await self._unless_gone(FOREVER if failure == "hangs" else 1.0)
        if isinstance(failure, Exception):
            raise failure
        return failure if isinstance(failure, EngineInfo) else INFO

    async def echo(self, value: int) -> int:
        """The one method that `call` is for."""
        raise NotImplementedError

    async def call(self, method: str, *args: object) -> Any:
        assert method == "echo"
        [value] = args
        assert isinstance(value, int)
        self.plan.calls[value] += 1
        what = self.plan.behave(self, value)
        if isinstance(what, ReplicaLostError):
            self.end(what)
        if isinstance(what, Exception):
            await asyncio.sleep(0.1)
            raise what
        await self._unless_gone(what)
        return value

    def end(self, error: ReplicaLostError | None = None) -> None:
        if not self.gone.done():
            self.gone.set_result(error or ReplicaLostError("it was ended"))
            self.plan.ended.append(self.number)

    async def _unless_gone(self, seconds: float) -> None:
        await asyncio.wait({self.gone}, timeout=seconds)
        if self.gone.done():
            raise self.gone.result()


def a_second(replica: Scripted, value: int) -> float:
    return 1.0


class Plan:
    """A launcher of scripted replicas; by default they work for a second a call."""

    def __init__(self, behave: Behaviour | None = None) -> None:
        self.behave: Behaviour = behave or a_second
        self.calls: Counter[int] = Counter()
        self.launched: list[Scripted] = []
        self.ended: list[int] = []

    def place_seconds(self, number: int) -> float:
        return 5.0 if number else 4.0

    def start_failure(self, number: int) -> PmpoError | ReplicaError | EngineInfo | str | None:
        return None

    def launch(self) -> Scripted:
        self.launched.append(Scripted(len(self.launched), self))
        return self.launched[-1]

    def missing(self) -> str:
        return "each needs 1 GPU, the 1 nodes have 0 GPU in all"


def pool_of(plan: Plan, maximum: int = 2, minimum: int | None = None, **spec: Any) -> Pool:
    bounds = Bounds(maximum if minimum is None else minimum, maximum, idle_seconds=60.0)
    return Pool(PoolSpec("scorer", plan, bounds, 1, **spec))


async def results(pool: Pool, count: int) -> list[Any]:
    units = (pool.submit(Scripted.echo, value, weight=10) for value in range(count))
    return await asyncio.gather(*units, return_exceptions=True)


def test_a_hanging_replica_is_given_up_at_its_deadline_and_its_units_go_elsewhere() -> None:
    hung: list[int] = []

    def behave(replica: Scripted, value: int) -> float:
        if value == 20 and not hung:
            hung.append(replica.number)
            return FOREVER
        return 1.0

    plan = Plan(behave)

    async def work() -> float:
        pool = pool_of(plan)
        await pool.start()
        assert await results(pool, 40) == list(range(40))
        assert (pool.stats().lost, pool.stats().failed) == (1, 0)
        return asyncio.get_running_loop().time()

    # A minute of grace and ten times the usual second or two, instead of for ever.
    assert run_virtual(work()) < 150
    assert plan.ended == hung


def test_a_replica_that_encodes_prompts_otherwise_than_the_first_gets_no_work() -> None:
    class Differing(Plan):
        def start_failure(self, number: int) -> EngineInfo | None:
            return replace(INFO, encoding="other") if number == 1 else None

    served: list[int] = []

    def behave(replica: Scripted, value: int) -> float:
        served.append(replica.number)
        return 1.0

    async def work() -> None:
        pool = pool_of(Differing(behave))
        await pool.start()
        assert await results(pool, 100) == list(range(100))
        assert pool.stats().lost == 1

    run_virtual(work())
    assert 1 not in served
    assert {0, 2} <= set(served)


def test_a_hang_before_anything_was_measured_is_noticed_when_others_are_answered() -> None:
    hung: list[int] = []

    def behave(replica: Scripted, value: int) -> float:
        if not hung:
            hung.append(value)
            return FOREVER
        return 1.0

    async def work() -> float:
        pool = pool_of(plan)
        await pool.start()
        assert await results(pool, 20) == list(range(20))
        assert pool.stats().lost == 1
        return asyncio.get_running_loop().time()

    plan = Plan(behave)
    assert run_virtual(work()) < 200


def test_units_that_fall_with_their_neighbours_again_and_again_are_not_blamed() -> None:
    """A replica dies at every fifth of the calls that share it with another, whoever's fault that is."""
    calls = iter(range(10_000))

    def behave(replica: Scripted, value: int) -> Any:
        return ReplicaLostError("gone") if next(calls) % 5 == 4 else 1.0

    async def work() -> None:
        pool = pool_of(Plan(behave), maximum=3)
        await pool.start()
        assert await results(pool, 60) == list(range(60))
        assert pool.stats().failed == 0

    run_virtual(work())


def test_a_unit_that_hangs_everywhere_fails_with_the_reason_and_not_the_run() -> None:
    def behave(replica: Scripted, value: int) -> float:
        return FOREVER if value == 7 else 1.0

    plan = Plan(behave)

    async def work() -> None:
        pool = pool_of(plan)
        await pool.start()
        outcome = await results(pool, 10)
        assert isinstance(outcome.pop(7), EngineError)
        assert outcome == [0, 1, 2, 3, 4, 5, 6, 8, 9]
        assert pool.stats().failed == 1

    run_virtual(work())
    # Once beside another unit, which may have been the cause, and then alone.
    assert plan.calls[7] == FAULTS_PER_UNIT + 1


def test_a_lost_node_is_not_held_against_the_units_it_took_along() -> None:
    lost: list[int] = []

    def behave(replica: Scripted, value: int) -> Any:
        if value == 3 and len(lost) < 5:
            lost.append(replica.number)
            return ReplicaLostError("the node went", blameless=True)
        return 1.0

    async def work() -> None:
        pool = pool_of(Plan(behave))
        await pool.start()
        assert await results(pool, 6) == list(range(6))
        assert pool.stats().failed == 0

    run_virtual(work())
    assert len(lost) == 5


def test_a_replica_that_is_out_of_reach_for_a_while_goes_on_afterwards() -> None:
    out = iter([ReplicaUnreachableError("no route")] * 2)

    def behave(replica: Scripted, value: int) -> Any:
        return next(out, 1.0)

    plan = Plan(behave)

    async def work() -> None:
        pool = pool_of(plan)
        await pool.start()
        assert await results(pool, 9) == list(range(9))
        assert pool.stats().lost == 0
        assert pool.stats().retries == 2

    run_virtual(work())


def test_a_model_error_after_the_first_start_is_a_failed_start_and_not_the_end() -> None:
    class OneBadNode(Plan):
        def start_failure(self, number: int) -> PmpoError | None:
            return ModelError("the disk of this node is full; free some space") if 0 < number < 4 else None

    async def work() -> None:
        pool = pool_of(plan)
        await pool.start()
        assert await results(pool, 60) == list(range(60))
        assert pool.stats().lost == 3

    plan = OneBadNode()
    run_virtual(work())
    assert len(plan.launched) == 5


def test_failed_starts_are_tried_again_ever_more_slowly() -> None:
    class Lemons(Plan):
        def start_failure(self, number: int) -> ReplicaError | None:
            return ReplicaFaultError("OSError: no driver") if number > 0 else None

    async def work() -> None:
        pool = pool_of(plan)
        await pool.start()
        await asyncio.sleep(600)
        assert pool.stats().states["ready"] == 1

    plan = Lemons()
    run_virtual(work())
    assert 10 <= len(plan.launched) <= 30


def test_a_pool_without_replicas_for_too_long_says_what_was_missing() -> None:
    class Full(Plan):
        def place_seconds(self, number: int) -> float:
            return FOREVER if number > 0 else 1.0

    async def work() -> None:
        pool = pool_of(plan, maximum=1, outage_timeout=100.0)
        await pool.start()
        assert await results(pool, 3) == [0, 1, 2]
        plan.launched[0].end(ReplicaLostError("the node went", blameless=True))
        began = asyncio.get_running_loop().time()
        outcome = await results(pool, 3)
        assert {type(error) for error in outcome} == {ResourceError}
        message = str(outcome[0])
        assert message.startswith("scorer: no working replica for 100 s, ")
        assert "each needs 1 GPU" in message
        assert "\n" not in message
        assert asyncio.get_running_loop().time() - began < 150
        with pytest.raises(ResourceError):
            await pool.submit(Scripted.echo, 1, weight=1)

    plan = Full()
    run_virtual(work())


def test_without_work_there_is_no_outage() -> None:
    async def work() -> None:
        pool = pool_of(plan, maximum=1, minimum=0, outage_timeout=100.0)
        await pool.start()
        await asyncio.sleep(5000)
        assert pool.stats().replicas == ()
        assert await results(pool, 3) == [0, 1, 2]

    plan = Plan()
    run_virtual(work())


def test_a_pool_grows_with_the_work_and_shrinks_after_the_debounce() -> None:
    async def work() -> None:
        pool = pool_of(plan, maximum=8, minimum=1)
        await pool.start()
        assert len(plan.launched) == 1
        assert await results(pool, 100) == list(range(100))
        assert len(plan.launched) == 8
        await asyncio.sleep(50)
        # A pause between two rounds costs nothing.
        assert len(pool.stats().replicas) == 8
        await asyncio.sleep(20)
        assert [replica.id for replica in pool.stats().replicas] == [0]
        assert await results(pool, 100) == list(range(100))
        assert len(plan.launched) == 15

    plan = Plan()
    run_virtual(work())


def test_replicas_that_never_get_a_place_are_not_waited_for() -> None:
    class TwoPlaces(Plan):
        def place_seconds(self, number: int) -> float:
            return 1.0 if number < 2 else FOREVER

    async def work() -> None:
        pool = pool_of(plan, maximum=8, minimum=1)
        await pool.start()
        assert await results(pool, 100) == list(range(100))
        assert pool.stats().states["pending"] == 6
        await asyncio.sleep(70)
        assert pool.stats().states == {"ready": 1}

    plan = TwoPlaces()
    run_virtual(work())


@pytest.mark.slow
@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 3))
def test_every_unit_resolves_once_whatever_fails(seed: int, maximum: int, minimum: int) -> None:
    """Everything at random: the outcomes and durations of calls and starts, and the times of new work."""
    draw = random.Random(seed)
    poison = draw.randrange(60)

    def behave(replica: Scripted, value: int) -> Any:
        if value == poison:
            return draw.choice([ReplicaLostError("gone"), ReplicaFaultError("broken"), FOREVER])
        return draw.choices(
            [
                draw.expovariate(1.0),
                ReplicaLostError("gone"),
                ReplicaLostError("node gone", blameless=True),
                ReplicaUnreachableError("no route"),
                ReplicaFaultError("broken"),
                FOREVER,
                DataError(f"row {value} is empty; fill it"),
            ],
            weights=[60, 2, 4, 4, 1, 1, 1],
        )[0]

    class Random(Plan):
        def place_seconds(self, number: int) -> float:
            return draw.expovariate(0.1)

        def start_failure(self, number: int) -> PmpoError | ReplicaError | str | None:
            failures: list[Any] = [None, ReplicaFaultError("no driver"), ReplicaLostError("gone"), "hangs"]
            return draw.choices(failures, weights=[8, 1, 1, 1])[0] if number else None

    async def one(pool: Pool, value: int, seen: Counter[int]) -> Any:
        await asyncio.sleep(draw.uniform(0, 100))
        try:
            return await pool.submit(Scripted.echo, value, weight=draw.randint(1, 9), group=value % 5)
        finally:
            seen[value] += 1

    async def work() -> None:
        pool = pool_of(
            Random(behave), maximum, min(minimum, maximum), start_timeout=30.0, outage_timeout=FOREVER
        )
        await pool.start()
        seen: Counter[int] = Counter()
        async with asyncio.timeout(1e6):
            outcome = await asyncio.gather(
                *(one(pool, value, seen) for value in range(60)), return_exceptions=True
            )
        assert set(seen.values()) == {1}
        for value, answer in enumerate(outcome):
            assert answer == value or isinstance(answer, EngineError | DataError)
        assert isinstance(outcome[poison], EngineError)
        stats = pool.stats()
        assert (stats.queued, stats.in_flight) == (0, 0)
        assert len(stats.replicas) <= maximum
        await pool.close()

    run_virtual(work())
