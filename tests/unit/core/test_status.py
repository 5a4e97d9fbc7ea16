"""Status: the vocabulary, the loudest word, the record of handovers, and silence when nothing changed."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from hypothesis import given

from whatsapp_operator.core import conditions, handovers, report
from whatsapp_operator.core.actions import SetShards
from whatsapp_operator.core.conditions import Condition
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.core.snapshot import Answer, Call, Evidence, HandoverTimes, Rejection, Report

from .random_situations import situations
from .situations import FINGERPRINT, NOW, Situation, merged, seconds, situation
from .test_laws import many
from .witnesses import WITNESSES, growing, restarting

# Written down by hand: (type, status) -> words.
STALLED = {
    "SecretMissing",
    "SecretMalformed",
    "CertificateMissing",
    "CertificateMalformed",
    "CertificateExpiryUnknown",
    "CertificateExpired",
    "CertificateRejected",
    "RegistrationTooOld",
    "PinMalformed",
    "PinRejected",
    "LoginRejected",
    "ShardsDrifted",
    "CapacityTight",
    "WindowInvalid",
    "ObjectsRejected",
    "ImageUnavailable",
    "ClaimUnusable",
    "NameConflict",
    "ClientExpired",
    "RegistrationClosed",  # WhatsApp takes no Set Shards of this number any more
    "Banned",
    "NumberInUse",  # WhatsApp knows one registration of a number, and another cluster has it
    "CrdOutdated",  # the API server does not keep an intent whole
    "FieldInvalid",  # a field or an annotation says something that cannot be obeyed
    "ReadFailed",  # some kind of object cannot be read
    "PodsRejected",  # Kubernetes cannot create pods, in its controller's words
    "DeletionBlocked",  # finalizers keep pods that have ended
    "EpochRejected",  # the servers know higher epochs than any that can be written
    "ReplicasOverruled",  # a person scales the Coreapps again and again
    "ChangeRejected",  # the API server does not take an edit's objects, which run on as they were
}
# "The Certificate words of Stalled", read as: every reason not to send one.
UNFIT = {word for word in STALLED if word.startswith("Certificate")} | {
    "SecretMissing",
    "SecretMalformed",
    "RegistrationTooOld",
    "PinMalformed",
    "PinRejected",
    "Banned",
}
WORDS: dict[tuple[str, str], set[str]] = {
    ("Ready", "True"): {"Serving"},
    ("Ready", "False"): {
        "Bootstrapping",
        "FailingOver",
        "Unserved",
        "Deleting",
        "Restarting",
        "RestartOverdue",
        "WebappUnavailable",
        "CertificateRejected",
        "Banned",
        "Disconnected",  # every Coreapp says that it has no connection to WhatsApp
    },
    ("Ready", "Unknown"): {"NotReconciled", "SelfCheckFailed", "WebappNotResponding"},
    ("Reconciling", "True"): {
        "Bootstrapping",
        "LoggingIn",
        "ScalingUp",
        "AwaitingCoreapps",
        "WithoutSpares",
        "WindowClosed",
        "SettingShards",
        "ServerBusy",
        "AnswerUnknown",
        "Restarting",
        "RestartOverdue",
        "Verifying",
        "AssigningShards",
        "ConsolidatingShards",
        "ScalingDown",
        "RollingOut",
        "FailingOver",
        "ReplacingPods",
        "Paused",
        "Draining",  # shards leave a node before it is drained
        "NodesUnreachable",  # pods on lost nodes were compensated by others
        "Deleting",  # something holds the deletion up
        "SwitchoverRequested",  # the annotation is being obeyed
        "AwaitingSecret",  # it is named a moment before it exists
    },
    ("Reconciling", "False"): {"UpToDate"} | STALLED,  # what holds everything up
    ("Stalled", "True"): STALLED,
    ("Stalled", "False"): {"UpToDate", "ChangedByAdmission"},
    ("Redundant", "True"): {"SparesReady", "NoSparesRequested"},
    ("Redundant", "False"): {"SpareLost", "NoSpareLeft", "Restarting", "Bootstrapping"},
    ("CertificateValid", "True"): {"Valid", "CertificateExpiresSoon", "Simulated"},
    ("CertificateValid", "False"): UNFIT,
    ("CertificateValid", "Unknown"): {"AwaitingSecret", "ReadFailed"},
}
# Before the first number of shards is settled, Ready names the step that it waits for.
STEPS = WORDS["Reconciling", "True"] | STALLED
EVIDENCE_WORDS = {
    "PodDeleted",
    "PodDraining",
    "PodFailed",
    "ContainerTerminated",
    "NodeGone",
    "ConnectionLost",
    "ProbeTimeout",
    "NotReady",
    "Requested",
    "Consolidated",
    "LabelConflict",  # two Services name its pod
    "RestartOverdue",  # it stays away after Set Shards
    "RolledOut",  # its pod gets a new template
    "HolderDisagrees",  # it says that it does not hold the shard
}

EVERYTHING: dict[str, Situation] = {
    **WITNESSES,
    "restarting": restarting(),
    "unserved": situation().settled(spares=0).holder_deleted(0),
    "silent": situation().settled().client(unresponsive_since=NOW - seconds(11), problem="connection refused"),
    "logged off": situation().settled().with_account().seeing(rejected_fingerprint=FINGERPRINT, logged_off_at=NOW),
    "expires soon": situation().settled().with_account(expires_at=NOW + timedelta(days=29)),
    "fit": situation().settled().with_account(),
}


def text(one: Situation) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in one.report()["conditions"]}


# --- vocabulary


def assert_words_of_the_api(one: Situation) -> None:
    is_first = "settledShards" not in one.report()
    for kind, (state, reason) in text(one).items():
        steps = STEPS if is_first and (kind, state) in {("Ready", "False"), ("Redundant", "False")} else set()
        assert reason in WORDS[(kind, state)] | steps, f"{kind}={state} says {reason}"
        assert not (is_first and (kind, state) == ("Ready", "True"))


@pytest.mark.parametrize("name", EVERYTHING)
def test_conditions_speak_the_words_of_the_api(name: str) -> None:
    assert_words_of_the_api(EVERYTHING[name])


@pytest.mark.slow
@many
@given(one=situations())
def test_conditions_speak_the_words_of_the_api_in_any_observation(one: Situation) -> None:
    assert_words_of_the_api(one)


def test_evidence_is_named_by_the_words_of_the_api() -> None:
    assert {str(evidence) for evidence in Evidence} == EVIDENCE_WORDS


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_condition_of_the_release_is_there_each_time(name: str) -> None:
    assert list(text(EVERYTHING[name])) == ["Ready", "Reconciling", "Stalled", "Redundant", "CertificateValid"]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("UpToDate", "Ready", ("True", "Serving")),
        ("UpToDate", "Reconciling", ("False", "UpToDate")),
        ("UpToDate", "Stalled", ("False", "UpToDate")),
        ("UpToDate", "Redundant", ("True", "SparesReady")),
        ("UpToDate", "CertificateValid", ("True", "Simulated")),
        ("FailingOver", "Ready", ("False", "FailingOver")),
        ("FailingOver", "Redundant", ("False", "NoSpareLeft")),
        ("unserved", "Ready", ("False", "Unserved")),
        ("unserved", "Redundant", ("True", "NoSparesRequested")),
        ("restarting", "Ready", ("False", "Restarting")),
        ("restarting", "Redundant", ("False", "Restarting")),
        ("Bootstrapping", "Ready", ("False", "Bootstrapping")),
        ("silent", "Ready", ("Unknown", "WebappNotResponding")),
        ("CertificateRejected", "Ready", ("True", "Serving")),  # rejected, but nothing says that the client was logged off
        ("logged off", "Ready", ("False", "CertificateRejected")),
        ("logged off", "Stalled", ("True", "CertificateRejected")),
        ("CertificateRejected", "Stalled", ("True", "CertificateRejected")),
        ("CertificateRejected", "CertificateValid", ("False", "CertificateRejected")),
        ("Banned", "Ready", ("False", "Banned")),
        ("Paused", "Ready", ("True", "Serving")),
        ("Paused", "Reconciling", ("True", "Paused")),
        ("fit", "CertificateValid", ("True", "Valid")),
        ("expires soon", "CertificateValid", ("True", "CertificateExpiresSoon")),
        ("RestartOverdue", "Reconciling", ("True", "RestartOverdue")),
    ],
)
def test_a_condition_answers_its_own_question(name: str, kind: str, expected: tuple[str, str]) -> None:
    assert text(EVERYTHING[name])[kind] == expected


def test_WebappUnavailable_when_none_is_ready() -> None:
    assert text(situation().settled().seeing(webapp=None))["Ready"] == ("False", "WebappUnavailable")


def test_a_webapp_that_is_not_there_says_why() -> None:
    """The reason is mostly the scheduler's, or that of the simulator behind it."""
    pending = "acme-simulator-0 (CrashLoopBackOff)"
    away = situation().settled().seeing(webapp=None, pending_pod=pending)
    assert away.condition("Ready")["message"] == f"No Webapp is ready, so messages cannot be submitted; waiting for {pending}."
    silent = EVERYTHING["silent"].seeing(pending_pod=pending)
    assert silent.condition("Ready")["message"].endswith(f"; waiting for {pending}")


