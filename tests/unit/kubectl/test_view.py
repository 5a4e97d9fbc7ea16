"""What was read as one value, and the shape in which programs get it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_whatsapp import checks, model, planning
from kubectl_whatsapp import why as reasons
from kubectl_whatsapp.model import Level, Verdict
from kubectl_whatsapp.shape import Output, camel, dump
from kubectl_whatsapp.view import LONGEST_LEASE, STEPS, view
from kubectl_whatsapp.why import why
from whatsapp_operator.shell.kube.lease import LONGEST

from .clusters import Cluster, a_cluster, before

GOLDEN = Path(__file__).parent / "status.json"
PAGE = Path(__file__).parents[3] / "docs" / "kubectl.md"


def troubled() -> Cluster:
    """A cluster with something in every field."""
    found = a_cluster().operator_dead().without_node("node-0").unready("acme-coreapp-2").annotated(paused="true").without("deployments")
    operation = {"id": "4-x", "from": 2, "to": 4, "answer": "Accepted", "attempts": 1, "startedAt": before(seconds=20)}
    found = found.status(operation={**operation, "deadline": before(seconds=-160)}, certificate={"expiresAt": "2027-05-01T00:00:00Z"})
    return found.spec(shards=4).says("Reconciling", "True", "Restarting", "The Coreapps restart.")


def test_the_shape_for_programs_is_the_documented_one() -> None:
    assert json.loads(dump("Status", view(troubled().read()), Output.JSON)) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_yaml_and_json_say_the_same() -> None:
    found = view(troubled().read())

    assert yaml.safe_load(dump("Status", found, Output.YAML)) == json.loads(dump("Status", found, Output.JSON))


def test_each_field_of_the_shape_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = page.split("## The shape for programs")[1].split("\n## ")[0]
    documented = set(re.findall(r"`(\w+)`", section))
    classes = [one for one in vars(model).values() if is_dataclass(one)]

    assert {camel(field.name) for one in classes for field in fields(one)} <= documented


def documented(kind: str) -> set[str]:
    """The fields of a kind, as the page has them."""
    (line,) = re.findall(rf"^\| `{kind}` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return set(re.findall(r"`(\w+)`", line))


OTHER_KINDS = {
    "Why": (reasons.Why, reasons.RuleAnswer, reasons.ShardAnswer, reasons.EvidenceAnswer, reasons.CandidateAnswer),
    "Plan": (planning.Planned, planning.PlannedStep),
    "Check": (checks.Report, checks.Check),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_each_field_of_the_other_shapes_is_documented_and_no_other(kind: str) -> None:
    assert documented(kind) == {camel(field.name) for one in OTHER_KINDS[kind] for field in fields(one)}


def test_the_golden_has_each_field() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {camel(field.name) for field in fields(model.View)} <= golden.keys()


@pytest.mark.parametrize(
    ("reason", "spec", "step", "of", "then"),
    [
        ("ScalingUp", {"shards": 4}, 1, 5, "enough Coreapps must be ready"),
        ("AwaitingCoreapps", {"shards": 4}, 2, 5, "Set Shards is called"),
        ("SettingShards", {"shards": 4}, 3, 5, "all Coreapps restart"),
        ("Restarting", {"shards": 4}, 4, 5, "shards get their holders"),
        ("AssigningShards", {"shards": 4}, 5, 5, ""),
        ("WindowClosed", {"shards": 4, "reshard": {"windows": [{}]}}, 3, 6, "Set Shards is called"),
        ("AwaitingCoreapps", {"shards": 1}, 1, 5, "Set Shards is called"),
        ("ScalingDown", {"shards": 1}, 5, 5, ""),
        ("ScalingUp", {"spares": 3}, 1, 1, ""),
    ],
)
def test_an_operation_has_a_step_and_says_what_comes_next(reason: str, spec: dict[str, Any], step: int, of: int, then: str) -> None:
    found = view(a_cluster().spec(**spec).says("Reconciling", "True", reason).read()).operation

    assert found is not None
    assert (found.step, found.number, found.of, (*found.comes_next, "")[0]) == (reason, step, of, then)


def test_what_is_no_resize_is_no_operation() -> None:
    assert view(a_cluster().read()).operation is None
    assert view(a_cluster().says("Reconciling", "True", "FailingOver").read()).operation is None


def test_the_steps_are_reasons_of_the_operator() -> None:
    from whatsapp_operator.core.reasons import Reason

    assert {reason for reasons, _ in STEPS for reason in reasons} <= {str(reason) for reason in Reason}


def test_without_the_cluster_no_pod_is_taken_for_a_standby() -> None:
    found = view(a_cluster().without("cluster").read())
    assert (found.shards, found.standbys) == ((), ())
    assert found.next_steps == (
        "kubectl auth can-i get whatsappclusters.multiconnect.dev -n shop",
        "kubectl get --raw '/readyz?verbose'",
        "kubectl whatsapp status acme -n shop --request-timeout 10",
    )


def test_of_a_pod_that_is_gone_the_statefulset_is_asked() -> None:
    """Its Events say why there is none, such as a quota; kubectl finds no pod to describe."""
    found = view(a_cluster().without_pod("acme-coreapp-0").read())
    assert "kubectl -n shop describe statefulset acme-coreapp" in found.next_steps
    assert not [one for one in found.next_steps if "describe pod acme-coreapp-0" in one]


def test_of_an_operator_that_could_move_a_shard_the_log_is_read() -> None:
    """It leads and does nothing, as one does that lost its rights: it cannot say so in the resource then."""
    lost, log = a_cluster().without_pod("acme-coreapp-0"), "kubectl whatsapp logs acme operator -n shop"
    assert log in view(lost.read()).next_steps
    for other in (lost.operator_dead(), lost.unready("acme-coreapp-2"), a_cluster()):
        assert log not in view(other.read()).next_steps


def test_deliberate_inaction_is_said() -> None:
    found = a_cluster().spec(failover={"mode": "Manual"}).annotated(paused="true").says("Reconciling", "True", "WindowClosed", "It waits.")

    assert view(found.read()).inaction == (
        "Planned changes are held: the cluster is paused. Failovers continue.",
        "No shard fails over automatically: spec.failover.mode is Manual.",
        "It waits.",
    )


def test_a_standby_says_why_it_is_not_eligible() -> None:
    def labelled(found: dict[str, Any]) -> None:
        found["pods"]["items"][2]["metadata"]["labels"] |= {"multiconnect.dev/epoch": "9-x", "multiconnect.dev/shard": "1"}

    def retiring(found: dict[str, Any]) -> None:
        found["pods"]["items"][2]["metadata"]["labels"] |= {"multiconnect.dev/epoch": "9-x-2", "multiconnect.dev/role": "retiring"}

    cases = [
        (a_cluster().but(retiring), "it is about to be removed, because there are more Coreapps than the spec asks for"),
        (a_cluster().unready("acme-coreapp-2"), "acme-coreapp-2 is not ready"),
        (a_cluster().deleting("acme-coreapp-2"), "acme-coreapp-2 is being deleted"),
        (a_cluster().without_node("node-2"), "node node-2 is gone"),
        (a_cluster().but(labelled), "it still carries epoch 9-x of shard 1"),
    ]
    for cluster, reason in cases:
        (standby,) = view(cluster.read()).standbys
        assert (standby.eligible, standby.why) == (False, reason)


def test_a_standby_on_a_cordoned_node_is_the_last_choice_and_a_choice() -> None:
    """As for the operator, which takes it if there is no other: the next failure leaves no shard unserved."""

    def cordoned(found: dict[str, Any]) -> None:
        found["nodes"]["items"][2]["spec"]["unschedulable"] = True

    found = view(a_cluster().but(cordoned).read())
    (standby,) = found.standbys
    assert (standby.eligible, standby.why) == (True, "node node-2 is cordoned; it would be used only if there is no other")
    assert found.verdict == Verdict(Level.OK, "All 2 shards are served; 1 spare could take over.")
    answer = why(a_cluster().but(cordoned).read(), 0).shard
    assert answer is not None
    assert [one.pod for one in answer.candidates if one.eligible] == [standby.pod], "why says the same"


def test_a_service_of_another_owner_is_no_shard() -> None:
    def foreign(found: dict[str, Any]) -> None:
        service = next(one for one in found["services"]["items"] if one["metadata"]["name"] == "acme-shard-0")
        service["metadata"]["ownerReferences"][0]["uid"] = "another"

    shard = view(a_cluster().but(foreign).read()).shards[0]
    assert (shard.served, shard.why) == (False, "it has no Service")


def test_a_pod_that_was_made_again_holds_nothing() -> None:
    def again(found: dict[str, Any]) -> None:
        found["pods"]["items"][0]["metadata"]["uid"] = "new"

    found = view(a_cluster().but(again).read())
    assert (found.shards[0].served, found.shards[0].why) == (False, "acme-coreapp-0 was recreated and no longer holds it")
    assert [one.pod for one in found.standbys] == ["acme-coreapp-0", "acme-coreapp-2"], "its name is that of the holder, and it is free"


def noted(lease: dict[str, Any], at: str) -> None:
    """The API server's own note of the last renewal, among those of other changes."""
    other = {"manager": "kubectl", "time": before(seconds=0), "fieldsV1": {"f:metadata": {"f:labels": {}}}}
    lease["metadata"]["managedFields"] = [other, {"manager": "m", "time": at, "fieldsV1": {"f:spec": {"f:renewTime": {}}}}]


