"""A Slurm cluster on this machine, for as long as a test needs it: a controller and two nodes, all without root.

The nodes are two daemons whose names are loopback addresses, so that a node's name leads to it as on a real cluster.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "sinfo", "squeue")

# Jobs in `graceful` and `abrupt` make way for those in `urgent`; in `graceful` they get a minute for it by the
# partition's settings, in `abrupt` by the cluster's (KillWait). A requeued job waits until its credentials expire.
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2
KillWait=60
PartitionName=graceful Nodes=ALL PriorityTier=1 GraceTime=60 Default=YES
PartitionName=abrupt Nodes=ALL PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


def find(program: str) -> str | None:
    """Where a program is, also where only the superuser would find it."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[None]:
    """Start the cluster, which keeps its files in the folder; `slurm` talks to it until the block ends."""
    lines = [_CONFIGURATION.format(user=getpass.getuser(), folder=folder)]
    with contextlib.ExitStack() as sockets:
        opened = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(1 + len(NODES))]
        ports = [each.getsockname()[1] for each in opened]
    lines.append(f"SlurmctldPort={ports[0]}")
    for node, port in zip(NODES, ports[1:], strict=True):
        (folder / node).mkdir()
        lines.append(f"NodeName={node} Port={port} CPUs=4")
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
    files |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
    with contextlib.ExitStack() as running:
        running.callback(os.environ.pop, "SLURM_CONF")
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        # Others may enter the folders that pytest makes only by force.
        _daemon(running, "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        wait_until(files["socket"].exists)
        _daemon(running, "slurmctld", "-D")
        for node in NODES:
            _daemon(running, "slurmd", "-D", "-N", node)
        wait_until(lambda: _idle() == len(NODES))
        try:
            yield
        finally:
            slurm("scancel", f"--user={getpass.getuser()}")
            wait_until(lambda: not slurm("squeue", "--noheader"))


def _daemon(running: contextlib.ExitStack, program: str, *arguments: str) -> None:
    process = subprocess.Popen([find(program), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    running.callback(process.wait)
    running.callback(process.terminate)


def _idle() -> int:
    done = subprocess.run([find("sinfo"), "--noheader", "--Node", "--states=idle"], capture_output=True, text=True)
    return len({line.split()[0] for line in done.stdout.splitlines()})


def slurm(program: str, *arguments: str) -> str:
    """What one of Slurm's programs prints."""
    done = subprocess.run([find(program), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (program, done)
    return done.stdout


def state(job: str) -> str:
    """Of a job, such as RUNNING or COMPLETED."""
    return slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").strip()


def wait_until(condition, seconds: float = 300.0) -> None:
    """Wait; longer where more processes want to run than there are cores.

    Raises:
        TimeoutError: it doesn't come true.
    """
    waited = 0.0
    while not condition():
        if waited > seconds:
            raise TimeoutError(f"{condition} isn't true after {seconds} s")
        time.sleep(0.1)
        waited += 0.1 / max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
