"""A Secret that changes reaches the pods that take something from it, once and in order; one that does not change rolls nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from whatsapp_operator.shell.kube import kinds

from .kinds import DEPLOYMENT, POD, SECRET, STATEFULSET, Obj, is_ready
from .test_partial_sight import FAULTS, PartlyBlind
from .world import NAME, NAMESPACE, World, simulated

TLS, DATABASE = f"{NAME}-webapp-tls", "database"
ACCESS = {
    "WA_DB_ENGINE": "PGSQL",
    "WA_DB_HOSTNAME": "db.example",
    "WA_DB_PORT": "5432",
    "WA_DB_USERNAME": "acme",
    "WA_DB_PASSWORD": "first-password",
}
CHECKSUM = "multiconnect.dev/secrets-checksum"


def encoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def put_secret(world: World, name: str, **data: str) -> None:
    if world.server.get(SECRET, (NAMESPACE, name)) is None:
        meta = {"namespace": NAMESPACE, "name": name}
        world.server.create("user", {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded(data)})
    else:
        world.server.merge("user", SECRET, (NAMESPACE, name), {"data": encoded(data)})


def pods(world: World, component: str) -> dict[str, Obj]:
    """The pods of a component that stay, by uid."""
    found = world.server.list(POD, NAMESPACE, {"app.kubernetes.io/component": component})
    return {pod["metadata"]["uid"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}


def all_pods(world: World) -> set[str]:
    return {uid for component in ("coreapp", "webapp", "simulator") for uid in pods(world, component)}


def watch_new_pods(world: World) -> list[str]:
    """The names of the pods that are made from now on."""
    made: list[str] = []
    world.server.checks.append(lambda change: made.append(change.name[1]) if (change.kind, change.verb) == (POD, "create") else None)
    return made


def template(world: World, kind: Any, name: str) -> Obj:
    found = world.server.get(kind, (NAMESPACE, name))
    assert found is not None
    return dict(found["spec"]["template"])


async def at_rest(world: World, **spec: Any) -> None:
    await world.started(shards=2, spares=1, **spec)
    await world.pause(15.0)


def a_database(world: World) -> dict[str, Any]:
    put_secret(world, DATABASE, **ACCESS)
    return {"secretRef": {"name": DATABASE}}


# --- what changes is rolled out ---------------------------------------------------------------------------------------------


@simulated()
async def test_a_deleted_tls_secret_is_made_again_and_the_webapps_take_it(world: World) -> None:
    await at_rest(world, webapp={"replicas": 2})
    coreapps, webapps = set(pods(world, "coreapp")), set(pods(world, "webapp"))
    world.server.delete("user", SECRET, (NAMESPACE, TLS))
    most_ready = []
    world.server.checks.append(lambda _: most_ready.append(sum(map(is_ready, pods(world, "webapp").values()))))
    await world.until(lambda: not webapps & set(pods(world, "webapp")), within=90, what="no Webapp has the old key")
    await world.until_done()
    assert min(most_ready) >= 2, "one after the other"
    assert set(pods(world, "coreapp")) == coreapps
    await world.stays_silent(120.0)


@simulated()
async def test_what_no_pod_takes_replaces_none(world: World) -> None:
    """The authority is read by the operator alone; labels are nobody's content."""
    await at_rest(world)
    first = all_pods(world)
    secret = world.server.get(SECRET, (NAMESPACE, TLS))
    assert secret is not None
    authority = base64.b64decode(secret["data"]["ca.crt"]).decode()
    world.server.merge("user", SECRET, (NAMESPACE, TLS), {"data": encoded({"ca.crt": f"{authority}\n"})})
    world.server.merge("user", SECRET, (NAMESPACE, TLS), {"metadata": {"labels": {"touched": "by-a-user"}}})
    await world.stays_silent(120.0)
    assert all_pods(world) == first


@simulated()
async def test_a_changed_database_secret_replaces_the_simulator_and_no_coreapp(world: World) -> None:
    await at_rest(world, database=a_database(world))
    others, simulator = {*pods(world, "coreapp"), *pods(world, "webapp")}, set(pods(world, "simulator"))
    put_secret(world, DATABASE, WA_DB_PASSWORD="second-password")
    await world.until(lambda: not simulator & set(pods(world, "simulator")), within=60, what="it has the new password")
    await world.until(lambda: any(map(is_ready, pods(world, "simulator").values())), within=30, what="it is back")
    await world.until_done()
    assert {*pods(world, "coreapp"), *pods(world, "webapp")} == others
    second = set(pods(world, "simulator"))
    await world.stays_silent(120.0)
    assert set(pods(world, "simulator")) == second


