"""The conformance table, run against the simulated and the real API server; and against simulated ones that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import pytest

from localkube import kubeconfig
from localkube.plane.controlplane import ControlPlane
from simulation import virtual
from simulation.apiserver import ApiServer, Change, Name
from simulation.budgets import Budgets
from simulation.collector import Collector
from simulation.kinds import WAC, Kind, Named, Obj, own
from simulation.machines import Cluster

from . import controllers, deletion, objects, patches, watches
from .backend import Failure
from .real import RealServer, tls_of
from .rows import ROWS
from .simulated import SimulatedServer

Watch = Collector._watch

__all__ = ["controllers", "deletion", "objects", "patches", "watches"]


Make = Callable[[Callable[[], float]], ApiServer]


class GenerationMovesWithTheStatus(ApiServer):
    def _store(self, actor: str, verb: str, kind: Kind, name: Name, before: Obj | None, after: Obj, *, by_version: bool = False) -> Obj:
        if verb == "patch status" and kind is WAC:
            after = {**after, "metadata": {**after["metadata"], "generation": after["metadata"]["generation"] + 1}}
        return super()._store(actor, verb, kind, name, before, after, by_version=by_version)


class ForgetsSilently(ApiServer):
    def since(self, kind: Named, revision: int) -> Sequence[Change]:
        return super().since(kind, max(revision, self._forgotten.get(own(kind), 1000)))


class StatusIsNotApart(ApiServer):
    def _only(self, part: str, kind: Kind, before: Obj, after: Obj) -> Obj:
        return super()._only(part, kind, before, after) if part == "status" or kind is not WAC else after


WRONG: dict[type[ApiServer], set[str]] = {
    GenerationMovesWithTheStatus: {"generation_stays_when_the_status_of_a_cluster_is_written"},
    ForgetsSilently: {"a_watch_from_a_version_that_is_too_old_gets_410"},
    StatusIsNotApart: {
        "merge_ignores_the_status_of_a_cluster",
        "json_patch_ignores_the_status_of_a_cluster",
        "replace_ignores_the_status_of_a_cluster",
        "version_stays_when_only_the_ignored_part_differs",
    },
}
"""Servers that are wrong on purpose, and the rows that must fail: just those."""


def run(name: str, make: Make = ApiServer) -> None:
    """Run a row against a simulated server."""

    async def main(loop: virtual.VirtualLoop) -> None:
        await ROWS[name](SimulatedServer(loop, make))

    virtual.run(main)


def failing(make: Make = ApiServer) -> set[str]:
    """Return the names of the rows that fail against a simulated server."""
    failed = set()
    for name in ROWS:
        try:
            run(name, make)
        except (AssertionError, Failure):
            failed.add(name)
    return failed


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_server_fails_just_its_rows(wrong: type[ApiServer]) -> None:
    assert failing(wrong) == WRONG[wrong]


def test_a_budget_that_ignores_missing_pods_fails_just_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budgets, "_expected", lambda self, pods, namespace: sum("ownerReferences" in pod["metadata"] for pod in pods))
    assert failing() == {"a_budget_counts_a_missing_pod_as_a_disruption"}


def test_a_set_that_condemns_the_lowest_ordinal_first_fails_just_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "_in_batches", lambda self, ones: iter(sorted(ones)))
    assert failing() == {"a_parallel_set_condemns_the_highest_ordinal_first"}


def test_a_collector_that_follows_deletions_only_fails_just_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(self: Collector, change: Change) -> None:
        if change.after is None or "finalizers" in change.after["metadata"]:
            Watch(self, change)

    monkeypatch.setattr(Collector, "_watch", watch)
    assert failing() == {
        "what_is_created_for_an_owner_that_never_was_is_deleted",
        "an_owner_of_the_same_name_but_another_uid_is_no_owner",
    }


def test_the_table_has_sixty_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_simulated(name: str) -> None:
    run(name)


@pytest.mark.integration
@pytest.mark.parametrize("name", ROWS)
async def test_real(name: str, plane: ControlPlane) -> None:
    access = kubeconfig.read(plane.admin_kubeconfig)
    async with httpx.AsyncClient(base_url=access.server, verify=tls_of(access), trust_env=False, timeout=20) as client:
        server = RealServer(client, name.replace("_", "-")[:60].rstrip("-"))
        await server.prepare()
        await ROWS[name](server)