def test_RestartOverdue_when_a_shard_is_unserved_after_the_deadline() -> None:
    one = restarting().restarted(4, [1, 2, 3]).with_pod(4, ready=False, report=None).with_pod(0, ready=False).later(600)

    assert text(one)["Ready"] == ("False", "RestartOverdue")


def test_SpareLost_when_some_are_left() -> None:
    assert text(situation().settled(spares=2).with_pod(3, ready=False))["Redundant"] == ("False", "SpareLost")


def test_a_failover_does_not_clear_Stalled() -> None:
    found = text(EVERYTHING["CertificateExpired"].holder_deleted(0))

    assert found["Stalled"] == ("True", "CertificateExpired")
    assert found["Reconciling"] == ("True", "FailingOver")


# --- the loudest


def spoken(**statuses: str) -> list[Condition]:
    quiet = {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Redundant": "True", "CertificateValid": "True"}
    return [Condition(type=kind, status=state, reason=Reason.UP_TO_DATE, message="") for kind, state in {**quiet, **statuses}.items()]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({}, "Ready"),
        ({"Stalled": "True", "Ready": "False", "Redundant": "False", "Reconciling": "True"}, "Stalled"),
        ({"Ready": "False", "Redundant": "False", "Reconciling": "True"}, "Ready"),
        ({"Ready": "Unknown", "Reconciling": "True"}, "Ready"),
        ({"Redundant": "False", "Reconciling": "True"}, "Reconciling"),
        ({"Redundant": "False"}, "Redundant"),
        ({"CertificateValid": "False"}, "CertificateValid"),
        ({"CertificateValid": "False", "Reconciling": "True"}, "Reconciling"),
    ],
)
def test_the_loudest(statuses: dict[str, str], expected: str) -> None:
    assert conditions.loudest(spoken(**statuses)).type == expected


