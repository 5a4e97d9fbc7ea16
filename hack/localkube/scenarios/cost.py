"""What the operator costs: writes by the audit log, memory and processor time by the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from localkube import LocalKubeError, Obj
from localkube.plane.controlplane import Write
from localkube.plane.operators import NAME, NAMESPACE
from localkube.plane.processes import Process

STEADY_S = 60.0
OPERATOR_USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"
NOT_COUNTED = frozenset({"events", "leases"})
START_GOAL_MIB = 128.0
"""What one operator may hold at most until it manages its first cluster: what the chart requests for it."""
BEGINNINGS = {"no-cluster": "started, no cluster", "one-cluster": "started, one cluster of 2 shards and 1 spare that is ready"}


def operator_writes(writes: Iterable[Write], begun: float, ended: float) -> list[Write]:
    """The operator's writes that arrived between two times (`time.time()`), Events and Leases apart, rejected ones included."""
    mine = (write for write in writes if write.user == OPERATOR_USER and write.resource not in NOT_COUNTED)
    return [write for write in mine if begun <= datetime.fromisoformat(write.at).timestamp() <= ended]


def until_reported(writes: Sequence[Write]) -> int:
    """How many of a failover's writes were made until its first report (a write of a status), that one included."""
    return next((number for number, write in enumerate(writes, 1) if write.subresource == "status"), len(writes))


def spelled(writes: Iterable[Write]) -> str:
    """Which writes, such as ``2 patch pods, 1 patch services``."""
    kinds = Counter(f"{write.verb} {write.resource}{'/' if write.subresource else ''}{write.subresource}" for write in writes)
    return ", ".join(f"{times} {kind}" for kind, times in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))) or "none"


def of(windows: Mapping[str, Sequence[tuple[float, float]]], writes: Sequence[Write]) -> dict[str, Obj]:
    """What each case cost in writes of the operator: per fault how many, and how many until the first report; which the worst one made."""
    found = {case: [operator_writes(writes, begun, ended) for begun, ended in times] for case, times in windows.items() if times}
    return {
        case: {
            "writes": [len(one) for one in each],
            "until_reported": [until_reported(one) for one in each],
            "worst": spelled(next(one for one in each if len(one) == max(map(len, each)))),
        }
        for case, each in found.items()
    }


def restless(found: Mapping[str, Obj]) -> list[str]:
    """A sentence if the operator wrote although nothing happened."""
    steady = found.get("steady")
    if steady is None or not steady["writes"][0]:
        return []
    return [f"steady: {steady['writes'][0]} writes in {STEADY_S:g} s though nothing happened ({steady['worst']}), the goal is none"]


def memory_mib(pid: int, field_name: str = "VmRSS") -> float:
    """Resident memory of a process in MiB (`proc(5)`, status): VmRSS now, VmHWM at most. LocalKubeError when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(f"{field_name}:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError) as error:
        raise LocalKubeError(f"the memory of process {pid} cannot be read: it has ended") from error


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
