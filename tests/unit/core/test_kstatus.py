"""What kstatus makes of the conditions: Failed when a person must act, Current when the spec is carried out, InProgress otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given

from outside.kstatus import Verdict, verdict
from whatsapp_operator.core import report
from whatsapp_operator.core.actions import GetShards
from whatsapp_operator.core.desired import PodSettings
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.snapshot import AccountSecret, Login, Workload

from .random_situations import any_observations
from .situations import NOW, Situation, seconds, situation
from .test_laws import many
from .test_status import STALLED
from .witnesses import WITNESSES, growing

Obj = dict[str, Any]

DESPITE_A_STALL: Mapping[str, str] = {
    "FailingOver": "A failover waits for no person, and ends within seconds.",
    "SwitchoverRequested": "A person asked for it, and it ends within seconds.",
    "Draining": "It saves a failover, and ends within seconds.",
}
"""What Reconciling may say while Stalled is True, and why."""

STALLS: Mapping[str, Callable[[Situation], Situation]] = {
    "Banned": lambda one: one.seeing(banned_at=NOW),
    "FieldInvalid": lambda one: one.wanting(invalid="Annotation multiconnect.dev/reshard-now says 'four'. Write one such as 4."),
    "ImageUnavailable": lambda one: one.seeing(image_problem="acme-webapp-x: ImagePullBackOff"),
    "LoginRejected": lambda one: one.client(shards=None, asked_at=None, login=Login.REJECTED),
    "NameConflict": lambda one: one.seeing(name_conflicts=(Ref("Service", "acme-webapp"),)),
    "ReadFailed": lambda one: one.seeing(unread={"NetworkPolicy": "list NetworkPolicy: HTTP 403"}),
    "SecretMissing": lambda one: one.seeing(missing="Secret nowhere is not there", since={"SecretMissing": NOW - seconds(3600)}),
}
"""What needs a person no matter what else goes on."""


def resource(one: Situation) -> Obj:
    """The cluster as the API server has it after this observation."""
    meta = {"generation": one.desired.generation, **({"deletionTimestamp": "2027-01-04T12:00:00Z"} if one.desired.deleting else {})}
    return {"metadata": meta, "status": one.report()}


def said(one: Situation, kind: str) -> tuple[str, str]:
    found = one.condition(kind)
    return found["status"], found["reason"]


def text(obj: Obj) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in obj["status"]["conditions"]}


# --- the oracle itself


def a_resource(*conditions: str, observed: int = 2, **meta: Any) -> Obj:
    text = [dict(zip(("type", "status"), text.split("="), strict=True)) for text in conditions]
    return {"metadata": {"generation": 2, **meta}, "status": {"observedGeneration": observed, "conditions": text}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (a_resource("Ready=True", deletionTimestamp="2027-01-04T12:00:00Z"), Verdict.TERMINATING),
        (a_resource("Stalled=True", observed=1), Verdict.IN_PROGRESS),
        (a_resource("Ready=True", "Reconciling=True", "Stalled=True"), Verdict.IN_PROGRESS),
        (a_resource("Ready=True", "Stalled=True", "Reconciling=True"), Verdict.FAILED),
        (a_resource("Ready=True", "Reconciling=False", "Stalled=True"), Verdict.FAILED),
        (a_resource("Ready=False", "Reconciling=False", "Stalled=False"), Verdict.IN_PROGRESS),
        (a_resource("Ready=Unknown"), Verdict.IN_PROGRESS),
        (a_resource("Ready=True", "Reconciling=False", "Stalled=False"), Verdict.CURRENT),
        ({"metadata": {"generation": 1}}, Verdict.CURRENT),
    ],
)
def test_the_rules_of_kstatus(obj: Obj, expected: Verdict) -> None:
    assert verdict(obj) is expected


# --- every state


@pytest.mark.parametrize("name", WITNESSES)
def test_kstatus_of_every_state(name: str) -> None:
    expected = {"Deleting": Verdict.TERMINATING, "UpToDate": Verdict.CURRENT, "ChangedByAdmission": Verdict.CURRENT}
    otherwise = Verdict.FAILED if name in STALLED else Verdict.IN_PROGRESS

    assert verdict(resource(WITNESSES[name])) is expected.get(name, otherwise)


@pytest.mark.parametrize("name", sorted(STALLED & WITNESSES.keys()))
def test_Reconciling_says_nothing_of_what_a_stall_holds_up(name: str) -> None:  # noqa: N802
    assert said(WITNESSES[name], "Stalled") == ("True", name)
    assert said(WITNESSES[name], "Reconciling")[0] == "False"


def assert_reconciling_speaks_of_what_goes_on(one: Situation) -> None:
    obj = resource(one)
    (moves, reason), (stalls, why) = text(obj)["Reconciling"], text(obj)["Stalled"]
    if stalls == "True" and moves == "True":
        assert reason in DESPITE_A_STALL, f"Reconciling says {reason} although Stalled says {why}"
    elif stalls == "True":
        assert (reason in {"UpToDate", why}, verdict(obj)) == (True, Verdict.TERMINATING if one.desired.deleting else Verdict.FAILED)


@pytest.mark.parametrize("stall", STALLS)
def test_whatever_needs_a_person_is_Failed_in_every_state(stall: str) -> None:  # noqa: N802
    for witness in WITNESSES.values():
        assert_reconciling_speaks_of_what_goes_on(STALLS[stall](witness))


@pytest.mark.slow
@many
@given(one=any_observations())
def test_Reconciling_speaks_of_what_goes_on_in_any_observation(one: Situation) -> None:  # noqa: N802
    assert_reconciling_speaks_of_what_goes_on(one)


def test_a_failover_whose_writes_are_rejected_does_not_end_by_itself() -> None:
    one = situation().settled().holder_deleted(0).seeing(denied="patch Pod default/acme-coreapp-2: 403 Forbidden")

    assert one.row() == "FailingOver", "it is tried again"
    assert [(one.condition(kind)["status"], one.condition(kind)["reason"]) for kind in ("Reconciling", "Stalled")] == [
        ("False", "ChangeRejected"),
        ("True", "ChangeRejected"),
    ]


def test_a_failover_during_a_stall_is_said() -> None:
    one = WITNESSES["CertificateExpired"].holder_deleted(0)

    assert (said(one, "Reconciling"), said(one, "Stalled")) == (("True", "FailingOver"), ("True", "CertificateExpired"))


def test_an_observation_that_failed_is_Failed() -> None:  # noqa: N802
    """Also when something was under way before it."""
    before = growing().report()
    after = report.failed_observation(before, generation=4, now=NOW, reason=Reason.SPEC_INVALID, message="The spec cannot be read.")

    assert verdict({"metadata": {"generation": 4}, "status": after}) is Verdict.FAILED
    assert {one["type"]: one["status"] for one in after["conditions"]}["Reconciling"] == "False"


# --- Current


def is_carried_out(one: Situation) -> bool:
    """Whether the cluster is as its spec says, distinguished from the operator's own rules."""
    desired, snapshot = one.desired, one.snapshot
    ready = [pod for pod in snapshot.coreapps if pod.ready and pod.phase == "Running" and not (pod.deleting or pod.terminated)]
    return (
        snapshot.client.shards == desired.shards
        and snapshot.record.operation is None
        and snapshot.statefulset is not None
        and snapshot.statefulset.replicas >= desired.shards + desired.spares
        and len(ready) >= desired.shards + desired.spares
        and snapshot.webapp is not None
        and snapshot.webapp.ready >= (desired.webapps or 0)
        and not snapshot.webapps_change
    )