def test_NoSpareLeft_is_louder_than_Reconciling() -> None:
    some = [one for one in spoken(Reconciling="True") if one.type != "Redundant"]

    assert (
        conditions.loudest([*some, Condition(type="Redundant", status="False", reason=Reason.NO_SPARE_LEFT, message="")]).reason
        == "NoSpareLeft"
    )


@pytest.mark.parametrize("name", EVERYTHING)
def test_reason_and_message_repeat_one_of_the_conditions(name: str) -> None:
    report = EVERYTHING[name].report()

    assert (report["reason"], report["message"]) in [(one["reason"], one["message"]) for one in report["conditions"]]


# --- silence


@pytest.mark.parametrize("name", EVERYTHING)
def test_an_equal_observation_later_has_nothing_to_write(name: str) -> None:
    """The same observation again, written meanwhile, and a little later: no patch (law 11)."""
    one = EVERYTHING[name].reported()

    assert report.patch(one.snapshot.status, one.report()) is None
    if one.plan().record.operation == one.snapshot.record.operation:  # else a call is made now, and the next observation knows of it
        assert report.patch(one.snapshot.status, one.seeing(now=one.snapshot.now + seconds(0.3)).report()) is None


def test_a_steady_cluster_is_never_written_again() -> None:
    one = situation().settled().reported()

    assert report.patch(one.snapshot.status, one.later(3600).report()) is None


@pytest.mark.parametrize("name", EVERYTHING)
def test_no_message_counts_time(name: str) -> None:
    """Absolute times only: "21 s ago" would be a write every second."""
    one, later = EVERYTHING[name], EVERYTHING[name].seeing(now=EVERYTHING[name].snapshot.now + seconds(0.4))
    if one.row() != later.row():
        return

    messages = {entry["type"]: entry["message"] for entry in one.report()["conditions"]}
    assert messages == {entry["type"]: entry["message"] for entry in later.report()["conditions"]}
    assert not [message for message in messages.values() if re.search(r"\b(ago|since \d+ s|in \d+ s)\b", message)]


def test_patch_says_null_for_what_is_gone() -> None:
    assert report.patch({"a": 1, "b": 2}, {"a": 1}) == {"b": None}
    assert report.patch({"o": {"x": 1, "y": 2}}, {"o": {"x": 1}}) == {"o": {"x": 1, "y": None}}
    assert report.patch({}, {"o": {"x": 1}}) == {"o": {"x": 1}}
    assert report.patch({"l": [1]}, {"l": [2]}) == {"l": [2]}
    assert report.patch({"a": {"b": 1}}, {"a": {"b": 1}}) is None