@pytest.mark.parametrize(("ago", "is_alive"), [(61, True), (63, False)])
def test_a_lease_with_an_edited_duration_shows_no_dead_leader_as_alive(ago: int, is_alive: bool) -> None:
    def edit(found: dict[str, Any]) -> None:
        found["lease"]["spec"]["leaseDurationSeconds"] = 2**31 - 1
        noted(found["lease"], before(seconds=ago))

    leader = view(a_cluster().but(edit).read()).leader
    assert leader is not None
    assert leader.alive is is_alive
    assert LONGEST_LEASE.total_seconds() == LONGEST


@pytest.mark.parametrize("minutes", [-5, 0, 5])
@pytest.mark.parametrize("is_alive", [True, False])
def test_a_holder_of_a_lease_may_have_a_wrong_clock(minutes: int, is_alive: bool) -> None:
    def renewed_by_another_clock(found: dict[str, Any]) -> None:
        for lease in (found["lease"], found["nodeLeases"]["items"][0]):
            lease["spec"]["renewTime"] = before(minutes=minutes)
            noted(lease, before(seconds=1) if is_alive else before(minutes=2))

    found = view(a_cluster().but(renewed_by_another_clock).read())
    assert found.leader is not None
    assert (found.leader.alive, found.shards[0].served) == (is_alive, is_alive)
    assert (found.verdict.level is Level.OK) is is_alive
