"""A run is never lost: killed at any moment, out of disk, in use, damaged, it goes on to the bits it would have had."""

import json
import os
import resource
import shutil
from functools import partial

import pytest
from kills import Moment, assert_same_run, killed_at, train

from jaxcnn.errors import UserError
from jaxcnn.runs.folder import Run, read_environment
from jaxcnn.runs.lock import lock_run
from train.loop import write_errors_in_one_line

pytestmark = pytest.mark.slow


def shown(finished, word: str) -> list[str]:
    """The lines of the output that begin with the word."""
    return [line for line in finished.out.splitlines() if line.startswith(word)]


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(processes, expected, tmp_path):
    """One run, killed in every kind of window; `python tests/faults.py` kills many runs at random moments."""
    temporary = "checkpoints/{}.orbax-checkpoint-tmp"
    moments = {
        "config.json is not there yet": Moment("os.rename .config-*.json"),
        "a checkpoint is being written": Moment(f"os.mkdir {temporary.format(2)}/state.orbax-checkpoint-tmp"),
        "a checkpoint is whole but for its name": Moment(f"os.rename {temporary.format(4)}"),
        "an old checkpoint is half deleted": Moment("os.remove _METADATA"),
        "the epoch has its best classifier and no line": Moment("os.rename .metrics-*.jsonl"),
        "the old best classifier is away, the new one not there": Moment("os.rename .best-*/written"),
        "predictions are being written": Moment("os.rename predictions/.validation-*.npz"),
        "what marks the run as finished is not there": Moment("os.rename predictions/.test-*.npz"),
    }
    folder = tmp_path / "run"
    for window, moment in moments.items():
        killed = train(processes, folder, "--resume", before=killed_at(folder, moment))
        assert killed.code == -9, f"{window}: {killed}"
    assert "unlike" in json.loads((Run(folder).best / "manifest.json").read_text("utf-8"))
    finished = train(processes, folder, "--resume")
    assert finished.code == 0, finished.err
    assert_same_run(folder, expected)


@pytest.fixture(scope="module")
def stopped(processes, tmp_path_factory):
    """A run that was killed in its second epoch; it has the checkpoints after steps 4 and 5."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    moment = Moment("os.rename checkpoints/7.orbax-checkpoint-tmp")
    assert train(processes, folder, before=killed_at(folder, moment)).code == -9
    return folder


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of the run that was stopped."""
    return Run(shutil.copytree(stopped, tmp_path / "run"))


def limit_files(size: int) -> None:
    """No file may become larger: what is left of a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def assert_one_line(finished, *words: str) -> None:
    """The process has refused with exit code 2 and one line that holds the words."""
    assert finished.code == 2, finished
    assert finished.err.count("\n") == 1, finished.err
    assert all(word in finished.err for word in words), finished.err


def test_a_full_disk_stops_a_run_and_loses_nothing(processes, expected, run):
    """Checkpoints are written in the background; that one failed comes to light all the same."""
    finished = train(processes, run.folder, "--resume", before=partial(limit_files, 20_000))
    assert_one_line(finished, f"error: {run.checkpoints}: File too large; fix that, then continue with --resume")
    assert {"4", "5"} <= {path.name for path in run.checkpoints.iterdir()}
    assert train(processes, run.folder, "--resume").code == 0
    assert_same_run(run.folder, expected)


def test_a_disk_that_is_full_in_the_end_leaves_the_predictions_as_they_were(processes, expected, tmp_path):
    run = Run(shutil.copytree(expected, tmp_path / "run"))
    finished = train(processes, run.folder, "--resume", before=partial(limit_files, 500))
    assert_one_line(finished, f"error: {run.folder}: File too large; fix that, then continue with --resume")
    assert_same_run(run.folder, expected)


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(processes, expected, run):
    largest = max((run.checkpoints / "5").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(bytes(content))
    environment = read_environment(run)
    environment["packages"]["jax"] = "0.1"
    run.environment.write_text(json.dumps(environment))

    finished = train(processes, run.folder, "--resume")
    assert finished.code == 0, finished.err
    (line,) = shown(finished, "damaged")
    assert f"{run.checkpoints / '5'} is damaged" in line
    assert shown(finished, "resumed") == ["resumed    in epoch 1, after step 4 of 5"]
    (line,) = shown(finished, "note")
    assert "jax was 0.1, is" in line
    assert_same_run(run.folder, expected)


def test_a_run_that_is_in_use_is_left_alone(processes, run):
    with lock_run(run):
        finished = train(processes, run.folder, "--resume")
        assert_one_line(finished, f"{run.folder}: in use by process {os.getpid()} on ", "wait until it ends")


@pytest.mark.parametrize("name", ["config.json", "data.json", "environment.json", "metrics.jsonl"])
def test_a_damaged_file_is_named_and_nothing_is_lost(processes, run, name):
    (run.folder / name).write_bytes(b"\xff")
    before = whole_files(run)
    assert_one_line(train(processes, run.folder, "--resume"), f"{run.folder / name}: is damaged", "restore the file")
    assert whole_files(run) == before


def whole_files(run):
    return {path for path in run.folder.rglob("*") if "orbax-checkpoint-tmp" not in str(path)}


def test_an_error_that_has_no_number_is_told_in_its_own_words(tmp_path):
    """A TimeoutError is an OSError without one."""
    message = "run: the save took too long; fix that"
    with pytest.raises(UserError, match=message), write_errors_in_one_line(tmp_path / "run"):
        raise TimeoutError("the save took too long")
