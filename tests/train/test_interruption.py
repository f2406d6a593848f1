"""A signal is acted on however late it comes."""

import os
import signal

import pytest

from train.interruption import InterruptedRunError, interruption


def late():
    """An agreement that answers with what was asked the time before, as that of several processes does."""
    asked = [0]

    def agree(number):
        asked.append(number)
        return asked[-2]

    return agree


def test_a_signal_after_the_last_poll_ends_the_run_all_the_same():
    with interruption(late()) as interrupted:
        assert not interrupted.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InterruptedRunError, match="SIGTERM") as error:
            interrupted.check_last()
    assert error.value.exit_code == 128 + signal.SIGTERM


@pytest.fixture
def _sigint_raises():
    """A shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint_raises")
def test_schedulers_send_sigterm_twice_and_people_interrupt_twice():
    with interruption(lambda number: number) as interrupted:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.poll()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_without_a_signal_a_run_ends_as_it_should():
    with interruption(late()) as interrupted:
        interrupted.check_last()
    assert not interrupted.requested
