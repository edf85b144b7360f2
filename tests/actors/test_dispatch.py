"""The assignment of units to replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.actors.autoscaling import Bounds, surplus, target_count
from pmpo_ray.actors.deadlines import FACTOR, FIRST_DEADLINE, Pace
from pmpo_ray.actors.dispatch import Backlog, Replica
from pmpo_ray.actors.health import ReplicaState
from pmpo_ray.actors.units import Unit


class Nowhere:
    """A replica that is never called."""

    async def ping(self) -> str:
        raise AssertionError

    start = call = ping

    def end(self) -> None:
        raise AssertionError


def replica(id: int, state: ReplicaState = ReplicaState.READY) -> Replica:  # noqa: A002
    return Replica(id, Nowhere(), state)  # type: ignore[arg-type]


def unit(order: int, weight: float = 1, group: Hashable = None, slots: int = 1) -> Unit:
    return Unit("score", (), weight, order, asyncio.get_running_loop().create_future(), slots, group)


def backlog_of(*units: Unit) -> Backlog:
    backlog = Backlog()
    for one in units:
        backlog.add(one)
    return backlog


def given_to(given: list[tuple[Unit, Replica]]) -> list[tuple[int, int]]:
    """Orders of units with the ids of their replicas."""
    return [(one.order, replica.id) for one, replica in given]


async def test_work_goes_longest_first_to_the_least_loaded_ready_replica() -> None:
    ready = [replica(at) for at in range(2)]
    others = [replica(2 + at, state) for at, state in enumerate(ReplicaState) if state != ReplicaState.READY]
    backlog = backlog_of(*(unit(order, weight) for order, weight in enumerate([1, 1, 10, 1, 1, 1])))
    given = backlog.assign([*ready, *others], slots=1, now=0.0)
    assert given_to(given) == [(2, 0), (0, 1), (1, 1), (3, 0)]
    assert (len(backlog), backlog.slots) == (2, 2)


async def test_the_most_urgent_goes_before_the_longest() -> None:
    late, long = unit(0, 1), unit(1, 9)
    late.urgency, long.urgency = 3, 2
    assert given_to(backlog_of(late, long).assign([replica(0)], slots=1, now=0.0))[0] == (0, 0)


async def test_a_busy_replica_gets_a_second_unit_only_while_there_is_plenty() -> None:
    both = [replica(0), replica(1)]
    backlog = backlog_of(unit(0), unit(1), unit(2))
    # The third would wait behind another one, while it may be that the other replica is done first.
    assert given_to(backlog.assign(both, slots=1, now=0.0)) == [(0, 0), (1, 1)]
    backlog.add(unit(3))
    assert given_to(backlog.assign(both, slots=1, now=0.0)) == [(2, 0)]


async def test_a_group_stays_with_the_replica_that_began_it() -> None:
    both = [replica(0), replica(1)]
    backlog = backlog_of(*(unit(order, 1, "ab"[order % 2]) for order in range(12)))
    groups: dict[int, set[Hashable]] = {0: set(), 1: set()}
    while len(backlog):
        for one, where in backlog.assign(both, slots=1, now=0.0):
            groups[where.id].add(one.group)
        for where in both:
            for one in [*where.outstanding]:
                where.release(one, 0.0)
    assert groups == {0: {"a"}, 1: {"b"}}


async def test_an_idle_replica_takes_from_another_ones_group() -> None:
    both = [replica(0), replica(1)]
    backlog = backlog_of(*(unit(order, 1, "a") for order in range(3)))
    assert {where for _, where in given_to(backlog.assign(both, slots=1, now=0.0))} == {0, 1}


async def test_what_a_lost_replica_began_is_open_to_all_by_its_length() -> None:
    first, second = replica(0), replica(1)
    backlog = backlog_of(unit(0, 5, "a"), unit(1, 5, "a"), unit(2, 5, "a"), unit(3, 1), unit(4, 1))
    assert given_to(backlog.assign([first], slots=1, now=0.0)) == [(0, 0), (1, 0)]
    backlog.disown(first.id)
    assert given_to(backlog.assign([second], slots=1, now=0.0))[0] == (2, 1)


async def test_a_failed_unit_is_tried_elsewhere_and_alone() -> None:
    first, second = replica(0), replica(1)
    second.take(unit(0, 5), now=0.0)
    again = unit(1)
    again.tried_on, again.suspected = [0], True
    backlog = backlog_of(again, *(unit(order) for order in range(2, 8)))
    # The second replica is kept free for the failed unit: nothing more goes there until it is idle.
    assert {where for _, where in given_to(backlog.assign([first, second], slots=1, now=0.0))} == {0}
    second.release(next(iter(second.outstanding)), now=1.0)
    assert given_to(backlog.assign([first, second], slots=1, now=1.0)) == [(1, 1)]
    assert backlog.assign([first, second], slots=1, now=1.0) == []


async def test_a_request_larger_than_a_replicas_slots_runs_all_the_same() -> None:
    backlog = backlog_of(unit(0, slots=40), unit(1, slots=4))
    assert given_to(backlog.assign([replica(0)], slots=8, now=0.0)) == [(0, 0)]


async def test_a_dropped_unit_is_never_given_out() -> None:
    gone, stays = unit(0, 9, "a"), unit(1, 1, "a")
    backlog = backlog_of(gone, stays)
    backlog.drop(gone)
    backlog.drop(gone)
    assert len(backlog) == 1
    assert given_to(backlog.assign([replica(0)], slots=1, now=0.0)) == [(1, 0)]


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc-"), st.integers(1, 5)), max_size=40),
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
)
def test_every_unit_is_given_out_once_and_nobody_starves(
    wanted: list[tuple[int, str, int]], count: int, slots: int, data: st.DataObject
) -> None:
    async def work() -> None:
        replicas = [replica(at) for at in range(count)]
        backlog, given = Backlog(), list[int]()
        waiting = [
            unit(order, weight, None if group == "-" else group, taken)
            for order, (weight, group, taken) in enumerate(wanted)
        ]
        while waiting or len(backlog) or any(where.outstanding for where in replicas):
            for _ in range(data.draw(st.integers(0, 5))):
                if waiting:
                    backlog.add(waiting.pop())
            given += [order for order, _ in given_to(backlog.assign(replicas, slots, 0.0))]
            assert not len(backlog) or all(where.outstanding for where in replicas)
            busy = [where for where in replicas if where.outstanding]
            if busy:
                where = data.draw(st.sampled_from(busy))
                where.release(next(iter(where.outstanding)), 0.0)
            if data.draw(st.integers(0, 9)) == 0:
                backlog.disown(data.draw(st.integers(0, count)))
        assert sorted(given) == list(range(len(wanted)))

    asyncio.run(work())


def test_deadlines_follow_what_was_measured() -> None:
    pace = Pace(grace=60.0)
    assert pace.allowance(1000, tries=0) == FIRST_DEADLINE
    for seconds in (1.0, 2.0, 300.0):
        pace.observe(1000, seconds)
    # The median: one straggler does not move it.
    assert pace.allowance(500, tries=0) == pytest.approx(60 + FACTOR * 0.002 * 500)
    assert pace.allowance(500, tries=2) == pytest.approx(4 * (60 + FACTOR * 0.002 * 500))


@pytest.mark.parametrize(("demand", "count"), [(0, 1), (2, 1), (3, 2), (13, 7), (1000, 8)])
def test_replicas_follow_the_work_within_their_bounds(demand: int, count: int) -> None:
    assert target_count(Bounds(1, 8, 60.0), demand, slots=1) == count


def test_idle_replicas_go_after_the_debounce_the_youngest_and_the_unplaced_first() -> None:
    bounds = Bounds(1, 8, idle_seconds=60.0)
    live = [
        replica(0),
        replica(1),
        replica(2),
        replica(3, ReplicaState.PENDING),
        replica(4, ReplicaState.STARTING),
    ]
    for at, one in enumerate(live):
        one.idle_since = 10.0 * at
    assert surplus(bounds, live, demand=0, slots=1, now=59.0) == []
    assert [one.id for one in surplus(bounds, live, demand=0, slots=1, now=75.0)] == [1, 0]
    assert [one.id for one in surplus(bounds, live, demand=0, slots=1, now=95.0)] == [3, 2, 1, 0]
    assert [one.id for one in surplus(bounds, live, demand=8, slots=1, now=95.0)] == [3]
    assert surplus(bounds, live, demand=10, slots=1, now=95.0) == []
