"""What a change would do, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_whatsapp.planning import VENDOR_RESTART, Planned, planned
from kubectl_whatsapp.world import World

from .clusters import Cluster, a_cluster


def plan(cluster: Cluster, **change: Any) -> Planned:
    return planned(World(cluster.read()), **{"shards": 2, "spares": 1, **change})


@pytest.mark.parametrize(
    ("cluster", "change", "steps"),
    [
        (a_cluster(), {"shards": 4}, ["Coreapps 3 -> 5", "Set Shards 2 -> 4", "the new shards get holders"]),
        (a_cluster(4), {"shards": 2}, ["Set Shards 4 -> 2", "shards move to the lowest Coreapps", "Coreapps 5 -> 3"]),
        (a_cluster(4), {"shards": 2, "spares": 3}, ["Coreapps 5 -> 7", "Set Shards 4 -> 2", "shards move", "Coreapps 7 -> 5"]),
        (a_cluster(), {"spares": 2}, ["Coreapps 3 -> 4"]),
        (a_cluster(spares=3), {"spares": 1}, ["Coreapps 5 -> 3"]),
        (
            a_cluster(spares=3).status(shardMap=[{"shard": 0, "holder": "acme-coreapp-4"}]),
            {"spares": 1},
            ["shards move to the lowest Coreapps", "Coreapps 5 -> 3"],
        ),
        (
            a_cluster().spec(reshard={"windows": [{}]}),
            {"shards": 1},
            ["wait for a maintenance window", "Set Shards", "shards move", "Coreapps 3"],
        ),
        (a_cluster(), {}, []),
    ],
)
def test_the_steps(cluster: Cluster, change: dict[str, Any], steps: list[str]) -> None:
    found = plan(cluster, **change).steps

    assert [one.what[: len(step)] for one, step in zip(found, steps, strict=True)] == steps


DAILY = {"name": "night", "schedule": "0 3 * * *", "durationMinutes": 60}
NOON = {"name": "noon", "schedule": "30 12 * * *", "timeZone": "Europe/Berlin", "durationMinutes": 60}


@pytest.mark.parametrize(
    ("cluster", "waits"),
    [
        (a_cluster().spec(reshard={"windows": [DAILY]}), "until 2027-01-05T03:00:00Z"),
        (a_cluster().spec(reshard={"windows": [DAILY, NOON]}), "no time now: a window is open"),
        (
            a_cluster().spec(reshard={"windows": [DAILY]}).annotated(reshard_now=" 04 "),
            "no time: annotation multiconnect.dev/reshard-now allows 4 shards at once",
        ),
        (a_cluster().spec(reshard={"windows": [DAILY]}).annotated(reshard_now="8"), "until 2027-01-05T03:00:00Z"),
        (
            a_cluster().spec(reshard={"windows": [{**DAILY, "timeZone": "Mars/Crater"}, NOON]}),
            "not known: window night: time zone 'Mars/Crater' is not known; write one such as Europe/Berlin",
        ),
        (a_cluster().spec(reshard={"windows": [{"name": "half"}]}), "not known: window half: schedule '': wrong number of fields"),
    ],
)
def test_how_long_set_shards_waits_for_a_window(cluster: Cluster, waits: str) -> None:
    (found,) = (one for one in plan(cluster, shards=4).steps if "window" in one.what)

    assert found.takes == waits


@pytest.mark.parametrize("status", [{"settledShards": None}, {"certificate": {"loggedOffAt": "2027-01-04T11:00:00Z"}}])
def test_what_interrupts_nothing_waits_for_no_window(status: dict[str, Any]) -> None:
    found = a_cluster().spec(reshard={"windows": [DAILY]}).status(**status)

    assert [one.what for one in plan(found, shards=4).steps if "window" in one.what] == []


def test_only_set_shards_interrupts_everything_and_it_is_said_for_how_long() -> None:
    for cluster, takes in (
        (a_cluster(), "45 s (client.simulator.restartSeconds)"),
        (a_cluster().spec(client={"type": "Simulator"}), VENDOR_RESTART),
    ):
        (call,) = (one for one in plan(cluster, shards=4).steps if one.what.startswith("Set Shards"))
        others = [one.interrupts for one in plan(cluster, shards=4).steps if one is not call and one != call]
        assert (call.interrupts, call.takes) == ("all messages in and out", takes)
        assert "all messages in and out" not in others


def test_what_is_changed_is_said_and_what_stays_too() -> None:
    assert plan(a_cluster(), shards=4).sentence == "2 -> 4 shards, 1 spare."
    assert plan(a_cluster(), spares=2).sentence == "2 shards, 1 -> 2 spares."


def test_what_the_api_server_rejects_has_no_steps() -> None:
    found = plan(a_cluster(), shards=3, rejected=("spec.shards: Unsupported value: 3",))

    assert (found.accepted, found.steps, found.rejected) == (False, (), ("spec.shards: Unsupported value: 3",))


def test_what_the_api_server_does_not_judge_has_its_steps_all_the_same() -> None:
    found = plan(a_cluster(), shards=4, unjudged="forbidden")

    assert (found.accepted, found.rejected, len(found.steps)) == (False, (), 3)
    assert found.unread == {"whether the API server would accept it": "forbidden"}


@pytest.mark.parametrize(
    ("cluster", "held"),
    [
        (a_cluster(), ()),
        (a_cluster().annotated(paused="true"), ("the cluster is paused; kubectl whatsapp resume ends the pause.",)),
        (a_cluster().spec(paused=True), ("the cluster is paused: spec.paused is true in the resource itself.",)),
        (a_cluster().spec(paused=True).annotated(paused="true"), ("the cluster is paused: spec.paused is true in the resource itself.",)),
        (a_cluster().goes(), ("the cluster is being deleted: none of this will be done.",)),
        (a_cluster().operator_dead(), ("no operator leads: none of this is done until one does.",)),
        (a_cluster().missing("lease"), ("no operator leads: none of this is done until one does.",)),
        (a_cluster().without("lease"), ()),
        (a_cluster().status(operation={"from": 2, "to": 8}), ("Set Shards 2 -> 8 is in progress and must finish first.",)),
        (
            a_cluster().says("CertificateValid", "False", "CertificateExpired", "Put a new one."),
            ("Set Shards would not be sent (CertificateExpired): Put a new one.",),
        ),
        (a_cluster().says("Stalled", "True", "NameConflict", "Delete it."), ("a person must act first (NameConflict): Delete it.",)),
    ],
)
def test_what_would_hold_it(cluster: Cluster, held: tuple[str, ...]) -> None:
    assert plan(cluster, shards=4).held == held


def test_a_certificate_holds_no_change_of_spares() -> None:
    assert plan(a_cluster().says("CertificateValid", "False", "CertificateExpired"), spares=2).held == ()


def test_what_it_needs() -> None:
    pods, machines = plan(a_cluster(), shards=4).needs
    assert pods == (
        "Pods: 5 Coreapps at most, 2 more than now; each requests 50m of cpu and 64Mi of memory. "
        "Nodes: 3 can take pods, so some would share a node and fail together."
    )
    assert machines == "Machines: the vendor recommends 4 for 4 active Coreapps."

    own = a_cluster(4, 2).spec(coreapp={"pod": {"resources": {"requests": {"cpu": "2"}}}}, database={"secretRef": {"name": "db"}})
    pods, _, database = plan(own.silent_node("node-5", minutes=5), shards=4).needs
    assert "each requests 2 of cpu and 64Mi of memory. Nodes: 5 can take pods." in pods
    assert "max_connections" in database
    assert "issue 29" in database
    assert "Nodes: not known." in plan(a_cluster().without("nodes"), shards=4).needs[0]
