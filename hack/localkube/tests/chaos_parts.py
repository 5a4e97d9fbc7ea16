"""A fault and a commit that several tests of chaos use."""

from __future__ import annotations

from localkube.scenarios.runner.case import Fault, nothing
from outside.observer import Commit

QUICK = Fault(name="quick", what="q", strike=nothing, evidence=frozenset({"PodDeleted"}), goal=0.2)


def commit(holder: str, *, epoch: str, shard: int = 0, at: float = 1.0) -> Commit:
    return Commit("default", "c00", shard, epoch, 1, f"pod-{holder}", holder, 1, at, at)
