"""Every write of the executor: which call it becomes, and what an answer, a failure or no answer at all makes of the round."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from cryptography import x509

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import (
    Action,
    Annotate,
    AssignRole,
    BumpVersion,
    ClearLabels,
    Create,
    Delete,
    EmitEvent,
    GenerateSecret,
    GetShards,
    Handover,
    Label,
    Relabel,
    Retire,
    Scale,
    SetShards,
    Touch,
)
from whatsapp_operator.core.names import Epoch, Ref
from whatsapp_operator.core.snapshot import Evidence, HandoverTimes, Operation, Overruled, Report
from whatsapp_operator.shell.coreapps.schedule import ProbeResult
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.errors import Conflict, KubeError, NotFound, Rejected, TestFailed, Unavailable
from whatsapp_operator.shell.loop.cluster import Denial, Memory
from whatsapp_operator.shell.loop.execute import AT_A_TIME, MOST_ACTIONS, Executor
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.loop.outcome import Outcome
from whatsapp_operator.shell.whatsapp.access import Access, Credentials

from .core.situations import NONCE, NOW, Situation, labels_for, pod, route, seconds, situation
from .core.witnesses import growing

LATE = Unavailable("the API server did not answer within 2 s.")
BROKEN = Unavailable("connection reset by peer")
OVERLOADED = Unavailable("503 ServiceUnavailable", code=503)
FORBIDDEN = Rejected("403 Forbidden", code=403, reason="Forbidden")
FAILURES = [LATE, BROKEN, OVERLOADED, FORBIDDEN]
OUTDATED = [Conflict("409", code=409), NotFound("404", code=404), TestFailed("422", code=422)]

STATEFULSET = Ref("StatefulSet", "acme-coreapp")
ADDRESS = Access(addresses=(), server_name="")
CREDENTIALS = Credentials(country_code="1", phone_number="2")
Call = tuple[str, str, Any]
"""What is called, the name of the object, and what is sent."""


class Cluster:
    """One cluster's writes and messages: it notes all calls, and answers those that a test says otherwise by their name and object."""

    def __init__(self, one: Situation | None = None) -> None:
        self.one = one or situation().settled()
        self.calls: list[Call] = []
        self.answers: dict[tuple[str, str], Exception] = {}
        self.stored: dict[str, Any] = {}
        """What the API server answers of an object that it took, by name."""
        self.assigned: list[AssignRole] = []
        self.assign_answer: Callable[[AssignRole], Awaitable[bool]] = self._accept
        self.reports: dict[str, Report] = {}
        self.memory = Memory()
        self.asked: list[bool] = []
        self.sent: list[Operation] = []
        self.at_once = self.most_at_once = 0
        fake: Any = self
        self.executor = Executor(kube=fake, clients=fake, coreapps=fake, clock=fake, identity="operator-0")

    @staticmethod
    async def _accept(_: AssignRole) -> bool:
        return True

    # --- clock

    def now(self) -> datetime:
        return NOW + timedelta(milliseconds=40)

    wall = now

    def monotonic(self) -> float:
        return 1000.0

    # --- Coreapps and clients

    async def assign(self, action: AssignRole) -> bool:
        self.assigned.append(action)
        return await self.assign_answer(action)

    def result_of(self, uid: str) -> ProbeResult:
        return ProbeResult(report=self.reports.get(uid))

    def ask(self, _: object, __: object, *, quiet: bool) -> None:
        self.asked.append(quiet)

    def set_shards(self, _: object, __: object, ___: object, operation: Operation, noted_at: float) -> None:
        assert noted_at == 7.5
        self.sent.append(operation)

    # --- API server

    async def _answer(self, what: str, name: str, body: Any) -> dict[str, Any]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.calls.append((what, name, body))
        if (answer := self.answers.get((what, name))) is not None:
            raise answer
        found: dict[str, Any] = self.stored.get(name, {"metadata": {"name": name, "uid": "x", "resourceVersion": "999"}, "spec": {}})
        return found

    async def create(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        return await self._answer("create", "Event" if obj["kind"] == "Event" else obj["metadata"]["name"], obj)

    async def delete(self, kind: kinds.Kind, _: str, name: str, *, uid: str, resource_version: str) -> dict[str, Any]:
        return await self._answer("delete", name, (kind.kind, uid, resource_version))

    async def patch_scale(self, _: object, __: str, name: str, body: Any) -> dict[str, Any]:
        return await self._answer("scale", name, body)

    async def patch_status(self, _: object, __: str, name: str, body: Any) -> dict[str, Any]:
        return await self._answer("status", name, body)

    async def patch_merge(self, kind: kinds.Kind, _: str, name: str, body: Any) -> dict[str, Any]:
        return await self._answer(f"merge {kind.kind}", name, body)

    async def patch_json(self, kind: kinds.Kind, _: str, name: str, body: Any) -> dict[str, Any]:
        return await self._answer(f"json {kind.kind}", name, body)

    # --- what tests do and see

    def observation(self) -> Observation:
        return Observation(self.one.desired, self.one.snapshot, ADDRESS, CREDENTIALS)

    async def perform(self, *actions: Action, is_part: bool = False) -> Outcome:
        return await self.executor.perform(self.observation(), actions, self.memory, is_part=is_part)

    def called(self) -> list[tuple[str, str]]:
        return [(what, name) for what, name, _ in self.calls]


def handover(shard: int = 0, **changes: Any) -> Handover:
    one = situation().settled()
    made = Handover(
        route=one.route(shard),
        to=pod(2),
        epoch=Epoch(one.route(shard).version, NONCE),
        evidence=Evidence.POD_DELETED,
        planned=False,
        shards=2,
        detected_at=NOW,
    )
    return replace(made, **changes)


def service(shard: int) -> dict[str, Any]:
    """The Service of a shard as it is stored after the commit of ``handover(shard)``."""
    return {
        "metadata": {
            "name": f"acme-shard-{shard}",
            "uid": f"service-{shard}",
            "resourceVersion": "300",
            "annotations": {manifests.HOLDER_ANNOTATION: "acme-coreapp-2/uid-2"},
        },
        "spec": {"selector": {manifests.EPOCH_LABEL: f"{100 + shard}-{NONCE}"}},
    }


# --- one call for each action

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "acme-admin", "namespace": "default"}}
WRITES: dict[str, tuple[Action, Call]] = {
    "delete": (Delete.of(pod(2)), ("delete", "acme-coreapp-2", ("Pod", "uid-2", "502"))),
    "scale": (
        Scale(ref=STATEFULSET, uid="sts", resource_version="9", replicas=5),
        ("scale", "acme-coreapp", {"metadata": {"resourceVersion": "9"}, "spec": {"replicas": 5}}),
    ),
    "touch": (
        Touch(route=route(0), epoch="100-x"),
        ("merge Service", "acme-shard-0", manifests.touch_patch(route(0), "100-x")),
    ),
    "clear labels": (
        ClearLabels(coreapp=pod(2, labels=labels_for(0, "5-old"))),
        ("json Pod", "acme-coreapp-2", manifests.strip_patch(pod(2, labels=labels_for(0, "5-old")))),
    ),
    "retire": (
        Retire(coreapp=pod(2), epoch=Epoch(9, NONCE)),
        ("json Pod", "acme-coreapp-2", manifests.retire_patch(Retire(coreapp=pod(2), epoch=Epoch(9, NONCE)))),
    ),
    "relabel": (
        Relabel(coreapp=pod(0), route=route(0, pod(0))),
        ("json Pod", "acme-coreapp-0", manifests.label_patch(pod(0), 0, "10-first")),
    ),
    "annotate": (
        Annotate(name=manifests.SWITCHOVER_ANNOTATION, value=None),
        (
            "merge WhatsAppCluster",
            "acme",
            {"metadata": {"resourceVersion": "77", "annotations": {manifests.SWITCHOVER_ANNOTATION: None}}},
        ),
    ),
    "label a Service": (
        Label(ref=Ref("Service", "acme-shard-0"), resource_version="7", labels={"a": "b"}),
        ("merge Service", "acme-shard-0", {"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}}),
    ),
    "label a pod": (
        Label(ref=Ref("Pod", "acme-coreapp-0"), resource_version="7", labels={"a": "b"}),
        ("merge Pod", "acme-coreapp-0", {"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}}),
    ),
}


@pytest.mark.parametrize(("action", "call"), WRITES.values(), ids=WRITES)
async def test_an_action_is_one_call_that_names_what_was_observed(action: Action, call: Call) -> None:
    cluster = Cluster()

    outcome = await cluster.perform(action)

    assert cluster.calls == [call]
    assert (outcome.wrote, outcome.done, outcome.failed, outcome.is_outdated) == (True, [action], [], False)


@pytest.mark.parametrize("failure", FAILURES, ids=str)
@pytest.mark.parametrize(("action", "call"), WRITES.values(), ids=WRITES)
async def test_a_failed_write_is_named_and_stops_no_other(action: Action, call: Call, failure: KubeError) -> None:
    cluster = Cluster()
    cluster.answers[call[:2]] = failure
    other = Touch(route=route(1), epoch="101-x")

    outcome = await cluster.perform(action, other)

    assert (outcome.failed, outcome.done, outcome.is_outdated) == ([str(failure)], [other], False)


@pytest.mark.parametrize(("action", "call"), WRITES.values(), ids=WRITES)
async def test_a_write_that_is_rejected_is_remembered_until_none_is(action: Action, call: Call) -> None:
    cluster = Cluster()
    cluster.answers[call[:2]] = FORBIDDEN
    await cluster.perform(action)
    assert cluster.memory.denial == Denial("403 Forbidden", cluster.now())

    cluster.memory.denial = first = Denial("another", NOW)
    await cluster.perform(action)
    assert cluster.memory.denial == Denial("403 Forbidden", first.since), "it goes on"

    cluster.answers[call[:2]] = LATE
    await cluster.perform(action)
    assert cluster.memory.denial is None


async def test_a_handover_that_is_rejected_is_remembered_too() -> None:
    cluster = Cluster()
    cluster.answers["json Pod", "acme-coreapp-2"] = FORBIDDEN
    await cluster.perform(handover())
    assert cluster.memory.denial == Denial("403 Forbidden", cluster.now())


async def test_a_part_of_a_plan_takes_back_nothing_that_was_rejected_in_the_rest() -> None:
    """As when a deleted holder is replaced first: otherwise each failover would hide for seconds that the rest is rejected."""
    cluster = Cluster()
    cluster.memory.denial = first = Denial("another", NOW)
    cluster.memory.unassigned = True
    assert (await cluster.perform(handover(), is_part=True)).wrote
    assert (cluster.memory.denial, cluster.memory.unassigned) == (first, True)

    await cluster.perform(handover(1, to=pod(3)))
    whole: tuple[object, bool] = cluster.memory.denial, cluster.memory.unassigned
    assert whole == (None, False)


async def test_the_service_of_a_shard_that_is_rejected_is_remembered_in_this_way_and_other_objects_in_another() -> None:
    one = situation().settled()
    for obj, denied in ((manifests.shard_service(one.desired, 1), True), (manifests.webapp_service(one.desired), False)):
        cluster = Cluster()
        cluster.answers["create", obj["metadata"]["name"]] = FORBIDDEN
        await cluster.perform(Create(obj=obj))
        assert (cluster.memory.denial is not None, [*cluster.memory.rejected]) == (denied, [Ref("Service", obj["metadata"]["name"])])


@pytest.mark.parametrize("broken", ["touch", "a handover"])
async def test_nothing_goes_on_when_an_action_fails_by_an_internal_error(broken: str) -> None:
    """The loop would observe and write while a write of its last plan is still on its way, also after the leadership has ended."""
    cluster, ended = Cluster(), []

    async def late(message: AssignRole) -> bool:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(message)
        return True

    cluster.assign_answer = late
    actions: list[Action] = [AssignRole(coreapp=pod(2), shards=2), WRITES["touch"][0]]
    cluster.answers["merge Service", "acme-shard-0"] = RuntimeError("odd")
    if broken == "a handover":
        actions = [handover(0), handover(1, to=pod(3))]
        cluster.answers.clear()
        cluster.reports = {"uid-3": cast("Any", "odd")}

    with pytest.raises(ExceptionGroup):
        await cluster.perform(*actions)
    assert ended == cluster.assigned
    assert len(ended) == 1


async def test_what_was_said_of_a_rejection_is_taken_back_with_the_next_observation() -> None:
    said = Cluster(situation().settled().seeing(denied="403 Forbidden"))
    assert (await said.perform()).is_outdated
    assert not (await Cluster().perform()).is_outdated
    said.answers["scale", "acme-coreapp"] = FORBIDDEN
    assert not (await said.perform(WRITES["scale"][0])).is_outdated, "it still holds"


@pytest.mark.parametrize("answer", OUTDATED, ids=lambda answer: type(answer).__name__)
@pytest.mark.parametrize(("action", "call"), WRITES.values(), ids=WRITES)
async def test_a_write_that_comes_too_late_is_no_failure(action: Action, call: Call, answer: KubeError) -> None:
    cluster = Cluster()
    cluster.answers[call[:2]] = answer

    outcome = await cluster.perform(action)

    assert (outcome.failed, outcome.done, outcome.is_outdated, outcome.wrote) == ([], [], True, False)


async def test_labels_that_are_there_already_are_no_change() -> None:
    cluster = Cluster()
    cluster.stored["acme-shard-0"] = {"metadata": {"resourceVersion": "7"}}

    assert not (await cluster.perform(WRITES["label a Service"][0])).wrote


@pytest.mark.parametrize(
    ("recipe", "keys"), [("admin", {"username", "password", "initialPassword"}), ("tls", {"tls.crt", "tls.key", "ca.crt"})]
)
async def test_a_Secret_is_made_with_its_content(recipe: str, keys: set[str]) -> None:  # noqa: N802
    cluster = Cluster()

    await cluster.perform(GenerateSecret(obj=SECRET, recipe=recipe, host_names=("acme-webapp.default.svc", "10.0.0.1")))

    ((what, name, sent),) = cluster.calls
    assert (what, name, set(sent["data"])) == ("create", "acme-admin", keys)


@pytest.mark.parametrize(
    ("server_time", "true"), [(NOW - timedelta(hours=9), NOW - timedelta(hours=9)), (None, NOW), (NOW + timedelta(days=1), NOW)]
)
async def test_a_certificate_is_valid_from_now_on_by_the_earlier_one_of_two_clocks(server_time: datetime | None, true: datetime) -> None:
    """A machine whose clock is ahead would make one that nobody else takes for hours."""
    cluster = Cluster(situation().settled().seeing(server_time=server_time))

    await cluster.perform(GenerateSecret(obj=SECRET, recipe="tls", host_names=("a",)))

    ((_, _, sent),) = cluster.calls
    made = x509.load_pem_x509_certificate(base64.b64decode(sent["data"]["tls.crt"]))
    assert timedelta(0) <= true - made.not_valid_before_utc <= timedelta(minutes=6)
    assert made.not_valid_after_utc - true > timedelta(days=3649)


async def test_a_deleted_Secret_of_the_administrator_is_made_again_with_the_password_that_the_client_has() -> None:  # noqa: N802
    """With another one the operator would be locked out of the client, and no person knows the right one."""
    cluster = Cluster()
    cluster.memory.admin = {"username": "YWRtaW4=", "password": "cmlnaHQ="}

    await cluster.perform(GenerateSecret(obj=SECRET, recipe="admin"), GenerateSecret(obj=SECRET, recipe="tls", host_names=("a",)))

    admin, tls = (sent for _, _, sent in sorted(cluster.calls, key=lambda call: len(call[2]["data"])))
    assert admin == {**SECRET, "data": cluster.memory.admin}
    assert set(tls["data"]) == {"tls.crt", "tls.key", "ca.crt"}, "the Webapps get a new certificate"


async def test_a_deleted_pod_is_remembered_even_if_the_answer_is_lost() -> None:
    """It may be gone: until it is back no other one may be ended in its place."""
    cluster = Cluster()
    cluster.answers["delete", "acme-coreapp-2"] = LATE

    await cluster.perform(Delete.of(pod(2)))

    assert cluster.memory.ended == {"acme-coreapp-2": "uid-2"}


async def test_a_number_of_Coreapps_that_another_party_wrote_is_remembered_when_it_was_overruled() -> None:  # noqa: N802
    one = situation().settled().replicas(5)
    assert one.snapshot.statefulset is not None
    scaled = one.seeing(statefulset=replace(one.snapshot.statefulset, scaled_by="hpa"))
    scale = Scale(ref=STATEFULSET, uid="sts", resource_version="9", replicas=3)
    cluster, failing, own = Cluster(scaled), Cluster(scaled), Cluster(one)
    failing.answers["scale", "acme-coreapp"] = LATE

    for each in (cluster, failing, own):
        each.memory.anchored_for = 4
        await each.perform(scale)

    assert cluster.memory.overruled == Overruled(by="hpa", replicas=5, times=1, at=cluster.now())
    assert (failing.memory.overruled, own.memory.overruled) == (None, None)
    assert [each.memory.anchored_for for each in (cluster, failing, own)] == [None] * 3, "a write that was sent may still take effect"


async def test_a_version_is_bumped_by_the_status_and_then_remembered() -> None:
    bump = BumpVersion(ref=STATEFULSET, resource_version="9", shards=4, nonce=NONCE)
    cluster, failing = Cluster(), Cluster()
    failing.answers["status", "acme-coreapp"] = LATE

    await cluster.perform(bump)
    await failing.perform(bump)

    assert cluster.calls == [("status", "acme-coreapp", manifests.anchor_patch(bump))]
    assert (cluster.memory.anchored_for, failing.memory.anchored_for) == (4, None)


# --- messages to Coreapps and clients


async def test_a_question_to_the_client_is_no_write_and_says_whether_anything_waits_for_it() -> None:
    cluster = Cluster()

    outcome = await cluster.perform(GetShards(), GetShards(quiet=True))
    cluster.executor.ask_again(cluster.one.desired.key, ADDRESS)

    assert (cluster.asked, outcome.wrote, cluster.calls) == ([False, True, True], False, [])


@pytest.mark.parametrize(("accepted", "unassigned"), [(True, False), (False, True)])
async def test_a_role_that_a_Coreapp_does_not_accept_is_assigned_again_soon(accepted: bool, unassigned: bool) -> None:  # noqa: N802
    cluster = Cluster()
    cluster.memory.unassigned = not unassigned
    cluster.assign_answer = lambda _: asyncio.sleep(0, accepted)

    outcome = await cluster.perform(AssignRole(coreapp=pod(2), shards=2))

    assert (cluster.memory.unassigned, outcome.wrote) == (unassigned, False)


async def test_Set_Shards_is_not_sent_with_the_other_actions_but_after_its_note() -> None:  # noqa: N802
    cluster = Cluster()
    (call,) = (action for action in growing().plan().actions if isinstance(action, SetShards))

    await cluster.perform(call, EmitEvent(reason="x", message="y"))
    assert (cluster.sent, cluster.calls) == ([], [])

    cluster.executor.set_shards(cluster.observation(), call, 7.5)
    assert cluster.sent == [call.operation]


async def test_a_round_has_a_limited_number_of_actions_and_of_concurrent_writes() -> None:
    cluster = Cluster()
    touches = [Touch(route=route(shard), epoch="100-x") for shard in range(MOST_ACTIONS + 1)]

    outcome = await cluster.perform(*touches)

    assert (len(cluster.calls), cluster.most_at_once) == (MOST_ACTIONS, AT_A_TIME)
    assert outcome.is_outdated, "the rest comes with the next observation"


# --- handovers


async def test_a_handover_prepares_commits_assigns_and_is_emitted() -> None:
    cluster = Cluster()
    cluster.stored["acme-shard-0"] = service(0)
    old = pod(0)

    outcome = await cluster.perform(handover(old=old, failed_at=NOW - seconds(3.2)))

    assert cluster.called() == [("json Pod", "acme-coreapp-2"), ("merge Service", "acme-shard-0")]
    assert [event.reason for event in outcome.events] == ["HandedOver"]
    assert [(one.coreapp.name, one.shard, one.holder and one.holder.name) for one in cluster.assigned] == [
        ("acme-coreapp-2", 0, None),
        ("acme-coreapp-0", 0, "acme-coreapp-2"),
    ]
    epoch = f"100-{NONCE}"
    assert cluster.memory.committed[epoch].holder_uid == "uid-2"
    assert cluster.memory.handover_times[epoch] == HandoverTimes(detect=3200, commit=40, serve=0)
    assert (outcome.wrote, outcome.failed, outcome.is_outdated) == (True, [], False)


@pytest.mark.parametrize("answer", [*FAILURES, *OUTDATED], ids=str)
@pytest.mark.parametrize("call", [("json Pod", "acme-coreapp-2"), ("merge Service", "acme-shard-0")], ids=["prepare", "commit"])
async def test_a_shard_stops_at_its_first_failure_and_the_others_go_on(call: tuple[str, str], answer: KubeError) -> None:
    cluster = Cluster()
    cluster.answers[call] = answer
    cluster.stored["acme-shard-1"] = service(1)
    request = Annotate(name=manifests.SWITCHOVER_ANNOTATION, value="0=acme-coreapp-2,1=acme-coreapp-3,2=acme-coreapp-4")

    outcome = await cluster.perform(handover(0), handover(1, to=pod(3)), request)

    assert [one.coreapp.name for one in cluster.assigned] == ["acme-coreapp-3"]
    assert [*cluster.memory.committed] == [f"101-{NONCE}"]
    if call[0] == "json Pod":
        assert ("merge Service", "acme-shard-0") not in cluster.called(), "nothing is committed that was not prepared"
    is_late = any(answer is one for one in OUTDATED)
    assert (outcome.is_outdated, outcome.failed) == (is_late, [] if is_late else [str(answer)])
    assert ("merge WhatsAppCluster", "acme") in cluster.called(), "the request of the other shard is one of those that go on"


async def test_an_error_of_the_program_itself_is_not_taken_for_an_answer() -> None:
    cluster = Cluster()
    cluster.answers["json Pod", "acme-coreapp-2"] = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        await cluster.perform(handover())


async def test_no_handover_waits_for_the_old_holder_nor_for_its_error() -> None:
    """laws#3: it may be dead, and then costs a full time-out."""
    cluster = Cluster()
    gate, failed = asyncio.Event(), asyncio.Event()

    async def answer(message: AssignRole) -> bool:
        if message.holder is None:
            return True
        await gate.wait()
        failed.set()
        raise OSError

    cluster.assign_answer = answer
    async with asyncio.timeout(60):
        outcome = await cluster.perform(handover(old=pod(0)))
        assert [event.reason for event in outcome.events] == ["HandedOver"]
        gate.set()
        await failed.wait()


async def test_an_old_holder_without_an_address_gets_no_assignment() -> None:
    cluster = Cluster()

    await cluster.perform(handover(old=pod(0, ip=None)))

    assert [one.coreapp.name for one in cluster.assigned] == ["acme-coreapp-2"]


@pytest.mark.parametrize(
    ("newest", "observed", "client", "shards"),
    [
        (Report(shards=4), Report(shards=2), 2, 4),
        (None, Report(shards=2), 8, 2),
        (None, None, 8, 8),
        (Report(), Report(shards=2), 8, 8),
        (None, None, None, None),
    ],
)
async def test_a_new_holder_is_assigned_with_its_own_number_of_shards_else_with_the_clients(
    newest: Report | None, observed: Report | None, client: int | None, shards: int | None
) -> None:
    cluster = Cluster()
    if newest is not None:
        cluster.reports["uid-2"] = newest

    await cluster.perform(handover(to=pod(2, report=observed), shards=client))

    assert [one.shards for one in cluster.assigned] == ([] if shards is None else [shards])


async def test_a_new_holder_that_does_not_accept_its_role_serves_since_no_time() -> None:
    cluster = Cluster()
    cluster.assign_answer = lambda _: asyncio.sleep(0, False)

    await cluster.perform(handover())

    assert cluster.memory.handover_times[f"100-{NONCE}"].serve is None


# --- Events

SAID = EmitEvent(reason="FailingOver", message="x" * 2000, warning=True)


@pytest.mark.parametrize(
    ("answer", "is_done"),
    [
        (None, True),
        (Rejected("422 Invalid", code=422), True),
        (Rejected("413 too large", code=413), True),
        (Rejected("400 BadRequest", code=400), True),
        (FORBIDDEN, False),
        (LATE, False),
        (OVERLOADED, False),
    ],
    ids=str,
)
async def test_an_Event_is_tried_again_unless_it_was_written_or_rejected_for_good(answer: KubeError | None, is_done: bool) -> None:  # noqa: N802
    cluster = Cluster()
    if answer is not None:
        cluster.answers["create", "Event"] = answer

    assert await cluster.executor.emit(cluster.one.desired.key, cluster.one.desired.uid, SAID, NOW) == is_done
    ((_, _, sent),) = cluster.calls
    assert (sent["type"], sent["reason"], len(sent["message"]), sent["reportingInstance"]) == ("Warning", "FailingOver", 1024, "operator-0")


@pytest.mark.parametrize("step", [("json Pod", "acme-coreapp-2"), ("merge Service", "acme-shard-0")], ids=["prepare", "commit"])
@pytest.mark.parametrize("failure", [*FAILURES, *OUTDATED], ids=str)
async def test_an_annotation_is_written_although_a_handover_of_the_plan_fails(step: tuple[str, str], failure: KubeError) -> None:
    """It names the Coreapp of a requested move, which it also names after the failure: nothing of the request is lost."""
    cluster = Cluster()
    cluster.answers[step] = failure
    named = Annotate(name=manifests.SWITCHOVER_ANNOTATION, value="0=acme-coreapp-2")

    outcome = await cluster.perform(handover(), named)

    assert outcome.done == [named]
    assert ("merge WhatsAppCluster", "acme") in cluster.called()
