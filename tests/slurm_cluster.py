"""A real Slurm of two virtual nodes on this machine, without systemd: Debian's slurm-wlm and munge, started as root.

Everything lies in one folder, listens on ports of its own, and ends with the block. Settings by
https://slurm.schedmd.com/slurm.conf.html; two slurmd on one machine by NodeHostname and `slurmd -N`.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
"""States that a job does not leave; all others pass."""
PROGRAMS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch", "srun", "scontrol", "squeue", "sinfo", "scancel")

CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=10
InactiveLimit=0
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=debug Nodes=n1,n2 Default=YES OverSubscribe=FORCE:4 MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """What it takes and this machine has not."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    return absent + ([] if os.geteuid() == 0 else ["root"])


def search_path() -> str:
    """Debian keeps daemons where a user's PATH may not reach."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass
class Cluster:
    """Its folder, and how to speak with it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For sbatch and the like."""
        kept = {name: value for name, value in os.environ.items() if not re.match("SLURM_|SBATCH_|RANK$|WORLD_", name)}
        return kept | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}

    def run(self, *command: str, cwd: Path | None = None, **variables: str) -> str:
        """What a command prints. Fails with what it says."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment | variables, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, *command: str, cwd: Path, **variables: str) -> str:
        """sbatch with these words; the job's number."""
        return self.run("sbatch", "--parsable", *command, cwd=cwd, **variables).strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job: JobState, Restarts, ExitCode, ..."""
        return dict(
            word.split("=", 1) for word in self.run("scontrol", "-o", "show", "job", number).split() if "=" in word
        )

    def wait(self, number: str, states: set[str], timeout_s: float = 420, hurry: bool = True) -> dict[str, str]:
        """Until the job is in one of these states. A job that waits for its time after a requeue is told to start."""
        ends = time.monotonic() + timeout_s
        while (job := self.job(number))["JobState"] not in states:
            assert time.monotonic() < ends, f"job {number} is {job['JobState']} still: {job}"
            if hurry and job["JobState"] == "PENDING" and job.get("Reason") == "BeginTime":
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now")
            time.sleep(0.5)
        return job

    def finish(self, number: str, timeout_s: float = 420) -> dict[str, str]:
        """Waits for the job's good end, or fails with what it printed."""
        job = self.wait(number, ENDED, timeout_s)
        assert job["JobState"] == "COMPLETED", f"{job['JobState']} {job['ExitCode']}: {self.output(job)}"
        return job

    def output(self, job: dict[str, str]) -> str:
        """What the job has printed."""
        path = Path(job["StdOut"])
        return path.read_text() if path.is_file() else ""


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Starts it and waits until both nodes are idle; ends every daemon that it started."""
    folder.chmod(0o755)
    (folder / "state").mkdir()
    host = socket.gethostname().split(".")[0]
    ports = free_ports(3)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, ports=ports))
    made = Cluster(folder)
    daemons = [start_munge(folder)]
    try:
        commands = (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        daemons += [subprocess.Popen(command, env=made.environment, **quiet) for command in commands]
        ends = time.monotonic() + 60
        while made_states(made) != ["idle", "idle"]:
            assert time.monotonic() < ends, (folder / "slurmctld.log").read_text()[-3000:]
            time.sleep(0.2)
        yield made
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()


def made_states(made: Cluster) -> list[str]:
    """The state of each node; none while nobody answers."""
    done = subprocess.run(["sinfo", "-hN", "-o", "%t"], env=made.environment, capture_output=True, text=True)
    return done.stdout.split()


def start_munge(folder: Path) -> "subprocess.Popen[bytes]":
    """munged with a key and a socket of its own, in the foreground."""
    for name in ("munge.key", "munge.seed"):
        (folder / name).write_bytes(os.urandom(1024))
        (folder / name).chmod(0o600)
    words = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed", "key")}
    options = [f"--{'key' if name == 'key' else name}-file={path}" for name, path in words.items() if name != "socket"]
    command = ["munged", "--foreground", "--force", f"--socket={words['socket']}", *options]
    return subprocess.Popen(
        command, env={**os.environ, "PATH": search_path()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody has just now, below those that Linux gives to outgoing connections, so that none is taken
    before it is used."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 32000), 1000):
        with socket.socket() as held:
            if held.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports between 20000 and 32000")
