"""Handlers of SIGINT and SIGTERM: what the first and the second signal do, and that they are put back."""

import os
import signal
import threading

import pytest

from llmft.utils import signals


@pytest.fixture(autouse=True)
def handlers():
    """Those of somebody else, found again by every test."""
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    ours = {number: lambda *_: None for number in signals.STOPPING}
    for number, handler in ours.items():
        signal.signal(number, handler)
    yield ours
    for number, handler in before.items():
        signal.signal(number, handler)


def current():
    return {number: signal.getsignal(number) for number in signals.STOPPING}


@pytest.mark.parametrize("number", signals.STOPPING)
def test_the_first_signal_asks_to_stop_and_the_second_one_interrupts(number, handlers):
    stops = []
    with signals.graceful(lambda: stops.append(1)):
        os.kill(os.getpid(), number)
        assert stops == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert stops == [1]
    assert current() == handlers


def test_only_the_named_signals_are_handled(handlers):
    with signals.graceful(lambda: None, signal.SIGINT):
        assert signal.getsignal(signal.SIGTERM) is handlers[signal.SIGTERM]
        assert signal.getsignal(signal.SIGINT) is not handlers[signal.SIGINT]


def test_handlers_are_put_back_after_an_error(handlers):
    def fails():
        with signals.restored():
            signals.on_terminate()
            signals.ignored_in_worker()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fails()
    assert current() == handlers


def test_sigterm_interrupts(handlers):
    signals.on_terminate(unless_set=True)
    assert current() == handlers
    signals.on_terminate()
    with pytest.raises(KeyboardInterrupt):
        signals.terminate()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signals.on_terminate(unless_set=True)
    with pytest.raises(KeyboardInterrupt):
        signals.terminate()


def test_another_thread_trains_without_handlers(handlers):
    found = []

    def train():
        with signals.graceful(lambda: None):
            found.append(current())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [handlers]


def test_the_end_of_lightning_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), signals.as_interrupt():
        raise SystemExit(1)


def test_a_signal_by_its_name():
    assert signals.name_of(-9) == "SIGKILL"