@pytest.mark.slow
@many
@given(one=any_observations())
def test_kstatus_is_never_Current_before_the_spec_is_carried_out(one: Situation) -> None:  # noqa: N802
    if one.plan().is_reportable and verdict(resource(one)) is Verdict.CURRENT:
        assert is_carried_out(one)


EDITS: Mapping[str, Obj] = {
    "shards": {"shards": 4},
    "fewer shards": {"shards": 1},
    "spares": {"spares": 2},
    "fewer spares": {"spares": 0},
    "webapps": {"webapps": 3},
    "image": {"image": "another:2"},
    "Webapps' pods": {"webapp_pod": PodSettings(annotations={"example.com/note": "new"})},
    "Service": {"webapp_service": WITNESSES["ChangeRejected"].desired.webapp_service},
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_not_Current_at_the_observation_that_carries_it_out(name: str) -> None:  # noqa: N802
    before = situation().settled()
    after = before.wanting(generation=4, **EDITS[name]).seeing(objects=before.snapshot.objects)

    assert not after.plan().is_reportable or verdict(resource(after)) is Verdict.IN_PROGRESS


def test_a_resource_is_not_Current_before_the_first_observation() -> None:  # noqa: N802
    defaults = {"observedGeneration": -1, "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NotReconciled"}]}

    assert verdict({"metadata": {"generation": 1}, "status": defaults}) is Verdict.IN_PROGRESS


# --- a Secret that comes a moment later


def named(secret: str) -> Situation:
    """A new cluster that names a Secret that is not there yet."""
    if secret == "account":
        return situation().with_account(secret=AccountSecret(missing="Secret acme-account"))
    return situation().seeing(missing=f"Secret {secret}, which spec.{secret} names, does not exist")


@pytest.mark.parametrize("secret", ["account", "database", "tls"])
def test_a_Secret_that_is_named_before_it_exists_is_waited_for(secret: str) -> None:  # noqa: N802
    one = named(secret)

    assert said(one, "Stalled")[0] == "False"
    assert said(one, "CertificateValid") == (("Unknown", "AwaitingSecret") if secret == "account" else ("True", "Simulated"))
    assert verdict(resource(one)) is Verdict.IN_PROGRESS


@pytest.mark.parametrize("secret", ["account", "database", "tls"])
def test_a_Secret_that_does_not_come_needs_a_person_within_ten_seconds(secret: str) -> None:  # noqa: N802
    one = named(secret)
    waits = one.plan()
    assert "SecretMissing" in waits.holds
    assert waits.wake_after is not None
    assert waits.wake_after <= seconds(10)

    late = one.seeing(since={"SecretMissing": NOW}).later(10)
    assert said(late, "Stalled") == ("True", "SecretMissing")
    assert verdict(resource(late)) is Verdict.FAILED


def test_nobody_logs_in_to_a_new_cluster_without_the_password() -> None:
    """It would be rejected, and that is no matter for a person while the Secret is only late."""
    one = named("client.adminSecretRef").seeing(webapp=Workload(uid="d", resource_version="8", replicas=1, ready=1))

    assert not [action for action in one.plan().actions if isinstance(action, GetShards)]
    assert [action for action in one.seeing(missing=None).plan().actions if isinstance(action, GetShards)]
    assert said(one.client(login=Login.REJECTED), "Stalled")[0] == "False"