# --- what does not change is not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DEPLOYMENT, STATEFULSET], ids=lambda kind: kind.kind)
@simulated()
async def test_no_new_cluster_and_no_upgrade_replaces_a_pod(world: World, kind: Any) -> None:
    """A former release wrote no checksum: what its pods took is not known, and is not rolled out for that."""
    made = watch_new_pods(world)
    operator = await world.started(shards=2, spares=1, database=a_database(world))
    await world.pause(90.0)
    assert sum("coreapp" not in name for name in made) == 2, "one Webapp, one simulator"
    made.clear()
    operator.kill()
    name = f"{NAME}-webapp" if kind is DEPLOYMENT else f"{NAME}-simulator"
    world.server.merge("user", kind, (NAMESPACE, name), {"metadata": {"annotations": {CHECKSUM: None}}})
    world.operator().lead(2)
    await world.until_done()
    await world.stays_silent(120.0)
    assert made == []
    assert CHECKSUM not in (template(world, kind, name)["metadata"].get("annotations") or {})


@pytest.mark.parametrize("fault", ["403", "500", "timeout"])
@simulated()
async def test_a_secret_that_cannot_be_read_rolls_nothing(world: World, fault: str) -> None:
    world.create(shards=2, spares=1, database=a_database(world))
    operator, kube = world.operator_by(PartlyBlind)
    operator.lead(1)
    await world.until_done()
    await world.pause(90.0)
    before = all_pods(world)
    kube.failing[kinds.SECRET] = FAULTS[fault]
    await world.pause(120.0)
    assert kube.failed[kinds.SECRET]
    kube.failing.clear()
    await world.until_done()
    await world.pause(60.0)
    assert all_pods(world) == before


@simulated()
async def test_a_secret_that_is_wrong_is_not_rolled_out(world: World) -> None:
    await at_rest(world, database=a_database(world))
    before = all_pods(world)
    put_secret(world, DATABASE, WA_DB_PASSWORD="second-password\n")
    await world.pause(120.0)
    assert all_pods(world) == before
    put_secret(world, DATABASE, WA_DB_PASSWORD="first-password")
    await world.until_done()
    await world.stays_silent(120.0)
    assert all_pods(world) == before


# --- nor is it a loop -------------------------------------------------------------------------------------------------------


async def busy(world: World, seconds: float) -> None:
    """Let time pass in which something happens to the cluster all the time, so that it is observed, and its Secrets are read."""
    for moment in range(int(seconds)):
        world.annotate(touched=str(world.loop.time() + moment))
        await world.pause(1.0)


@simulated()
async def test_a_secret_that_flips_to_and_fro_is_no_loop(world: World) -> None:
    await at_rest(world, database=a_database(world))
    made = watch_new_pods(world)
    for turn in range(9):
        put_secret(world, DATABASE, WA_DB_PASSWORD=("second-password", "first-password")[turn % 2])
        await busy(world, 20.0)
    assert 1 <= len(made) <= 3, "once a minute at most"
    await world.until_done()
    await world.pause(90.0)
    await world.stays_silent(120.0)


@simulated()
async def test_an_edit_in_two_steps_is_rolled_out_once_and_held_by_pause(world: World) -> None:
    await at_rest(world, database=a_database(world))
    simulator = set(pods(world, "simulator"))
    world.edit(paused=True)
    put_secret(world, DATABASE, WA_DB_USERNAME="other-owner")
    await busy(world, 30.0)
    assert set(pods(world, "simulator")) == simulator
    put_secret(world, DATABASE, WA_DB_USERNAME="acme")
    await busy(world, 10.0)
    world.edit(paused=False)
    made = watch_new_pods(world)
    put_secret(world, DATABASE, WA_DB_HOSTNAME="other.example")
    await busy(world, 7.0)
    put_secret(world, DATABASE, WA_DB_PASSWORD="second-password")
    await busy(world, 100.0)
    assert len(made) == 1
    assert not simulator & set(pods(world, "simulator"))
