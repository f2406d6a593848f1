"""A signal is acted on however late it comes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from kills import assert_same_run, training

from train.machine.interruption import InterruptedRunError, interruption


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


def test_in_another_thread_signals_do_what_they_did():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def run():
        with interruption(lambda number: number) as interrupted:
            return interrupted.poll(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with ThreadPoolExecutor() as thread:
        assert thread.submit(run).result() == (False, handlers)


def test_a_handler_that_python_did_not_set_gives_way_to_the_usual_one(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: None)
        with interruption(lambda number: number):
            pass
    assert [signal.signal(*each) for each in before.items()] == [signal.SIG_DFL, signal.SIG_DFL]


def in_a_thread(call):
    with ThreadPoolExecutor() as thread:
        thread.submit(call).result()


@pytest.mark.slow
def test_a_model_can_be_trained_in_another_thread(processes, expected, tmp_path):
    finished = processes.start(partial(in_a_thread, training(tmp_path / "run"))).wait()
    assert finished.code == 0, finished
    assert_same_run(tmp_path / "run", expected)


def test_without_a_signal_a_run_ends_as_it_should():
    with interruption(late()) as interrupted:
        interrupted.check_last()
    assert not interrupted.requested
