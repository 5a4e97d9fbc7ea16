"""Tools that wait for a cluster: they learn of a failure when a person must act, and never too early or forever of success."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from outside.argocd import health
from outside.kstatus import Verdict, verdict
from unit.test_secret_keys import good

from .apiserver import Change
from .kinds import EVENT, SECRET, WAC, Obj
from .test_partial_sight import says
from .world import NAME, NAMESPACE, World, simulated

ACCOUNT: Obj = {"account": {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}}}
DATABASE: Obj = {"database": {"secretRef": {"name": "db"}, "tlsSecretRef": {"name": "db-tls"}}}
TLS: Obj = {"webapp": {"replicas": 1, "tls": {"secretRef": {"name": "tls"}}}}
RIGHT = base64.b64encode(b"the right certificate").decode()
SECRETS: dict[str, dict[str, bytes]] = {
    "account": {"certificate": RIGHT.encode(), "expiresAt": b"2027-12-31T00:00:00Z"},
    "db": good()["db"],
    "db-tls": {"ca.crt": good()["server"]["ca.crt"]},
    "tls": good()["server"],
}


def apply_secret(world: World, name: str) -> None:
    data = {key: base64.b64encode(value).decode() for key, value in SECRETS[name].items()}
    meta = {"namespace": NAMESPACE, "name": name}
    world.server.create("user", {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})


def kstatus(world: World) -> Verdict:
    return verdict(world.server.get(WAC, (NAMESPACE, NAME)) or {})


def reports(world: World) -> list[Obj]:
    """Keep every version of the cluster from now on."""
    kept: list[Obj] = []
    world.server.checks.append(lambda change: kept.append(change.after) if change.kind is WAC and change.after is not None else None)
    return kept


def warnings(world: World) -> list[str]:
    """Keep the reasons of all Warnings from now on."""
    kept: list[str] = []

    def keep(change: Change) -> None:
        if change.kind is EVENT and change.after is not None and change.after["type"] == "Warning":
            kept.append(change.after["reason"])

    world.server.checks.append(keep)
    return kept


@pytest.mark.parametrize("spares", [0, 2])
@simulated()
async def test_a_cluster_is_made_without_a_warning(world: World, spares: int) -> None:
    warned = warnings(world)
    await world.started(shards=2, spares=spares)
    assert warned == []


@pytest.mark.parametrize(("spec", "secrets"), [(ACCOUNT, ["account"]), (ACCOUNT | DATABASE | TLS, list(SECRETS))])
@simulated()
async def test_Secrets_that_come_just_after_the_cluster_need_nobody(world: World, spec: dict[str, Any], secrets: list[str]) -> None:  # noqa: N802
    world.account.right_certificate = RIGHT
    seen, warned = reports(world), warnings(world)
    world.operator().lead(1)
    world.create(shards=1, **spec)
    await world.pause(2)
    for name in secrets:
        apply_secret(world, name)
    await world.until(lambda: kstatus(world) is Verdict.CURRENT, within=120, what="Current")
    assert Verdict.FAILED not in map(verdict, seen)
    assert warned == []


@pytest.mark.parametrize("spec", [ACCOUNT, DATABASE, TLS])
@simulated()
async def test_a_Secret_that_does_not_come_is_Failed_within_ten_seconds(world: World, spec: dict[str, Any]) -> None:  # noqa: N802
    world.operator().lead(1)
    world.create(shards=2, **spec)
    await world.until(lambda: kstatus(world) is Verdict.FAILED, within=10, what="Failed")
    assert says(world, "Stalled", "True", "SecretMissing")()
    assert world.condition("Reconciling")[0] == "False"
    await world.pause(15)
    assert kstatus(world) is Verdict.FAILED


@simulated()
async def test_the_Secret_of_a_running_cluster_is_missed_after_a_while(world: World) -> None:  # noqa: N802
    """Replacing it by deletion and creation alarms nobody."""
    world.account.right_certificate = RIGHT
    apply_secret(world, "account")
    world.operator().lead(1)
    world.create(shards=1, **ACCOUNT)
    await world.until(lambda: kstatus(world) is Verdict.CURRENT, within=120, what="Current")
    warned = warnings(world)
    await world.pause(8)
    world.server.delete("user", SECRET, (NAMESPACE, "account"))
    world.annotate(paused="false")  # a write of a user, so that it is noticed at once
    await world.until(says(world, "CertificateValid", "Unknown", "AwaitingSecret"), within=2, what="it is noticed")
    apply_secret(world, "account")
    await world.pause(35)
    assert (kstatus(world), warned) == (Verdict.CURRENT, [])


@simulated()
async def test_argo_cd_agrees_with_kstatus_from_creation_to_deletion(world: World) -> None:
    """Every version of a cluster that is made, loses a holder, is resized while it is paused, and deleted."""
    shown = {Verdict.CURRENT: {"Healthy"}, Verdict.IN_PROGRESS: {"Progressing", "Suspended"}, Verdict.FAILED: {"Degraded"}}
    seen = reports(world)
    world.operator().lead(1)
    world.create(shards=2)
    await world.until_done()
    holder = world.holding(0)
    world.delete_pod(holder)
    await world.until(lambda: world.holder(0) not in {None, holder}, within=60, what="another holder")
    await world.until_done()
    world.annotate(paused="true")
    world.edit(shards=4)
    await world.until(lambda: health(seen[-1])[0] == "Suspended", within=60, what="Suspended")
    world.annotate(paused=None)
    await world.until_done()
    world.edit(client={"type": "Simulator", "adminSecretRef": {"name": "nowhere"}})
    await world.until(lambda: kstatus(world) is Verdict.FAILED, within=60, what="Failed")
    world.server.delete("user", WAC, (NAMESPACE, NAME))
    answers = [(verdict(obj), health(obj)[0]) for obj in seen]
    assert {argo for _, argo in answers} == {"Healthy", "Progressing", "Suspended", "Degraded"}
    assert [one for one in answers if one[1] not in shown.get(one[0], {"Progressing"})] == []
