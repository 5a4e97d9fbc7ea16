"""Which part of the operator asks, tells and measures which other one. What each does with it is tested with that part."""

from __future__ import annotations

import asyncio
import copy
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from whatsapp_operator import __main__ as main
from whatsapp_operator.__main__ import Operator
from whatsapp_operator.core import self_check
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Client, Node, Route, Silence
from whatsapp_operator.settings import Settings
from whatsapp_operator.shell.cluster_series import ClusterSeries
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import NotFound
from whatsapp_operator.shell.kube.history import DataWentBack, History
from whatsapp_operator.shell.kube.kinds import LEASE, NODE, WAC, Kind, Obj
from whatsapp_operator.shell.kube.lease import Election, Timings, WorkDidNotStop
from whatsapp_operator.shell.kube.nodes import Nodes
from whatsapp_operator.shell.kube.warm import WarmConnections
from whatsapp_operator.shell.loop.cluster import Memory
from whatsapp_operator.shell.loop.observe import Observation
from whatsapp_operator.shell.metrics import LoopLagMonitor
from whatsapp_operator.shell.objects.reading import KnownHolders
from whatsapp_operator.shell.watch import handlers, readiness
from whatsapp_operator.shell.watch.health import WatchHealth
from whatsapp_operator.shell.watch.index import PodIndex
from whatsapp_operator.shell.watch.supervise import Supervisor
from whatsapp_operator.shell.whatsapp.session import ApiSessions

from .manual_clock import ManualClock
from .test_snapshot import CLUSTER, KEY, FakeKube, world

SOON = 20.0
"""Seconds in which anything must have happened, on a busy machine too."""
SERVER_TIME = datetime(2031, 1, 1, tzinfo=UTC)
SILENCE = Silence(targets=7, unresponsive=2)
NODES = {"node-0": Node(name="node-0")}


class Api(FakeKube):
    """An API server with a settled cluster, and what it was asked for."""

    def __init__(self) -> None:
        super().__init__(world())
        self.writes: Counter[tuple[str, str]] = Counter()
        self.sent_again: Counter[str] = Counter()
        self.fence: object = None
        self.listed: list[str | None] = []
        self.is_closed = False

    def fenced(self, fence: object) -> Api:
        self.fence = fence
        return self

    def server_time(self) -> datetime:
        return SERVER_TIME

    async def list(self, kind: Kind, *args: Any) -> list[Obj]:
        self.listed += [args[0]] if kind is WAC else []
        return await super().list(kind, *args)

    async def list_to_watch(self, *_: object) -> tuple[tuple[Obj, ...], str]:
        return (), "1"

    async def watch(self, *_: object, **__: object) -> AsyncGenerator[tuple[str, Obj]]:
        yield "MODIFIED", {"metadata": {"resourceVersion": "7"}}

    async def close(self) -> None:
        self.is_closed = True


