"""Runs and sweeps that Slurm and Open MPI start, preempt and start again, as docs/scale.md says.

Slurm is a real one, on this machine alone (tests/plugins/slurm.py). `apt-get install slurm-wlm munge openmpi-bin` gets
what these tests need; without it they are skipped.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slurm
from kills import OPTIONS, assert_same_run
from slurm import slurm_cluster, state, wait_until

from jaxcnn.runs.folder import Run, read_epochs

pytestmark = [pytest.mark.slow, pytest.mark.schedulers]

TINY = [sys.executable, str(Path(slurm.__file__).with_name("tiny_command.py"))]
SCALE = Path(__file__).parents[2] / "docs" / "scale.md"


@pytest.fixture(scope="module")
def _slurm(tmp_path_factory):
    if missing := [name for name in slurm.PROGRAMS if slurm.find(name) is None]:
        pytest.skip(f"Slurm is not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
    with slurm_cluster(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture
def _slowly(monkeypatch):
    """Steps that take half a second more, so that there is time to interrupt them."""
    monkeypatch.setenv("JAXCNN_TESTS_PAUSE", "0.5")
    monkeypatch.setenv("PYTHONPATH", str(SCALE.parents[1]))


def documented_job(number: int, before: str, after: str) -> str:
    """A job script of the docs, with what the cluster of the tests lacks, and the command, replaced."""
    script = re.findall(r"```bash\n(#!.*?)```", SCALE.read_text("utf-8"), re.DOTALL)[number]
    assert before in script
    script = script.replace(before, after)
    (command,) = re.findall(r"python -m train (?:sweep )?simplecnn --data \S+(?: --batch-size 512)?", script)
    kind = " sweep tiny" if "sweep" in command else " tiny"
    return script.replace(command, " ".join(TINY) + kind + " " + " ".join(OPTIONS))


def submit(folder: Path, script: str, *options: str) -> str:
    """The number of the job, which prints to files in the folder."""
    (folder / "job.sh").write_text(script)
    return slurm.slurm("sbatch", "--parsable", f"--chdir={folder}", *options, "job.sh").strip()


@pytest.mark.usefixtures("_slurm", "_slowly")
@pytest.mark.parametrize(("tasks", "partition"), [(2, "abrupt"), (4, "graceful")])
def test_a_job_that_is_preempted_is_queued_again_and_ends_with_the_same_bits(tmp_path, monkeypatch, tasks, partition):
    folder, expected = tmp_path / "run", tmp_path / "expected"
    script = documented_job(0, "--ntasks-per-node=8 --gpus-per-node=8", f"--ntasks={tasks}")
    job = submit(tmp_path, script.replace("/shared/runs/a", "run"), f"--partition={partition}", "--output=job.out")
    wait_until((folder / "checkpoints" / "2").exists)
    slurm.slurm("srun", "--partition=urgent", "--nodes=2", "--exclusive", "true")
    monkeypatch.setenv("JAXCNN_TESTS_PAUSE", "0")
    uninterrupted = ["srun", "--overlap", "--nodes=2", f"--ntasks={tasks}", *TINY, "tiny", *OPTIONS, "--distributed"]
    slurm.slurm(*uninterrupted, "--run-dir", str(expected))
    wait_until(lambda: state(job) == "COMPLETED")

    printed = (tmp_path / "job.out").read_text("utf-8")
    assert f"{tasks} x cpu in {tasks} processes" in printed
    assert "Restarts=1" in slurm.slurm("scontrol", "show", "job", job)
    assert printed.count("resumed ") == 1, printed
    # Where there is a grace period the step alone is told, and what it says can be seen.
    assert printed.count("stopped by SIGTERM; the run is saved") == (tasks if partition == "graceful" else 0), printed
    assert_same_run(folder, expected)


@pytest.mark.usefixtures("_slurm", "_slowly")
def test_an_array_of_jobs_shares_a_sweep_and_the_last_writes_the_tables(tmp_path, expected):
    folder = tmp_path / "sweep"
    script = documented_job(1, "--gpus-per-task=1", "").replace("/shared/runs/sweep", "sweep")
    script = re.sub(r"(--grid \S+ )+", "--grid seed=0,1,2,3 ", script)
    job = submit(tmp_path, script, "--array=0-2", "--output=%a.out")
    # One of them dies without a word, in the middle of a model.
    wait_until((folder / "1-seed=0" / "checkpoints" / "2").exists)
    first = next(place for place in range(3) if "run        sweep/1-seed=0" in printed_by(tmp_path, place))
    slurm.slurm("scancel", "--signal=KILL", "--full", f"{job}_{first}")
    wait_until(lambda: not slurm.slurm("squeue", "--noheader", f"--jobs={job}"))

    printed = [printed_by(tmp_path, place) for place in range(3)]
    others = [text for place, text in enumerate(printed) if place != first]
    assert all("compiled" in text for text in printed), printed
    # No model was trained by two, but for that of the one that died.
    assert sum(text.count("compiled") for text in printed) == 5, printed
    assert sum("The best checkpoint of each model" in text for text in others) == 1, printed
    assert sum("the last one to end writes the tables" in text for text in others) == 1, printed
    with (folder / "table.csv").open() as file:
        assert sorted(line["model"] for line in csv.DictReader(file)) == [f"{n + 1}-seed={n}" for n in range(4)]
    assert_same_run(folder / "1-seed=0", expected)


def printed_by(folder: Path, place: int) -> str:
    path = folder / f"{place}.out"
    return path.read_text("utf-8") if path.exists() else ""


@pytest.mark.usefixtures("_slowly")
def test_open_mpi_stops_a_run_and_starts_it_again(tmp_path, monkeypatch):
    if shutil.which("mpirun") is None:
        pytest.skip("Open MPI is not installed: mpirun (apt-get install openmpi-bin)")

    def start(folder: Path) -> "subprocess.Popen[str]":
        page = SCALE.read_text("utf-8")
        command = re.search(r"^    (mpirun .*) python -m train simplecnn", page, re.MULTILINE)[1].split()
        command[command.index("-n") + 1] = "2"
        options = ["tiny", *OPTIONS, "--distributed", "--resume", "--run-dir", str(folder)]
        # By its own rules it starts neither for root nor more processes than there are cores.
        rules = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        rules |= {"OMPI_MCA_rmaps_base_oversubscribe": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*command, *TINY, *options], env=os.environ | rules, **pipes)

    folder, expected = tmp_path / "run", tmp_path / "expected"
    started = start(folder)
    wait_until((folder / "checkpoints" / "2").exists)
    first, *_ = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text("utf-8").split()
    os.kill(int(first), signal.SIGTERM)
    printed, _ = started.communicate()
    assert printed.count("stopped by SIGTERM; the run is saved") == 2, printed
    assert started.returncode == 143
    assert read_epochs(Run(folder)) == []

    monkeypatch.setenv("JAXCNN_TESTS_PAUSE", "0")
    for each in (folder, expected):
        finished = start(each)
        printed, _ = finished.communicate()
        assert finished.returncode == 0, printed
    assert_same_run(folder, expected)
