"""When a cluster is observed and its client asked again, moment by moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from whatsapp_operator.core import checksums, manifests, pace, rules
from whatsapp_operator.core.actions import State
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.core.snapshot import Answer, Overruled, Report, Silence
from whatsapp_operator.core.windows import Window

from .situations import NOW, Situation, seconds, situation
from .test_logged_off import gateways
from .witnesses import WITNESSES, growing, restarting, rolling_out, secret_missing

SETTLED = situation().settled()
LATE = Silence(lag=seconds(2))


def due(one: Situation) -> set[timedelta]:
    return {*pace.due(one.facts())}


def asks(one: Situation, rule: str = "SettingShards", state: State = State.WORKING) -> bool:
    return pace.asks(one.facts(), rule, state)


# --- the table

SOON, EACH_SECOND = seconds(0.25), seconds(1)
CADENCES = {
    "Verifying": (SOON, seconds(2)),
    "Restarting": (SOON, seconds(2)),
    "AnswerUnknown": (SOON, seconds(5)),
    **dict.fromkeys(
        [
            "Paused",
            "WindowClosed",
            "WindowInvalid",
            "ShardsDrifted",
            "NameConflict",
            "CrdOutdated",
            "LoginRejected",
            "PodsRejected",
            "DeletionBlocked",
            "ReplicasOverruled",
            "ReadFailed",
            "EpochRejected",
            "Banned",
            "SecretMissing",
            "AwaitingSecret",
            "CertificateRejected",
            "CertificateExpired",
            "PinMalformed",
        ],
        (EACH_SECOND, timedelta.max),
    ),
    **dict.fromkeys(["FailingOver", "ServerBusy", "SettingShards", "ScalingUp", "RollingOut", "UpToDate"], (SOON, timedelta.max)),
}


@pytest.mark.parametrize("rule", CADENCES)
def test_what_waits_for_a_person_is_observed_less_often_than_what_moves(rule: str) -> None:
    entry = pace.cadence(rule)

    assert (entry.first, entry.longest) == CADENCES[rule]


@pytest.mark.parametrize(
    ("first", "last", "pauses"),
    [
        ("FIRST_RETRY", "LAST_RETRY", [0.1, 0.2, 0.4, 5, 5]),
        ("FIRST_RETRY", "LAST_URGENT_RETRY", [0.1, 0.2, 0.4, 1, 1]),
        ("FIRST_EVENT_RETRY", "LAST_EVENT_RETRY", [1, 2, 4, 64, 300]),
        ("REASSIGN_AFTER", "REASSIGN_AFTER", [0.5] * 5),
    ],
    ids=["observations", "urgent ones", "Events", "roles"],
)
def test_pauses_after_failures_double_up_to_a_limit(first: str, last: str, pauses: list[float]) -> None:
    shortest, longest = getattr(pace, first), getattr(pace, last)

    assert [pace.retry_after(failures, shortest, longest) for failures in (1, 2, 3, 7, 99)] == [seconds(pause) for pause in pauses]
    assert pace.retry_after(0, shortest, longest) == shortest


def test_failures_of_which_nothing_is_said_are_those_of_observations() -> None:
    assert [pace.retry_after(failures) for failures in (1, 99)] == [seconds(0.1), seconds(5)]


def test_the_numbers_that_only_the_loop_uses_are_not_changed_unseen() -> None:
    assert pace.MOST_CONFLICTS == 3
    assert (seconds(5), seconds(0.5)) == (pace.SLOW_FOR, pace.SLOW_FOR_A_WHILE)


def test_the_client_of_a_quiet_cluster_is_asked_as_often_without_an_observation_as_with_one() -> None:
    assert pace.ASK_AGAIN == seconds(30) == Tuning().ask_steady


# --- asking the client


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (growing().client(asked_at=None), True),
        (growing().client(asked_at=None, asking=True), False),
        (growing().client(asked_at=None).seeing(webapp=None), False),
        (growing().client(asked_at=None).seeing(unread={"Secret": ""}), False),
        (growing().client(asked_at=None).seeing(unread={"Secret": "HTTP 403"}), False),
        (growing().client(asked_at=None).seeing(unread={"Service": "HTTP 403"}), True),
    ],
    ids=["at once", "being asked", "no Webapp", "Secrets not read yet", "Secrets not readable", "something else not readable"],
)
def test_the_client_is_asked_if_it_can_be_asked(one: Situation, expected: bool) -> None:
    assert asks(one) is expected


@pytest.mark.parametrize(("settled", "reported", "expected"), [(None, None, False), (2, None, True), (None, 2, True)])
def test_a_first_login_waits_for_a_missing_Secret_a_later_one_does_not(  # noqa: N802
    settled: int | None, reported: int | None, expected: bool
) -> None:
    one = SETTLED.seeing(settled_shards=settled, missing="Secret acme-admin").client(shards=reported, asked_at=None)

    assert asks(one) is expected


def stands(one: Situation, rule: str, span: float) -> Situation:
    """The rule has won for so many seconds without progress."""
    return one.seeing(since={pace.standing(one.facts(), rule): NOW - seconds(span)})


@pytest.mark.parametrize(("ago", "expected"), [(0.2, False), (0.25, True)])
def test_while_a_call_is_under_way_its_effect_is_asked_for_four_times_a_second_however_long_it_takes(ago: float, expected: bool) -> None:
    one = stands(growing().noted(4, Answer.UNKNOWN), "AnswerUnknown", 600).client(asked_at=NOW - seconds(ago))

    assert asks(one, "AnswerUnknown", State.WAITING) is expected


def test_a_client_that_does_not_answer_is_asked_less_often_even_then() -> None:
    one = growing().noted(4, Answer.UNKNOWN).client(unresponsive_since=NOW - seconds(60))
    old = stands(one, "AnswerUnknown", 16)

    assert not asks(old.client(asked_at=NOW - seconds(3.9)), "AnswerUnknown", State.WAITING)
    assert asks(old.client(asked_at=NOW - seconds(4)), "AnswerUnknown", State.WAITING)


@pytest.mark.parametrize(
    ("state", "ago", "expected"),
    [
        (State.WORKING, 1.9, False),
        (State.WORKING, 2, True),
        (State.WAITING, 2, False),
        (State.WAITING, 24.9, False),
        (State.WAITING, 25, True),
    ],
)
def test_a_number_is_fresh_while_something_is_done_and_old_while_something_is_waited_for(state: State, ago: float, expected: bool) -> None:
    """A rule that has won for a hundred seconds: an observation is due after a quarter of that."""
    one = stands(growing(), "SettingShards", 100).client(asked_at=NOW - seconds(ago))

    assert asks(one, "SettingShards", state) is expected


@pytest.mark.parametrize(("ago", "expected"), [(10, False), (29.9, False), (30, True)])
def test_a_failover_of_a_settled_cluster_needs_no_fresh_number(ago: float, expected: bool) -> None:
    one = SETTLED.holder_deleted(0).client(asked_at=NOW - seconds(ago))

    assert asks(one, "FailingOver", State.WORKING) is expected


def test_the_effect_of_a_call_is_not_asked_for_once_the_cluster_is_being_deleted() -> None:
    one = growing().noted(4, Answer.UNKNOWN).client(asked_at=NOW - seconds(10))

    assert asks(one, "AnswerUnknown", State.WAITING)
    assert not asks(one.wanting(deleting=True), "Deleting", State.WORKING)


def test_a_condition_counts_as_a_new_one_once_a_call_is_made_or_answered() -> None:
    """So what follows from the answer is observed at once, and not after a quarter of the time before."""
    unanswered = growing().noted(4)
    old = stands(growing(), "Verifying", 4)
    noted = stands(unanswered, "Verifying", 4)

    assert pace.pause(old.facts(), "Verifying") == pace.pause(noted.facts(), "Verifying") == seconds(1)
    assert pace.pause(old.noted(4).facts(), "Verifying") == SOON
    assert pace.pause(noted.noted(4, Answer.ACCEPTED).facts(), "Verifying") == SOON
    assert pace.pause(noted.noted(4, id="another").facts(), "Verifying") == SOON


def test_the_first_pauses_are_longer_while_the_client_does_not_answer() -> None:
    one = growing()

    assert pace.pause(one.facts(), "SettingShards") == SOON
    assert pace.pause(one.client(unresponsive_since=NOW).facts(), "SettingShards") == EACH_SECOND


# --- facts whose age is wanted


def holds(one: Situation) -> set[str]:
    return {fact for fact in one.plan().holds if not fact.startswith("Stands/")}


def test_that_enough_are_back_is_timed_while_a_call_is_under_way() -> None:
    assert "EnoughAreBack/4-noted" in holds(restarting().restarted(4, range(4)))
    assert "EnoughAreBack/4-noted" not in holds(restarting())
    assert holds(SETTLED) == set()


def test_that_Coreapps_are_lacking_is_timed_for_a_resize_and_for_a_first_number_only() -> None:  # noqa: N802
    lacking = SETTLED.with_pod(2, ready=False)

    assert "LacksCoreapps" in holds(growing().with_pod(4, ready=False))
    assert "LacksCoreapps" in holds(lacking.seeing(settled_shards=None))
    assert "LacksCoreapps" not in holds(lacking)
    assert "LacksCoreapps" not in holds(growing()), "all are ready"


def secrets_changed() -> Situation:
    """The Webapps have taken ``old``; their Secrets are ``new`` by now."""
    ref = manifests.webapp_deployment("acme")
    live = SETTLED.snapshot.objects[ref]
    taken = {**live, "metadata": {**live["metadata"], "annotations": {checksums.CHECKSUM_ANNOTATION: "old"}}}
    return SETTLED.seeing(checksums={ref: "new"}, objects={**SETTLED.snapshot.objects, ref: taken})


def test_that_Secrets_changed_is_timed_for_the_pods_that_took_them() -> None:  # noqa: N802
    assert [checksum for _, checksum in secrets_changed().facts().stale_workloads] == ["new"]
    assert holds(secrets_changed()) == {"SecretsChanged/Deployment/acme-webapp/new"}


def test_each_outdated_Coreapp_is_timed_by_its_role() -> None:  # noqa: N802
    assert holds(rolling_out()) == {"Outdated/uid-0/holder", "Outdated/uid-1/holder", "Outdated/uid-2/spare"}


def logged_off(gateway: str = "connected") -> Situation:
    """A rejected certificate logged the client off; every holder says this of its connection."""
    return gateways(SETTLED.seeing(logged_off_at=NOW - seconds(60)), gateway)


def logging_on(to: int = 2) -> Situation:
    """A call for so many shards may have been accepted; there are two, whose holders are all connected."""
    return gateways(SETTLED.noted(to, Answer.UNKNOWN), "connected")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (logged_off(), True),
        (logged_off("disconnected"), False),
        (logged_off("connecting"), False),
        (logging_on(), True),
        (logging_on(to=4), False),
        (gateways(SETTLED, "connected"), False),
    ],
    ids=["logged off", "disconnected", "connecting", "being logged on", "more shards", "never logged off"],
)
def test_that_all_are_connected_is_timed_while_the_client_is_thought_to_be_logged_off(one: Situation, expected: bool) -> None:
    """It proves that the client is logged on again; otherwise nothing follows from it."""
    assert ("Connected" in holds(one)) is expected


def test_a_holder_that_disagrees_is_timed_unless_a_restart_explains_it() -> None:
    """Until it is back with the new number of shards, what it says of its role is that of before."""
    disputed = SETTLED.with_holder(0, report=Report(shards=2))

    assert holds(disputed) == {"HolderDisagrees/0/10-first"}
    assert holds(disputed.noted(4, Answer.UNKNOWN)) == set()
    assert holds(disputed.noted(4, Answer.BUSY)) == {"HolderDisagrees/0/10-first"}, "a busy client restarts nothing"


# --- known moments


def cut_off() -> Situation:
    return gateways(SETTLED, "disconnected")


def lost(span: float) -> Situation:
    """A standby has not answered for so many seconds, on a node whose kubelet does not either; no Leases are known."""
    one = SETTLED.with_nodes().with_node(2, ready=None, renewed_at=None)
    return one.with_pod(2, unresponsive_since=NOW - seconds(span)).seeing(since={"NodesUnreachable/uid-2": NOW - seconds(span)})


@pytest.mark.parametrize(
    ("one", "fact", "age", "left"),
    [
        (lost(58), "NodesUnreachable/uid-2", 58, 2),
        (cut_off(), "CutOff", 4, 1),
        (logged_off(), "Connected", 4, 1),
        (logging_on(), "Connected", 4, 1),
        (rolling_out(), "Outdated/uid-2/spare", 2, 1),
        (restarting().restarted(4, range(4)), "EnoughAreBack/4-noted", 9, 1),
        (restarting().restarted(4, range(4)), "EnoughAreBack/4-noted", 3, 7),
        (secret_missing(0), "SecretMissing", 4, 1),
        (secrets_changed(), "SecretsChanged/Deployment/acme-webapp/new", 9, 1),
    ],
    ids=["a lost node", "cut off", "connected", "connected again", "outdated", "back", "just back", "no Secret", "new Secrets"],
)
def test_a_fact_is_looked_at_when_it_is_old_enough(one: Situation, fact: str, age: float, left: float) -> None:
    """A minute for a lost node, 5 s for what the holders say of their connections, 3 s for routes to settle, 10 s for holders to return."""
    assert seconds(left) in due(one.seeing(since={fact: NOW - seconds(age)}))
    assert seconds(left) not in due(one.seeing(since={}))


NOON = Window(name="noon", schedule="0 12 * * *", duration=timedelta(hours=1))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (growing().wanting(windows=(NOON,)).seeing(now=NOW - seconds(40)), True),
        (growing().wanting(windows=(NOON,), reshard_now=4).seeing(now=NOW - seconds(40)), False),
        (SETTLED.wanting(windows=(NOON,)).seeing(now=NOW - seconds(40)), False),
    ],
    ids=["a resize waits", "a resize that need not wait", "no resize"],
)
def test_the_opening_of_a_window_is_a_known_moment_while_a_resize_waits_for_it(one: Situation, expected: bool) -> None:
    assert (seconds(40) in due(one)) is expected


def test_the_next_opening_is_no_known_moment_while_a_window_is_open() -> None:
    assert timedelta(days=1) not in due(growing().wanting(windows=(NOON,)))


def overruled(times: int, ago: float) -> Situation:
    """An autoscaler was overruled so many times in a row, the last time so many seconds ago, and has scaled again."""
    workload = SETTLED.snapshot.statefulset
    assert workload is not None
    one = SETTLED.seeing(statefulset=replace(workload, scaled_by="autoscaler", replicas=5))
    return one.seeing(overruled=Overruled(by="autoscaler", replicas=5, times=times, at=NOW - seconds(ago)))


@pytest.mark.parametrize(
    ("times", "ago", "moments"),
    [(1, 10, {890}), (3, 10, {20, 890}), (4, 10, {50, 890}), (1, 899, {1}), (1, 900, set())],
    ids=["once", "insisting", "still insisting", "nearly forgotten", "forgotten"],
)
def test_a_number_that_another_party_wrote_is_set_back_and_forgotten_at_known_moments(times: int, ago: float, moments: set[float]) -> None:
    """From the third time on with pauses of 30 s and more; after a quarter of an hour nothing is said of it any more."""
    assert due(overruled(times, ago)) == {seconds(moment) for moment in moments}


def test_a_busy_client_is_tried_again_at_a_known_moment() -> None:
    one = growing().noted(4, Answer.BUSY)
    pause = one.facts().backoff - seconds(1)

    assert pause in due(one)
    assert pause not in due(growing().noted(4, Answer.UNKNOWN))


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (growing().noted(4, Answer.ACCEPTED), True),
        (growing().noted(4, Answer.UNKNOWN), False),
        (growing().noted(4, Answer.UNKNOWN).with_pod(1, report=None), True),
        (growing().noted(4, Answer.UNKNOWN).with_pod(1, unresponsive_since=NOW - seconds(1)), True),
    ],
    ids=["restart", "all answer", "one was never asked", "one is silent"],
)
def test_the_end_of_a_restart_matters_while_it_explains_something(one: Situation, expected: bool) -> None:
    """The deadline is 180 s after the note, which was written a second ago."""
    assert (seconds(179) in due(one)) is expected
    assert seconds(839) in due(one), "an unanswered call is settled then"


def test_a_rejected_object_is_tried_again_at_a_known_moment() -> None:
    assert seconds(4) in due(SETTLED.rejecting("Service", "acme-webapp", ago=1))
    assert due(SETTLED.rejecting("Service", "acme-webapp", ago=5)) == due(SETTLED) == set()


def silent(span: float, renewed: float | None = 3) -> Situation:
    """A standby has not answered for so many seconds; the Lease of its node was renewed so many seconds ago."""
    at = None if renewed is None else NOW - seconds(renewed)
    return SETTLED.with_nodes().with_node(2, renewed_at=at).with_pod(2, unresponsive_since=NOW - seconds(span))


def test_a_silence_is_looked_at_when_it_decides_something() -> None:
    """After 3 and 6 s (unhealthy, and twice that), 15 s (a Lease) and 180 s (a restart); 12 s from now the Lease is that old too."""
    assert due(silent(1)) == {seconds(2), seconds(5), seconds(14), seconds(179), seconds(12), seconds(1)}
    assert due(silent(1, renewed=None)) == {seconds(2), seconds(5), seconds(14), seconds(179), seconds(1)}


@pytest.mark.parametrize(("span", "checked", "passed"), [(2, 1, 1), (16, 4, 4), (60, 5, 15)])
def test_a_long_silence_is_looked_at_less_and_less_often_but_while_the_self_check_fails_every_five_seconds(
    span: float, checked: float, passed: float
) -> None:
    assert seconds(passed) in due(silent(span))
    assert seconds(checked) in due(silent(span).seeing(silence=LATE))


def test_of_two_silences_the_younger_decides_how_soon_they_are_looked_at_again() -> None:
    both = silent(16).with_pod(1, unresponsive_since=NOW - seconds(100))

    assert seconds(4) in due(both)
    assert seconds(25) not in due(both)


def test_a_failed_self_check_is_looked_at_again_while_a_kubelet_says_that_a_Coreapp_is_not_ready() -> None:  # noqa: N802
    unready = SETTLED.with_pod(2, ready=False, lost_readiness=True, report=None)

    assert seconds(5) in due(unready.seeing(silence=LATE))
    assert seconds(5) not in due(SETTLED.seeing(silence=LATE))
    assert seconds(5) not in due(unready), "it is passed"


def test_every_rule_has_a_cadence_of_the_table() -> None:
    assert {pace.cadence(rule.name).first for rule in rules.RULES} == {SOON, EACH_SECOND}
    assert pace.observe_after(WITNESSES["UpToDate"].facts(), "UpToDate") == seconds(30)


def test_a_Coreapp_that_is_not_ready_and_an_account_without_a_certificate_have_their_moments() -> None:  # noqa: N802
    unready = SETTLED.with_pod(2, ready=False, lost_readiness=True, report=None).seeing(since={"NotReady/uid-2": NOW - seconds(1)})
    registered = SETTLED.with_account(registered_at=NOW - timedelta(days=6))

    assert {seconds(2), seconds(5)} <= due(unready)
    assert timedelta(days=1) in due(registered)
    assert timedelta(hours=23) in due(registered.seeing(server_time=NOW + timedelta(hours=1))), "the later one of two clocks counts"