class Make(Protocol):
    """Makes an operator."""

    def __call__(self, **env: str) -> Operator:
        """One with this environment, that has sent nothing."""
        ...


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(api: Api, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(LightKube, "from_kubeconfig", lambda _: api)
    monkeypatch.setattr(main, "SystemClock", lambda: clock)
    return lambda **env: Operator(Settings.from_env({"POD_NAMESPACE": "default", **env}))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What some parts know, no matter what they are asked; a test may change it."""
    known: dict[str, Any] = {
        "snapshot": NODES,
        "unread": {"Lease": "403"},
        "silence": SILENCE,
        "not_reached": 0,
        "has_asked": True,
        "cut_off": None,
        "never_connected": None,
        "stalled": None,
        "seconds_cut_off": {"pods": 3.0},
        "seconds_unrenewed": 1.5,
        "self_check": None,
    }
    asked: tuple[tuple[Any, tuple[str, ...]], ...] = (
        (Nodes, ("snapshot", "unread", "has_asked")),
        (Tethers, ("silence", "not_reached")),
        (WatchHealth, ("cut_off", "never_connected", "stalled", "seconds_cut_off")),
        (Election, ("seconds_unrenewed",)),
        (self_check, ("self_check",)),
    )
    for owner, names in asked:
        for name in names:
            monkeypatch.setattr(owner, name, lambda *_, name=name: known[name])
    return known


def note(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, answer: object = None) -> list[Any]:
    """What a part is calls from now on: the arguments of each call, without the part itself; one alone as it is."""
    calls: list[Any] = []

    def take(*args: Any) -> object:
        calls.append(args[1] if len(args) == 2 else args[1:])
        return answer

    monkeypatch.setattr(owner, name, take)
    return calls


# --- the observation


async def observed(operator: Operator) -> Observation:
    found = await operator._reconciler._parts.observer.observe(KEY, Memory(), nonce="n0nce", leader_epoch=1)
    assert found is not None
    return found


@pytest.mark.usefixtures("answers")
async def test_an_observation_is_made_of_what_each_part_knows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = make(SIMULATOR_IMAGE="sim:2", REST_SECONDS="7")
    silence = Silence(targets=9)
    monkeypatch.setattr(operator._tethers, "silence", lambda: silence)
    monkeypatch.setattr(operator._sessions, "state_of", lambda _: Client(shards=2))
    seen = await observed(operator)

    assert (seen.snapshot.nodes, seen.snapshot.unread.get("Lease"), seen.snapshot.silence) == (NODES, "403", silence)
    assert (seen.snapshot.client.shards, seen.snapshot.server_time) == (2, SERVER_TIME)
    assert (seen.desired.image, seen.desired.tuning.rest) == ("sim:2", timedelta(seconds=7))


@pytest.mark.usefixtures("answers")
async def test_with_rights_in_some_namespaces_only_it_is_no_fault_that_nodes_cannot_be_read(make: Make) -> None:
    assert "Lease" not in (await observed(make(WATCH_NAMESPACES="default"))).snapshot.unread


@pytest.mark.parametrize("is_there", [True, False])
async def test_of_two_clusters_with_one_number_the_first_keeps_it_until_it_is_gone(is_there: bool, make: Make, api: Api) -> None:
    operator, first = make(), copy.deepcopy(CLUSTER)
    first["metadata"] |= {"name": "first", "uid": "wac-0", "creationTimestamp": "2020-01-01T00:00:00Z"}
    api.objects[WAC][0]["metadata"]["creationTimestamp"] = "2021-01-01T00:00:00Z"
    operator._reconciler._listed(first)
    if is_there:
        api.objects[WAC].append(first)

    assert (await observed(operator)).snapshot.number_kept_by == ("default/first" if is_there else None)


async def test_the_clusters_of_a_list_are_known_before_they_are_observed(make: Make, api: Api) -> None:
    operator = make(WATCH_NAMESPACES="default,other")
    await operator._reconciler._find_all()

    assert (len(operator._pod_index), sorted(map(str, api.listed))) == (1, ["default", "other"])


def test_a_holder_that_leaves_by_an_event_is_handed_over_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = note(monkeypatch, PodIndex, "holders", KnownHolders(leaving=frozenset({"pod-0"})))
    memory = Memory(routes={"acme-shard-0": Route(shard=0, name="acme-shard-0", uid="s", version=1, holder_uid="pod-0")})

    assert make()._reconciler._parts.observer.has_lost_holders(KEY, memory)
    assert asked == [KEY]


def test_only_a_leader_writes_and_who_leads_is_said_by_the_lease_of_the_settings(make: Make, api: Api) -> None:
    operator = make(LEASE_NAME="other", LEASE_SECONDS="5", LEASE_RENEW_DEADLINE_SECONDS="2", LEASE_RETRY_SECONDS="0.5")
    election = operator._election

    assert election is api.fence
    assert (election._namespace, election._name, election._identity) == ("default", "other", operator._settings.identity)
    assert election._timings == Timings(duration=5, renew_deadline=2, retry=0.5)


# --- what wakes a loop, and what ends with it


class Loop:
    """In place of the loops: who was woken, and what happened."""

    def __init__(self, operator: Operator) -> None:
        self.woken: list[tuple[Key, bool]] = []
        self.led: list[object] = []
        self.operator = operator
        operator._reconciler = self  # type: ignore[assignment]

    def wake(self, key: Key, *, is_urgent: bool) -> None:
        self.woken.append((key, is_urgent))

    async def run(self, leadership: object) -> None:
        self.led = [leadership, self.operator._pod_index._leads, leads(self.operator)]


def leads(operator: Operator) -> float | None:
    return operator._metrics.registry.get_sample_value("multiconnect_leading")


WAKING: Mapping[str, Callable[[Operator], None]] = {
    "a Coreapp": lambda operator: operator._tethers._wake(KEY),
    "an answer of the client": lambda operator: operator._sessions._wake(KEY),
    "a node": lambda operator: operator._nodes._changed("node-0"),
    "an event": lambda operator: operator._wake_by_event(KEY),
}


@pytest.mark.parametrize("what", WAKING)
def test_what_changes_wakes_the_loop_of_its_cluster(what: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PodIndex, "clusters_on", lambda _, node: (KEY,) if node == "node-0" else ())
    operator = make()
    loop = Loop(operator)
    WAKING[what](operator)
    assert loop.woken == [(KEY, True)]


def test_an_object_of_a_list_is_not_urgent(make: Make) -> None:
    operator = make()
    loop = Loop(operator)
    operator._wake_by_event(KEY, is_urgent=False)
    assert loop.woken == [(KEY, False)]


def test_with_its_loop_everything_about_a_cluster_goes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [note(monkeypatch, PodIndex, "release"), note(monkeypatch, ApiSessions, "forget")]
    make()._reconciler._drop(KEY)
    assert calls == [[KEY], [KEY]]


async def test_while_it_leads_the_loops_have_the_probes_and_afterwards_nothing_is_sent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, closed = make(), []

    async def close(_: ApiSessions) -> None:
        closed.append(operator._pod_index._leads)

    monkeypatch.setattr(ApiSessions, "close", close)
    loop, leadership = Loop(operator), SimpleNamespace(epoch=3)
    await operator._lead(leadership)  # type: ignore[arg-type]

    assert loop.led == [leadership, True, 1.0]
    assert (closed, leads(operator)) == ([False], 0.0)


async def test_kopf_tells_the_loops_and_the_index_of_pods(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, given = make(WATCH_NAMESPACES="default", KUBECONFIG="/here"), dict[str, Any]()

    async def watch(deliver: object, **more: Any) -> None:
        given.update(more, deliver=deliver)

    monkeypatch.setattr(handlers, "watch", watch)
    connected: list[Path] = []
    monkeypatch.setattr(handlers, "connection", connected.append)
    deliver: Any = object()
    await operator._watch(deliver)
    login = given.pop("login")
    login._connection()

    assert given == {
        "deliver": deliver,
        "wake": operator._wake_by_event,
        "sink": operator._pod_index,
        "namespaces": ("default",),
        "identity": operator._settings.identity,
    }
    assert (login._health, login._names, connected) == (operator._health, operator._watched, [Path("/here")])


# --- what is measured and judged


@pytest.mark.usefixtures("answers")
def test_each_beat_measures_each_part(make: Make, api: Api) -> None:
    operator = make()
    operator._lag_monitor._on_beat(0.25)
    api.writes["create", "Pod"], api.sent_again["later"] = 3, 2
    operator._election.sent_again["first"], operator._opened_again["later"] = 1, 5
    value = operator._metrics.registry.get_sample_value

    assert [value(f"multiconnect_{name}") for name in ("loop_lag_seconds", "lease_age_seconds", "nodes_known", "probe_targets")] == [
        *(0.25, 1.5, 1.0, 7.0)
    ]
    assert value("multiconnect_watch_cut_off_seconds", {"watch": "pods"}) == 3.0
    assert value("multiconnect_writes_total", {"verb": "create", "kind": "Pod"}) == 3.0
    assert value("multiconnect_calls_sent_again_total", {"call": "read", "answered": "later"}) == 2.0
    assert value("multiconnect_calls_sent_again_total", {"call": "renewal", "answered": "first"}) == 1.0
    assert value("multiconnect_calls_sent_again_total", {"call": "watch", "answered": "later"}) == 5.0


def test_all_count_in_what_is_served_and_trace_to_one_collector(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    traces, requests = object(), note(monkeypatch, ClusterSeries, "count_request")
    monkeypatch.setattr(main, "_tracing", lambda _: traces)
    operator = make(SET_SHARDS_TIMEOUT_SECONDS="1.5")
    loop, executor = operator._reconciler, operator._reconciler._parts.executor
    operator._sessions._asked(KEY, "Answered")

    assert all(part._metrics is operator._metrics for part in (loop, executor._handovers))
    assert (executor._clients, executor._coreapps) == (operator._sessions, operator._tethers)
    assert requests == [(KEY, "Answered")]
    assert (executor._handovers._tracing, executor._events._identity) == (traces, operator._settings.identity)
    assert operator._sessions._call_timeout == 1.5


@pytest.mark.parametrize(("fault", "patience"), [("self_check", 10.0), ("cut_off", 4.0)])
def test_a_fault_of_its_own_takes_the_leadership_from_this_process(
    fault: str, patience: float, make: Make, answers: dict[str, Any], clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, given_up = make(), note(monkeypatch, Election, "step_down", True)
    answers[fault] = "it is at fault"
    seen = []
    for clock.at in (0.0, patience - 0.1, patience):
        operator._on_beat(0.0)
        seen.append(len(given_up))

    assert (seen, given_up) == ([0, 0, 1], [main.ABSTAIN])


@pytest.mark.usefixtures("answers")
def test_the_self_check_goes_by_coreapps_nodes_and_the_time(make: Make, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[object] = []
    monkeypatch.setattr(self_check, "self_check", lambda *args: judged.append(args))
    make()._self_check.check()
    assert judged == [(SILENCE, NODES, clock.now())]


def test_without_what_kopf_watches_nobody_leads_and_without_other_watches_everybody(make: Make, clock: ManualClock) -> None:
    health = make()._health
    clock.at = 3.1
    assert health.cut_off() == "not connected to whatsappclusters, pods, services, statefulsets"
    for name in ("whatsappclusters", "pods", "services", "statefulsets"):
        health.connected(name)
    assert health.cut_off() is None


@pytest.mark.parametrize(("is_served", "seconds"), [(True, 5.0), (False, 0.0)])
async def test_the_watch_of_a_kind_that_is_not_served_does_not_count_as_dead(
    is_served: bool, seconds: float, make: Make, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object) -> None:
        if not is_served:
            raise NotFound("404")

    monkeypatch.setattr(Api, "get", get)
    operator = make()
    clock.at = 5.0
    for name in ("pods", "services", "statefulsets"):
        operator._health.connected(name)
    assert await operator._dead_for() == seconds


@pytest.mark.parametrize(
    ("watch", "after"), [("pods", 60.0), ("leases in default", 60.0), ("nodes", 300.0), ("leases in kube-node-lease", 300.0)]
)
def test_a_watch_that_nobody_tends_ends_the_process(watch: str, after: float, make: Make, clock: ManualClock) -> None:
    health = make()._health
    calls = []
    for clock.at in (after, after + 0.1):
        for name in health.seconds_cut_off().keys() - {watch}:
            health.tended(name)
        calls.append(health.stalled())
    assert calls == [None, f"nothing has watched {watch} for {after:.0f} s"]


def test_in_some_namespaces_each_watch_of_each_is_essential(make: Make, clock: ManualClock) -> None:
    health = make(WATCH_NAMESPACES="default")._health
    clock.at = 3.1
    assert health.cut_off() == "not connected to " + ", ".join(
        f"{kind} in default" for kind in ("whatsappclusters", "pods", "services", "statefulsets")
    )


async def test_the_watches_of_nodes_and_of_the_lease_are_noted(make: Make, clock: ManualClock) -> None:
    operator = make()
    clock.at = 5.0
    await operator._nodes._kube.list_to_watch(NODE, None)
    watch: Any = operator._election._watch
    events: AsyncIterator[Any] = watch(LEASE, "default", name="whatsapp-operator", server_timeout=1)
    assert [what async for what, _ in events] == ["MODIFIED"]

    cut_off = operator._health.seconds_cut_off()
    assert (cut_off["nodes"], cut_off["leases in default"]) == (0.0, 0.0)
    assert (operator._election._kube, operator._history._newest) == (operator._history, 7)


# --- readiness

QUESTIONS = {"never_connected": "not connected to pods yet", "has_asked": False, "not_reached": 3, "self_check": "most are silent"}
"""What a part answers that has not seen enough to lead."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_part_is_asked_whether_this_process_is_ready(question: str, make: Make, answers: dict[str, Any], clock: ManualClock) -> None:
    operator, good = make(), answers[question]
    clock.at = 2 * readiness.QUIET
    answers[question] = QUESTIONS[question]
    operator._on_beat(0.0)
    why = operator._readiness.why_not
    answers[question] = good
    operator._on_beat(0.0)
    assert (bool(why), operator._readiness.why_not) == (True, None)


@pytest.mark.parametrize("is_urgent", [False, True])
@pytest.mark.usefixtures("answers")
def test_objects_of_a_list_are_noted_and_events_are_not(is_urgent: bool, make: Make, clock: ManualClock) -> None:
    operator = make()
    clock.at = 2 * readiness.QUIET
    operator._wake_by_event(KEY, is_urgent=is_urgent)
    operator._on_beat(0.0)
    assert (operator._readiness.why_not is None) is is_urgent


# --- start and end

PARTS: Mapping[str, type] = {
    "loop-lag": LoopLagMonitor,
    "nodes": Nodes,
    "pod-index": PodIndex,
    "watches": Supervisor,
    "history": History,
    "connections": WarmConnections,
}


@pytest.mark.parametrize("part", PARTS)
async def test_each_part_runs_and_the_process_ends_with_it(part: str, make: Make, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, tuple[object, ...]] = {}

    def running(name: str) -> Callable[..., Any]:
        async def run(_: object, *args: object) -> None:
            given[name] = args
            # They are all started at once, so the others have begun then.
            await (asyncio.sleep(0) if name == part else asyncio.Event().wait())

        return run

    for name, owner in {**PARTS, "campaign": Election}.items():
        monkeypatch.setattr(owner, "run", running(name))
    ended = list[object]()

    async def close(tethers: Tethers) -> None:
        ended.append(tethers)

    monkeypatch.setattr(Tethers, "close", close)
    operator = make(WATCH_NAMESPACES="default")
    with pytest.raises(RuntimeError, match=f"the task {part} ended"):
        async with asyncio.timeout(SOON) as deadline:
            await operator._run(lambda: ended.append("it ends"))
    assert not deadline.expired()

    assert given == {**dict.fromkeys(PARTS, ()), "pod-index": (api, ("default",)), "campaign": (operator._lead,)}
    assert (ended, api.is_closed, operator._pod_index._is_closed) == (["it ends", operator._tethers], True, True)


@pytest.mark.parametrize("leads", [False, True])
async def test_connections_are_kept_open_by_reads_of_the_lease_while_another_process_leads(
    leads: bool, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = note(monkeypatch, Api, "get", None)
    monkeypatch.setattr(Election, "leading", leads)
    connections = make()._connections
    connections._read()
    assert (read, connections._is_needed()) == ([(LEASE, "default", "whatsapp-operator")], not leads)


async def test_data_that_went_back_ends_the_process_with_its_reason(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: History) -> None:
        raise DataWentBack("it went back")

    monkeypatch.setattr(History, "run", run)
    monkeypatch.setattr(Supervisor, "run", lambda _: asyncio.Event().wait())
    with pytest.raises(DataWentBack, match="it went back"):
        async with asyncio.timeout(SOON):
            await make()._run()


async def test_a_process_whose_data_went_back_fails_so_that_it_is_started_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: object, **__: object) -> None:
        raise DataWentBack("it went back")

    monkeypatch.setattr(Operator, "run", run)
    with pytest.raises(SystemExit) as ended:
        await main._main(make()._settings)
    assert ended.value.code == 1


async def test_a_process_whose_work_did_not_stop_ends_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*_: object, **__: object) -> None:
        raise WorkDidNotStop("it goes on")

    ended: list[int] = []
    monkeypatch.setattr(Operator, "run", run)
    monkeypatch.setattr(os, "_exit", ended.append)
    await main._main(make()._settings)
    assert ended == [1]


async def test_health_readiness_and_metrics_are_served_until_the_end(
    make: Make, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, str] = {}

    @contextmanager
    def served(app: Any, *, host: str, port: int) -> Iterator[None]:
        for path in ("/healthz", "/readyz", "/metrics"):
            said[path] = b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, lambda *_: None)).decode()
        said["where"] = f"{host} {port}"
        yield
        said["end"] = str(said.pop("ran", None))

    async def run(*_: object) -> None:
        said["ran"] = "it ran"

    monkeypatch.setattr(main, "served", served)
    monkeypatch.setattr(Operator, "_run", run)
    monkeypatch.setattr(main, "_tracing", lambda _: SimpleNamespace(close=lambda: said.update(traces="closed")))
    operator = make(METRICS_PORT="8080", METRICS_HOST="127.0.0.1")
    operator._metrics.lead(True)
    await operator.run()
    assert "multiconnect_leading 1.0" in said.pop("/metrics")
    assert said == {
        "/healthz": "ok\n",
        "/readyz": "the operator has just started\n",
        "where": "127.0.0.1 8080",
        "end": "it ran",
        "traces": "closed",
    }

    answers["stalled"] = "nothing watches"
    await operator.run()
    assert said["/healthz"] == "nothing watches\n"
