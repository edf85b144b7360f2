"""A replica's state machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_ray.actors.health import FINAL, TRANSITIONS, ReplicaEvent, ReplicaState, advance, takes_work

EVENTS = st.lists(st.sampled_from(ReplicaEvent), max_size=30)


def walk(events: list[ReplicaEvent]) -> list[ReplicaState]:
    """The states passed through, impossible events left out."""
    states = [ReplicaState.PENDING]
    for event in events:
        if (states[-1], event) in TRANSITIONS:
            states.append(advance(states[-1], event))
    return states


@given(EVENTS, st.sampled_from(sorted(FINAL)), st.sampled_from(ReplicaEvent))
def test_dead_and_retired_are_final(
    events: list[ReplicaEvent], final: ReplicaState, event: ReplicaEvent
) -> None:
    assert all(state not in FINAL for state in walk(events)[:-1])
    with pytest.raises(ValueError, match=str(final)):
        advance(final, event)


@given(EVENTS)
def test_work_is_only_given_in_ready(events: list[ReplicaEvent]) -> None:
    for state in walk(events):
        assert takes_work(state) == (state is ReplicaState.READY)


@given(EVENTS)
def test_after_a_failed_call_only_an_answered_probe_leads_back_to_work(events: list[ReplicaEvent]) -> None:
    state = ReplicaState.PENDING
    for event in (ReplicaEvent.PLACED, ReplicaEvent.STARTED, ReplicaEvent.CALL_FAILED):
        state = advance(state, event)
    for event in events:
        if event is not ReplicaEvent.PROBE_ANSWERED and (state, event) in TRANSITIONS:
            state = advance(state, event)
            assert not takes_work(state)


def test_every_state_but_a_final_one_can_be_left_for_retirement() -> None:
    for state in set(ReplicaState) - FINAL:
        assert advance(state, ReplicaEvent.RETIRE) is ReplicaState.RETIRED


def test_an_impossible_event_is_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match=r"starting.*probe answered"):
        advance(ReplicaState.STARTING, ReplicaEvent.PROBE_ANSWERED)