@pytest.mark.slow
@many
@given(first=situations(), then=situations())
def test_a_patch_leads_from_one_status_to_the_other(first: Situation, then: Situation) -> None:
    before = first.report()
    after = then.seeing(status=before).report()

    assert merged(before, report.patch(before, after) or {}) == after


def test_a_transition_time_moves_only_with_the_status() -> None:
    one = situation().settled().reported().later(60)

    assert one.condition("Ready")["lastTransitionTime"] == "2027-01-04T12:00:00Z"
    assert one.holder_deleted(0).condition("Ready")["lastTransitionTime"] == "2027-01-04T12:01:00Z"
    assert one.wanting(generation=4).condition("Ready")["observedGeneration"] == 4


# --- secrets

SENTINEL = "hunter2-c2VjcmV0"


@pytest.mark.parametrize("name", EVERYTHING)
def test_nothing_of_a_Secret_is_in_status_or_plan(name: str) -> None:
    one = EVERYTHING[name]
    objects = {
        ref: {**obj, "data": {"password": SENTINEL}, "stringData": {"pin": SENTINEL}} if ref.kind == "Secret" else obj
        for ref, obj in one.snapshot.objects.items()
    }
    one = one.seeing(objects=objects)

    assert SENTINEL not in json.dumps(one.report())
    assert SENTINEL not in repr(one.plan())


# --- numbers, map, record


def test_the_columns() -> None:
    assert situation().settled().report()["display"] == {"shards": "2", "coreapps": "3/3", "webapps": "2/2"}
    assert growing().noted(4).report()["display"]["shards"] == "2->4"


@pytest.mark.parametrize(("spares", "broken", "tolerated"), [(0, 0, 0), (1, 0, 1), (2, 0, 2), (2, 1, 1), (1, 1, 0)])
def test_failures_tolerated(spares: int, broken: int, tolerated: int) -> None:
    one = situation().settled(spares=spares)
    for ordinal in range(2, 2 + broken):
        one = one.with_pod(ordinal, ready=False)

    assert one.report()["failuresTolerated"] == tolerated


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (situation().settled(), "Serving"),
        (situation().settled().holder_deleted(0), "Moving"),
        (situation().settled().with_holder(0, report=Report(shards=2)), "Moving"),
        (situation().settled(spares=0).holder_deleted(0), "Unserved"),
        (situation().settled().holder_deleted(0).wanting(manual=True), "Unserved"),
    ],
)
def test_the_state_of_a_shard(one: Situation, state: str) -> None:
    assert one.report()["shardMap"][0]["state"] == state


def handed_over() -> Situation:
    """Shard 0 failed over to the spare half a second ago."""
    one = situation().settled().reported().held_by(0, 2)
    return one.with_route(0, evidence="PodDeleted", committed_at=NOW).later(0.5)


def test_a_handover_is_recorded_from_the_Service_once() -> None:
    one = handed_over().seeing(handover_times={"100-moved": HandoverTimes(commit=38, serve=55)})

    (entry,) = one.report()["recentHandovers"]
    assert entry == {
        "at": "2027-01-04T12:00:00Z",
        "shard": 0,
        "kind": "Failover",
        "from": "acme-coreapp-0",
        "to": "acme-coreapp-2",
        "epoch": "100-moved",
        "evidence": "PodDeleted",
        "commitMilliseconds": 38,
        "serveMilliseconds": 55,
    }
    assert one.reported().report()["recentHandovers"] == [entry]


def test_a_handover_is_recorded_after_a_crash_before_the_report() -> None:
    assert handed_over().seeing(leader_epoch=9).report()["recentHandovers"][0]["epoch"] == "100-moved"


def test_a_planned_one_is_a_Switchover() -> None:
    assert handed_over().with_route(0, planned=True, evidence="Requested").report()["recentHandovers"][0]["kind"] == "Switchover"


def test_a_handover_is_timed_when_the_new_holder_serves_after_the_first_report() -> None:
    """The report follows the commit at once, mostly before the new holder has taken the shard: the time must come with a later one."""
    early = handed_over().seeing(handover_times={"100-moved": HandoverTimes(commit=38)}).reported()

    later = early.seeing(handover_times={"100-moved": HandoverTimes(commit=38, serve=55)})
    assert later.report()["recentHandovers"][0].get("serveMilliseconds") == 55


def test_the_first_holder_of_a_shard_is_not_recorded() -> None:
    assert "recentHandovers" not in situation().settled().report()


