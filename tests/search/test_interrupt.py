"""Signals that ask a sweep, or a launcher's job, to end."""

import os
import signal
import threading

import pytest

from reg_sweep.search import interrupt


@pytest.fixture
def warned(monkeypatch):
    """Signals that a launcher's own handler of SIGUSR2 received; it ends the process by an exception."""
    heard = []

    def handler(number, frame):
        heard.append(number)
        raise SystemExit(-1)

    before = signal.signal(signal.SIGUSR2, handler)
    yield heard
    signal.signal(signal.SIGUSR2, before)


def test_a_clusters_warning_reaches_the_launcher_and_ends_the_job_as_sigterm_does(warned):
    with interrupt.handled():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR2)
        assert interrupt.received() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
    assert warned == [signal.SIGUSR2]
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGUSR2)  # after the block it is the launcher's again


def test_a_signal_that_nobody_handles_is_left_as_it_was():
    before = signal.getsignal(signal.SIGUSR1)
    with interrupt.handled():
        assert signal.getsignal(signal.SIGUSR1) == before


def test_a_thread_which_gets_no_signals_handles_none():
    seen = []

    def work():
        with interrupt.handled():
            seen.append(interrupt.is_handled())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
