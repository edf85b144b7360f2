"""The signals that end a run: raised, deferred, and left alone where they were ignored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from pmpo_ray.signals import ENDING, Interrupted, deferred, ending_on_signals, handling, number_of


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """The handlers of a process that was not started with ignored signals, as these tests may be."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", ENDING)
def test_every_ending_signal_raises_with_its_number(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, ending_on_signals():
        send(number)
    assert number_of(caught.value) == number
    assert signal.getsignal(number) is before
    assert number_of(KeyboardInterrupt()) == signal.SIGINT


def test_deferred_signals_wait_for_the_end_of_the_block_and_the_first_counts() -> None:
    during: list[list[int]] = []

    def work() -> None:
        with deferred() as noted:
            send(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            during.append(list(noted))

    with pytest.raises(Interrupted) as caught, ending_on_signals():
        work()
    assert during == [[signal.SIGTERM, signal.SIGINT, signal.SIGHUP]]
    assert caught.value.number == signal.SIGTERM


def test_an_error_in_a_deferring_block_goes_before_its_signals() -> None:
    def work() -> None:
        with deferred():
            send(signal.SIGTERM)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        work()


def test_a_signal_that_was_ignored_stays_ignored_except_sigterm() -> None:
    """As under nohup, and in the background jobs of shells."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        with pytest.raises(Interrupted) as caught, ending_on_signals():
            send(signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_another_thread_changes_no_handler() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    during: list[object] = []

    def work() -> None:
        with handling(lambda *_: None):
            during.extend(signal.getsignal(number) for number in ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == before