def test_ten_are_kept_newest_first() -> None:
    kept = [
        {"at": f"2027-01-01T00:00:{20 - n:02}Z", "shard": 0, "kind": "Failover", "to": "x", "epoch": f"{n}-x", "evidence": "PodDeleted"}
        for n in range(10)
    ]
    one = handed_over()
    found = one.seeing(status={**one.snapshot.status, "recentHandovers": kept}).report()["recentHandovers"]

    assert [entry["epoch"] for entry in found] == ["100-moved", *(f"{n}-x" for n in range(9))]


def test_an_operation_is_reported_as_it_stands() -> None:
    (call,) = [action for action in growing().plan().actions if isinstance(action, SetShards)]

    assert "operation" not in growing().report(), "it is planned, and not noted"
    assert growing().seeing(operation=call.operation).client(call=Call(id=call.operation.id)).report()["operation"] == {
        "id": "4-n0nce",
        "from": 2,
        "to": 4,
        "leaderEpoch": 5,
        "attempts": 1,
        "answer": "None",
        "startedAt": "2027-01-04T12:00:00.000Z",
        "deadline": "2027-01-04T12:04:00.000Z",
        "settleBy": "2027-01-04T12:14:00.000Z",
        "uid": "cluster-uid",
    }
    assert "operation" not in situation().settled().report()


def test_shards_are_absent_while_unknown() -> None:
    assert "shards" not in situation().settled().reported().reporting(None).report()


def test_a_refused_fingerprint_is_kept() -> None:
    one = growing().with_account().calling(4, Answer.REJECTED, rejection=Rejection.CERTIFICATE, fingerprint=FINGERPRINT)

    assert one.report()["certificate"]["refusedFingerprint"] == FINGERPRINT
    assert one.report()["certificate"]["expiresAt"].endswith("Z")


def test_a_deletion_forgets_neither_the_intent_nor_the_settled_shards() -> None:
    """Deletion in the foreground takes a while, and its reports should not unsay what is so."""
    assert growing().noted(4).wanting(deleting=True).report().get("settledShards") == 2


# --- events


def test_events_are_said_on_change_only() -> None:
    before = situation().settled().report()

    assert report.events(before, before, {}, now=NOW) == ()
    said = report.events(before, situation().settled().holder_deleted(0).report(), {}, now=NOW)
    assert [one.reason for one in said] == ["FailingOver", "NoSpareLeft"]
    assert all(one.warning for one in said)


def test_SetShardsDone_is_said_when_all_are_back() -> None:
    before = restarting().report()

    assert "SetShardsDone" in [one.reason for one in report.events(before, restarting().restarted(4).report(), {}, now=NOW)]
    assert "SetShardsDone" not in [one.reason for one in report.events(before, before, {}, now=NOW)]


def test_SetShardsSent_names_both_counts_and_the_attempt() -> None:
    plan = growing().noted(4, Answer.BUSY, attempts=3).later(60).plan()

    (call,) = [action for action in plan.actions if isinstance(action, SetShards)]
    said = report.set_shards_sent(call.operation)
    assert (said.reason, said.message) == ("SetShardsSent", "2 -> 4 (id 4-n0nce, attempt 4): all Coreapps will restart.")


def test_a_failover_is_emitted_before_it_is_done() -> None:
    one = situation().settled().with_holder(0, terminated=True)

    (said,) = report.plan_events(one.snapshot, one.plan(), done=(), reported_after=5)
    assert said.message == "Shard 0: acme-coreapp-0 (node-0) failed (ContainerTerminated)."


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (None, "acme-coreapp-0 -> acme-coreapp-2, epoch 100-n0nce (ContainerTerminated)."),
        (HandoverTimes(commit=40), "(ContainerTerminated): commit 40 ms."),
        (HandoverTimes(detect=3200, commit=999, serve=1000), "(ContainerTerminated): detect 3.2 s, commit 999 ms, serve 1.0 s."),
    ],
)
def test_the_Event_of_a_handover_says_from_where_to_where_why_and_how_fast(times: HandoverTimes | None, says: str) -> None:
    (move,) = handovers.failovers(situation().settled().with_holder(0, terminated=True).facts())
    assert report.handed_over(move, times).message.endswith(says)


def test_the_Event_of_the_first_holder_names_no_other() -> None:
    (move,) = handovers.assignments(situation().settled().with_route(0, holder=None, holder_uid=None).facts())
    assert report.handed_over(move, None).message == f"Shard 0 -> {move.to.name}, epoch {move.epoch}: first holder."
