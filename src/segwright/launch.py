"""Which of how many processes this one is, from the environment that a launcher left. Floor 1: imports no torch.

torchrun, `accelerate launch` and `deepspeed` set RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT (https://docs.pytorch.org/docs/stable/elastic/run.html). Slurm's srun sets variables of its own
(https://slurm.schedmd.com/srun.html, "OUTPUT ENVIRONMENT VARIABLES"); `launched` derives the others from them.
"""

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from segwright.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One process among those of a run."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    local_processes: int = 1
    address: str = "127.0.0.1"
    """Where rank 0 is met."""
    port: int = 29500
    by: str = "nobody"
    """What started them: `a launcher`, `srun`, or `nobody`: this process is alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.processes or not 0 <= self.local_rank < self.local_processes <= self.processes:
            raise ConfigError(
                f"the launcher says that this is process {self.rank} of {self.processes} (counted from 0), and "
                f"{self.local_rank} of {self.local_processes} on this machine, which cannot be. Start the run with "
                "torchrun, accelerate launch, deepspeed or srun, or unset RANK, LOCAL_RANK and WORLD_SIZE."
            )

    def variables(self) -> dict[str, str]:
        """The same as torch and its relatives read it."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.processes),
            "LOCAL_WORLD_SIZE": str(self.local_processes),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def launched(variables: Mapping[str, str] | None = None) -> Launch:
    """What the environment says, or `variables`.

    Raises:
        ConfigError: it contradicts itself, or names processes of which nobody would hear.
    """
    values = os.environ if variables is None else variables
    if "WORLD_SIZE" in values or "RANK" in values:
        return of_launcher(values)
    if number(values, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return of_srun(values)
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"):
        if number(values, name, 1) > 1:
            raise ConfigError(
                f"{name} is {values[name]}, so an MPI launcher started several processes, but not RANK and "
                "WORLD_SIZE, so each would train by itself. Start the run with torchrun or srun."
            )
    return Launch()


def is_main() -> bool:
    """Whether this process is the one that speaks; for what has no engine at hand."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def alone_among(variables: Mapping[str, str] | None = None) -> int:
    """Tasks of a Slurm job of which this process would use one, since it was not started by srun; else 1."""
    values = os.environ if variables is None else variables
    inside = "SLURM_STEP_NUM_TASKS" in values or "WORLD_SIZE" in values
    return 1 if inside else number(values, "SLURM_NTASKS", 1)


def of_launcher(values: Mapping[str, str]) -> Launch:
    """torchrun's variables; those of the machine may be missing where there is one machine."""
    missing = [name for name in ("RANK", "WORLD_SIZE") if name not in values]
    processes = number(values, "WORLD_SIZE", 1)
    if processes > 1:
        missing += [name for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in values]
    if missing:
        raise ConfigError(
            f"the launcher set {'WORLD_SIZE' if 'WORLD_SIZE' in values else 'RANK'}, but not {', '.join(missing)}, "
            "so the processes cannot find each other. Start the run with torchrun, accelerate launch, deepspeed, srun."
        )
    local = number(values, "LOCAL_RANK", 0)
    return Launch(
        rank=number(values, "RANK", 0),
        processes=processes,
        local_rank=local,
        local_processes=number(values, "LOCAL_WORLD_SIZE", processes),
        address=values.get("MASTER_ADDR", "127.0.0.1"),
        port=number(values, "MASTER_PORT", 29500),
        by="a launcher",
    )


def of_srun(values: Mapping[str, str]) -> Launch:
    """From Slurm's variables of a step."""
    node, step = number(values, "SLURM_NODEID", 0), number(values, "SLURM_STEP_ID", 0)
    tasks = tasks_per_node(values.get("SLURM_STEP_TASKS_PER_NODE") or values.get("SLURM_TASKS_PER_NODE", "1"))
    nodes = values.get("SLURM_STEP_NODELIST") or values.get("SLURM_JOB_NODELIST", "")
    return Launch(
        rank=number(values, "SLURM_PROCID", 0),
        processes=number(values, "SLURM_STEP_NUM_TASKS", 1),
        local_rank=number(values, "SLURM_LOCALID", 0),
        local_processes=tasks[node] if node < len(tasks) else 1,
        address=values.get("MASTER_ADDR") or address_of(first_host(nodes)),
        # of its own for each job and step, below the ports that the kernel gives away
        port=number(values, "MASTER_PORT", 12000 + (number(values, "SLURM_JOB_ID", 0) * 7 + step) % 20000),
        by="srun",
    )


def number(values: Mapping[str, str], name: str, otherwise: int) -> int:
    """An integer of the environment. Raises `ConfigError`."""
    text = values.get(name, "")
    if not text:
        return otherwise
    if not re.fullmatch(r"-?\d+", text):
        raise ConfigError(f"{name} is '{text}' in the environment, which is no number. Unset it, or mend the launcher.")
    return int(text)


def tasks_per_node(text: str) -> list[int]:
    """Slurm's `2(x3),1` -> [2, 2, 2, 1]."""
    out = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        out += [int(count)] * int(times.rstrip(")") or 1)
    return out


def first_host(nodes: str) -> str:
    """The first of Slurm's list: `gpu[03-05,7],big1` -> gpu03; `a[1-2]b[3-4]` -> a1b3."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None  # it may match nothing, but never fails
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


def address_of(host: str) -> str:
    """What a node is reached by: its name where that resolves, else the address that Slurm itself uses."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        shown = subprocess.run(["scontrol", "show", "node", host], capture_output=True, text=True, check=False).stdout
        found = re.search(r"NodeAddr=(\S+)", shown)
        return found[1] if found else host
    return host
