"""How much memory an operator process holds when it has begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.plane.processes import Process

START_GOAL_MIB = 100.0
"""What one operator may hold at most until it looks after its first cluster."""
BEGINNINGS = {"no-cluster": "started, no cluster", "one-cluster": "started, one cluster of 2 shards and 1 spare that is ready"}


def memory_mib(pid: int, field_name: str = "VmRSS") -> float:
    """Resident memory of a process in MiB (`proc(5)`, status): VmRSS now, VmHWM at most. LocalKubeError when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(f"{field_name}:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError) as error:
        msg = f"the memory of process {pid} cannot be read: it has ended"
        raise LocalKubeError(msg) from error


def most_mib(operators: Iterable[Process]) -> float:
    """The most that any of these processes has held so far, MiB."""
    return max(memory_mib(process.pid, "VmHWM") for process in operators)


def too_much(found: Mapping[str, float]) -> list[str]:
    """One sentence for each beginning (a key of BEGINNINGS) at which an operator held more than the goal."""
    return [
        f"memory: an operator held {mib:.0f} MiB ({BEGINNINGS[name]}), the goal is {START_GOAL_MIB:g} MiB"
        for name, mib in found.items()
        if mib > START_GOAL_MIB
    ]
