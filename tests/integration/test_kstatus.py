"""What tools that go by kstatus read of a cluster on a real API server: in time, never without end, and never too early."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from localkube.programs.binaries import provide
from localkube.programs.versions import kstatus_programs
from outside.kstatus import Verdict, by_library, verdict
from outside.observer import Observer
from wabiz_sim.certificate import make

from .environment import Environment, Obj

pytestmark = pytest.mark.integration

IN_TIME = 10.0
"""Seconds within which a failure must be reported, and that it is over."""
STUCK: dict[str, tuple[Obj, Obj]] = {
    "SecretMissing": ({"webapp": {"tls": {"secretRef": {"name": "nowhere"}}}}, {"webapp": {"tls": None}}),
    "WindowInvalid": (
        {"shards": 4, "reshard": {"windows": [{"name": "never", "schedule": "61 3 * * *", "durationMinutes": 5}]}},
        {"shards": 2, "reshard": {"windows": None}},
    ),
    "ChangeRejected": (
        {"coreapp": {"pod": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}}},
        {"coreapp": {"pod": {"resources": None}}},
    ),
}
"""Edits after which a person must act, and what takes them back."""


def versions(environment: Environment) -> list[Obj]:
    return environment.seen.versions("WhatsAppCluster", environment.namespace, "acme")


def words(obj: Obj) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in (obj.get("status") or {}).get("conditions") or ()}


async def until(environment: Environment, expected: Verdict, reason: str = "", within: float = 90.0) -> Obj:
    """The first version of the newest generation of which kstatus says this, as soon as there is one."""

    def found(_: Observer) -> Obj:
        newest = [obj for obj in versions(environment) if obj["metadata"]["generation"] >= environment.newest.get("acme", 1)]
        fitting = (obj for obj in newest if verdict(obj) is expected and reason in {"", words(obj).get("Stalled", ("", ""))[1]})
        return next(fitting, {})

    return await environment.until(found, f"{expected} {reason}", within)


def too_early(environment: Environment) -> Iterator[str]:
    """Every version that kstatus calls current although the client had another number of shards, or Coreapps were missing."""
    for obj in versions(environment):
        spec, status = obj["spec"], obj.get("status") or {}
        if verdict(obj) is Verdict.CURRENT:
            pods, ready = spec["shards"] + spec["spares"], status["coreapp"]["ready"]
            if (status.get("shards"), status.get("settledShards"), ready >= pods) != (spec["shards"], spec["shards"], True):
                yield f"generation {obj['metadata']['generation']}: {status.get('shards')} shards, {ready} Coreapps"


async def put_certificate(environment: Environment, expires_at: str) -> None:
    """Write the Secret of the account, with a certificate that is said to expire then."""
    certificate = make("Acme Inc", 4711, datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC))
    data = {"certificate": certificate, "expiresAt": expires_at}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-account"}, "stringData": data}
    await environment.kubectl("apply", "-f", "-", input=json.dumps(secret))


async def hold(environment: Environment, finalizers: list[str] | None) -> None:
    """Have the deletion of the cluster wait for these."""
    await environment.kubectl(
        "patch", "whatsappcluster", "acme", "--type=merge", "-p", json.dumps({"metadata": {"finalizers": finalizers}})
    )


async def test_kstatus_from_creation_to_deletion(environment: Environment) -> None:
    """The Secret of the account comes just after the cluster, as when both are applied at once."""
    await environment.create(shards=2, spares=1, account=environment.account(secretRef={"name": "acme-account"}))
    await put_certificate(environment, "2036-01-01T00:00:00Z")
    await until(environment, Verdict.CURRENT)
    assert (await environment.client_state())["set_shards_calls"][-1]["shards"] == 2
    assert environment.replicas() == 3
    assert Verdict.FAILED not in map(verdict, versions(environment)), "creation is no failure"
    assert await environment.events("NoSpareLeft") == []
    await environment.at_rest()

    before = len(environment.seen.commits)
    await environment.delete_pod(environment.holder(0))
    await environment.commit(0, before)
    await environment.at_rest()
    assert verdict(environment.cluster()) is Verdict.CURRENT

    await environment.patch(shards=4)
    await until(environment, Verdict.CURRENT)
    assert ((await environment.client_state())["set_shards_calls"][-1]["shards"], environment.replicas()) == (4, 5)
    await environment.patch(shards=2)
    await until(environment, Verdict.CURRENT)
    assert ((await environment.client_state())["set_shards_calls"][-1]["shards"], environment.replicas()) == (2, 3)

    for reason, (wrong, right) in STUCK.items():
        await environment.patch(**wrong)
        assigned = await until(environment, Verdict.FAILED, reason, IN_TIME)
        assert words(assigned)["Reconciling"][0] == "False", reason
        await environment.patch(**right)
        await until(environment, Verdict.CURRENT, within=IN_TIME)
        await environment.at_rest()

    await put_certificate(environment, "2026-01-01T00:00:00Z")
    await environment.word("CertificateValid", "CertificateExpired")
    assert verdict(environment.cluster()) is Verdict.CURRENT, "nothing is to be sent"
    await environment.patch(shards=4)
    await until(environment, Verdict.FAILED, "CertificateExpired", IN_TIME)
    # A failover goes on meanwhile, and what waits for a person is reported again after it.
    before = len(environment.seen.commits)
    await environment.delete_pod(environment.holder(0))
    await environment.commit(0, before)
    await environment.until(lambda _: verdict(environment.cluster()) is Verdict.FAILED, "Failed again", IN_TIME)
    await put_certificate(environment, "2036-01-01T00:00:00Z")
    await until(environment, Verdict.CURRENT)

    assert [*too_early(environment)] == []
    await hold(environment, ["example.com/held"])
    await environment.kubectl("delete", "whatsappcluster", "acme", "--wait=false")
    await until(environment, Verdict.TERMINATING)
    await hold(environment, None)
    await environment.until(lambda _: not environment.cluster(), "the cluster is gone")
    program = (await asyncio.to_thread(provide, os.environ, programs=kstatus_programs()))["kstatus"]
    seen = versions(environment)
    assert set(map(verdict, seen)) == set(Verdict)
    assert by_library(program, seen) == [*map(verdict, seen)], "the library itself says the same at every moment"
    await asyncio.to_thread(environment.seen.verify)
