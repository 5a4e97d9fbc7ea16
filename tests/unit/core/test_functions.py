"""Single functions of the core that no rule leads to in every shape: what they promise, by value."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from whatsapp_operator.core import answers, checksums, conditions, manifests, pace, report, scaling, sentences, upkeep
from whatsapp_operator.core.actions import BumpVersion, ClearLabels, Delete, EmitEvent
from whatsapp_operator.core.desired import Database, Probe, Tls
from whatsapp_operator.core.manifests.pods import DATABASE_KEYS
from whatsapp_operator.core.names import Epoch, Key, Ref
from whatsapp_operator.core.snapshot import Answer, Call, Operation, Silence

from .situations import NOW, Situation, labels_for, seconds, situation
from .witnesses import growing

SETTLED = situation().settled()


# --- names and times


def test_a_cluster_is_named_by_its_namespace_and_name() -> None:
    assert str(Key("default", "acme")) == "default/acme"


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("12-abc", Epoch(12, "abc")),
        ("12-a-b", Epoch(12, "a-b")),
        ("0-x", Epoch(0, "x")),
        ("12", None),
        ("12-", None),
        ("-x", None),
        ("x-12", None),
        ("-1-x", None),
        ("²-x", None),
        ("9" * 30 + "-x", Epoch(10**30 - 1, "x")),
        ("9" * 31 + "-x", None),
        ("9" * 5000 + "-x", None),
        ("", None),
        (None, None),
    ],
)
def test_an_epoch_is_a_number_and_letters(text: str | None, epoch: Epoch | None) -> None:
    assert Epoch.parse(text) == epoch
    assert epoch is None or str(epoch) == text


def test_the_Services_of_a_cluster() -> None:  # noqa: N802
    assert manifests.service_names("acme", 2) == ("acme-coreapp", "acme-webapp", "acme-simulator", "acme-shard-0", "acme-shard-1")
    assert manifests.cluster_labels("acme") == {"multiconnect.dev/cluster": "acme"}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1969-12-31T23:59:59Z", None),
        ("2999-12-31T23:59:59Z", datetime(2999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("3000-01-01T00:00:00Z", None),
        ("2027-01-04T13:00:00+01:00", NOW),
        ("2027-01-04T12:00:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("soon", None),
    ],
)
def test_a_time_is_read_if_it_has_a_zone_and_can_be_reckoned_with(text: str, at: datetime | None) -> None:
    assert manifests.moment(text) == at


def test_a_time_is_spelt_in_utc_to_the_second_or_millisecond() -> None:
    at = datetime(2027, 1, 4, 13, 0, 0, 1999, tzinfo=timezone(timedelta(hours=1)))

    assert manifests.timestamp(at) == "2027-01-04T12:00:00Z"
    assert manifests.exact_timestamp(at) == "2027-01-04T12:00:00.001Z"


@pytest.mark.parametrize("header", ["Fri, 31 Dec 9999 23:59:59 -0100", "Mon, 04 Jan 2027 99:01:30 GMT"])
def test_a_date_that_no_calendar_has_asks_for_no_pause(header: str) -> None:
    assert answers.pause(header, now=NOW) is None


# --- what is put right


@pytest.mark.parametrize(
    ("live", "desired", "same"),
    [
        ("1Gi", "1024Mi", True),
        ("1000m", "1", True),
        ("1e3", "1k", True),
        ("1E3", "1000", True),
        ("1500u", "1.5m", True),
        ("2n", "0.002u", True),
        ("1P", "1000T", True),
        ("1E", "1000P", True),
        ("1M", "1000k", True),
        ("1G", "1000M", True),
        ("1T", "1000G", True),
        ("1Ki", "1024", True),
        ("1Ti", "1024Gi", True),
        ("1Ei", "1024Pi", True),
        ("1Pi", "1024Ti", True),
        ("+1", "1", True),
        ("1Gi", "1G", False),
        ("1.2.3", "1.2.3.4", False),
        ("...", "..", False),
        ("much", "more", False),
        (None, "1", False),
    ],
)
def test_amounts_are_compared_by_value_where_amounts_stand(live: str | None, desired: str, same: bool) -> None:
    for where in ("requests", "limits"):
        assert upkeep.covers({where: {"cpu": live}}, {where: {"cpu": desired}}) is same
    assert not upkeep.covers({"other": {"cpu": live}}, {"other": {"cpu": desired}})


def test_the_patch_that_voids_older_writes_moves_the_version_and_nothing_else() -> None:
    anchor = BumpVersion(ref=Ref("StatefulSet", "acme-coreapp"), resource_version="9", shards=4, nonce="x")

    assert manifests.anchor_patch(anchor) == {"metadata": {"resourceVersion": "9", "annotations": {"multiconnect.dev/anchor": "4-x"}}}


@pytest.mark.parametrize(
    ("probe", "how"),
    [
        (Probe(), {"httpGet": {"path": "/", "port": 6253, "scheme": "HTTP"}, "timeoutSeconds": 2}),
        (Probe(path="/health"), {"httpGet": {"path": "/health", "port": 6253, "scheme": "HTTP"}, "timeoutSeconds": 2}),
        (Probe(kind="TCP"), {"tcpSocket": {"port": 6253}}),
    ],
)
def test_kubelets_ask_a_Coreapp_as_the_operator_does(probe: Probe, how: dict[str, Any]) -> None:  # noqa: N802
    made = manifests.coreapps(replace(SETTLED.desired, probe=probe), replicas=3)
    container = made["spec"]["template"]["spec"]["containers"][0]

    assert container["readinessProbe"] == {**how, "periodSeconds": 1, "failureThreshold": 2}


def test_which_keys_of_which_Secrets_pods_take() -> None:  # noqa: N802
    desired = SETTLED.desired
    webapps, simulator = Ref("Deployment", "acme-webapp"), Ref("StatefulSet", "acme-simulator")
    keys = tuple(DATABASE_KEYS)

    assert checksums.keys_used(desired) == {webapps: {"acme-webapp-tls": ("tls.crt", "tls.key")}}
    own = replace(desired, tls=Tls(secret_name="mine"), database=Database(secret_name="db"))
    assert checksums.keys_used(own) == {webapps: {"mine": ("tls.crt", "tls.key")}, simulator: {"db": keys}}
    encrypted = replace(desired, database=Database(secret_name="db", tls_secret_name="ca"))
    assert checksums.keys_used(encrypted)[simulator] == {"db": keys, "ca": ("ca.crt", "tls.crt", "tls.key")}


# --- labels that nobody names


@pytest.mark.parametrize(
    ("labels", "cleared"),
    [
        ({}, True),
        ({manifests.ROLE_LABEL: "active"}, True),
        ({manifests.ROLE_LABEL: "standby"}, False),
    ],
)
def test_a_pod_that_holds_nothing_is_labelled_standby(labels: dict[str, str], cleared: bool) -> None:
    plan = SETTLED.with_pod(2, labels=labels).plan()

    assert [action.coreapp.ordinal for action in plan.actions if isinstance(action, ClearLabels)] == ([2] if cleared else [])


def test_a_damaged_label_of_a_shard_that_is_gone_is_cleared() -> None:
    one = SETTLED.reporting(1).wanting(shards=1).with_pod(1, labels={**labels_for(1, "11-first"), manifests.ROLE_LABEL: "standby"})

    assert [action.coreapp.ordinal for action in one.plan().actions if isinstance(action, ClearLabels)] == [1]


# --- how often


@pytest.mark.parametrize(("left", "passed", "now"), [(0, 0, 0), (0, 1, 10), (5, 0.5, 10), (25, 1, 30), (-1, 0.1, 0)])
def test_a_cluster_may_be_observed_ten_times_a_second_and_thirty_times_in_a_row(left: float, passed: float, now: float) -> None:
    assert pace.tokens(left, passed) == now


def test_silence_of_a_pod_that_is_not_ready_is_judged_again_after_five_seconds() -> None:
    one = SETTLED.with_pod(2, ready=False, lost_readiness=True, report=None).seeing(silence=Silence(lag=seconds(2)))
    stands = {fact: NOW - seconds(600) for fact in one.plan().holds if fact.startswith("Stands/")}
    held = one.seeing(since={**stands, "NotReady/uid-2": NOW - seconds(600)})

    assert held.plan().wake_after == seconds(5)


# --- what is said


def test_of_a_call_that_there_is_not_nothing_is_said() -> None:
    facts = SETTLED.facts()

    assert conditions._deadline(facts) == ""
    assert scaling.tell(facts) == ""
    assert scaling.scale(situation().facts(), 3) == ()


@pytest.mark.parametrize(("said", "shown"), [("", "set."), ("HTTP 400: too weak", "set (HTTP 400: too weak).")])
def test_a_new_password_that_the_client_does_not_take_is_reported(said: str, shown: str) -> None:
    one = SETTLED.client(is_new_password_rejected=True, login_message=said)

    assert f"the first login must {shown} A new one has 8 to 64 characters" in sentences.login_advice(one.facts())
    assert "initialPassword" in sentences.login_advice(one.client(is_new_password_rejected=False).facts())


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"origin": 2}, "2 -> 4 (id 4-x): all Coreapps will restart."),
        ({"origin": None}, "? -> 4 (id 4-x): all Coreapps will restart."),
        ({"origin": 2, "attempts": 2}, "2 -> 4 (id 4-x, attempt 2): all Coreapps will restart."),
    ],
)
def test_a_call_is_reported_with_its_numbers_and_its_attempt(operation: dict[str, Any], message: str) -> None:
    made = Operation(id="4-x", to=4, leader_epoch=5, started_at=NOW, settle_by=NOW, deadline=NOW, **operation)

    assert report.set_shards_sent(made) == EmitEvent(reason="SetShardsSent", message=message)


def busy(attempts: int, answer: Answer = Answer.BUSY, call: str = "4-noted") -> Situation:
    return growing().noted(4, attempts=attempts).client(call=Call(id=call, answer=answer, detail="HTTP 503"))


def events(one: Situation, done: tuple[Delete, ...] = ()) -> list[EmitEvent]:
    return [*report.plan_events(one.snapshot, one.plan(), done=done, reported_after=5)]


def test_a_busy_server_is_reported_and_a_warning_from_the_fifth_time_on() -> None:
    (said,) = events(busy(4))
    assert (said.reason, said.message, said.warning) == ("ServerBusy", "Set Shards, attempt 4: HTTP 503.", False)
    (said,) = events(busy(5))
    assert said.message == "Set Shards, attempt 5: HTTP 503. It is tried again. If it goes on, ask Meta's support."
    assert said.warning
    assert events(busy(5, Answer.ACCEPTED)) == []
    assert events(busy(5, call="another")) == []
    assert events(growing().client(call=Call(id="4-noted", answer=Answer.BUSY))) == []


@pytest.mark.parametrize(
    ("revision", "reason", "warning"),
    [("rev-0", "DeletingOutdatedPod", False), ("rev-1", "DeletingUnresponsivePod", True), (None, "DeletingUnresponsivePod", True)],
)
def test_a_deletion_is_reported_once_it_was_done_with_its_reason(revision: str | None, reason: str, warning: bool) -> None:
    one = SETTLED.with_nodes().with_pod(2, unresponsive_since=NOW - seconds(60), revision=revision)
    plan = one.plan()
    (deleted,) = (action for action in plan.actions if isinstance(action, Delete))

    (said,) = (said for said in events(one, (deleted,)) if said.reason != "ScalingUp")
    assert (said.reason, said.warning) == (reason, warning)
    assert said.message.startswith("acme-coreapp-2 ")
    assert [said.reason for said in events(one) if said.reason != "ScalingUp"] == []


def test_a_failover_is_reported_with_the_node_and_a_switchover_is_not() -> None:
    (said,) = events(SETTLED.with_holder(0, terminated=True))
    assert (said.reason, said.message, said.warning) == (
        "FailingOver",
        "Shard 0: acme-coreapp-0 (node-0) failed (ContainerTerminated).",
        True,
    )
    (said,) = events(SETTLED.with_holder(0, terminated=True, node=None))
    assert said.message == "Shard 0: acme-coreapp-0 failed (ContainerTerminated)."
    assert events(SETTLED.with_nodes().with_node(0, leaving="cordoned")) == []


def test_a_change_of_the_number_of_Coreapps_is_reported() -> None:  # noqa: N802
    (said,) = events(SETTLED.wanting(shards=4))

    assert (said.reason, said.message) == ("ScalingUp", "Coreapps 3 -> 5.")
