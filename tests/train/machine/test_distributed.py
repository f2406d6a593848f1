"""Runs of several processes on this machine: equal to that of one, stopped together, and resumed by any number."""

import os
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from kills import training

import train.machine.processes
from jaxcnn.runs.folder import Run, read_epochs, read_predictions
from train.machine.devices import Placement


def signal_when(folder: Path, pattern: str, number: int) -> None:
    """Send this process a signal as soon as the folder holds a file whose name fits."""

    def wait() -> None:
        while not list(folder.glob(pattern)):
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train_together(processes, count: int, folder: Path, **before):
    """A run in `count` processes; `before` gives what one of them does first: p3=... for process 3."""
    coordinator = f"127.0.0.1:{free_port()}"
    started = [
        processes.start(
            training(
                folder,
                "--resume",
                *("--coordinator", coordinator, "--num-processes", str(count), "--process-id", str(index)),
            ),
            before=before.get(f"p{index}"),
        )
        for index in range(count)
    ]
    return [process.wait() for process in started]


def assert_same_up_to_rounding(folder: Path, expected: Path) -> None:
    run, other = Run(folder), Run(expected)
    found, wanted = read_epochs(run), read_epochs(other)
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for line, wanted_line in zip(found, wanted, strict=True):
        for split in ("train", "validation", "test"):
            np.testing.assert_allclose(line[f"{split}_loss"], wanted_line[f"{split}_loss"], rtol=1e-3)
    for split in ("train", "validation", "test"):
        predictions, others = read_predictions(run, split), read_predictions(other, split)
        assert predictions.names == others.names
        # Adam makes a whole step of a gradient that is but rounding, and each number of processes rounds differently.
        np.testing.assert_allclose(predictions.logits, others.logits, atol=2e-2)


@pytest.mark.slow
def test_a_run_moves_between_two_four_and_two_processes_and_ends_as_that_of_one(processes, expected, tmp_path):
    folder = tmp_path / "run"
    # A signal to the second process stops both, after the same step.
    stop = partial(signal_when, folder, "checkpoints/2*", signal.SIGTERM)
    for finished in train_together(processes, 2, folder, p1=stop):
        assert finished.code == 128 + signal.SIGTERM, finished
        assert "stopped by SIGTERM; the run is saved" in finished.err
    assert read_epochs(Run(folder)) == []

    # Of four, one is killed without a word: the others end, and say why, or JAX does.
    kill = partial(signal_when, folder, "checkpoints/7*", signal.SIGKILL)
    *others, killed = train_together(processes, 4, folder, p3=kill)
    assert killed.code < 0
    assert all(finished.code not in (0, 2) for finished in others), others
    assert all(finished.err for finished in others), others

    for finished in train_together(processes, 2, folder):
        assert finished.code == 0, finished
    assert_same_up_to_rounding(folder, expected)


def wait_for_two_seconds() -> None:
    train.machine.processes._START_SECONDS = 2


@pytest.mark.slow
def test_a_process_that_finds_no_other_or_no_free_port_says_so_and_ends(processes, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        for index, reason in enumerate(("Address already in use", "no answer in 2 s")):
            options = ("--coordinator", taken, "--num-processes", "2", "--process-id", str(index))
            finished = processes.start(training(tmp_path / "run", *options), before=wait_for_two_seconds).wait()
            assert (finished.code, finished.err.count("\n")) == (2, 1), finished
            assert finished.err.startswith(f"error: --coordinator {taken}: the processes could not connect (")
            assert reason in finished.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_id": 0}, "--process-id 0: also needs --coordinator and --num-processes"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "--coordinator a: must be HOST:PORT"),
        ({"coordinator": "a:70000", "num_processes": 2, "process_id": 0}, "--coordinator a:70000: must be HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 0, "process_id": 0}, "--num-processes 0: must be at least 1"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process-id 2: must be at least 0 and below 2"),
        ({"distributed": True, "process_id": 0}, "--distributed: asks the cluster itself; leave out --process-id"),
    ],
)
def test_processes_that_can_not_find_one_another_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Placement(**options)
