"""Where the table of Set Shards plays: one control plane, a lane for each arrangement of a cluster, lanes side by side, cases in a row.

A lane is a namespace with one cluster in it. All lanes run in one event loop in a thread of its own; each case's outcome is a future that
its test asks for. Lanes whose leader dies have operators of their own, with a Lease of their own; the others share one operator.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import NAME, NAMESPACE, RULES, Operators
from localkube.plane.processes import Process
from outside.observer import Observer
from wabiz_sim.certificate import make

from .environment import Environment, Harness, Obj, now

TIMEOUT = 6
"""Seconds until a call of Set Shards counts as unanswered: more than a busy machine takes for one that is answered."""
ENV = {"SETTLE_GRACE_SECONDS": "2", "SET_SHARDS_TIMEOUT_SECONDS": str(TIMEOUT), "BUSY_BACKOFF_SECONDS": "0.2", "LOG_LEVEL": "INFO"}
UNHURRIED = {"LEASE_SECONDS": "10", "LEASE_RENEW_DEADLINE_SECONDS": "8"}
"""For operators that nobody ends: so near its end a Lease lets nothing be written that would still arrive from a busy machine."""
RESTART_TIMEOUT = 10
SEEN_RESTART, SEEN_RESTART_TIMEOUT = 20, 60
"""Seconds of a restart that must be seen while it lasts, and until it would count as overdue."""
SETTLES = TIMEOUT + RESTART_TIMEOUT + 2
"""Seconds after its note when an unanswered call counts as settled: time-out, restart window, grace."""
LATE = SETTLES // 2
"""Seconds after which a call takes effect that is not settled yet: time enough to report before that it is unknown."""
SECRET = "acme-account"
SHUT = {"name": "leap-day", "schedule": "0 0 29 2 *", "durationMinutes": 5}
LONG = 90.0
AT_ONCE = 6
"""Lanes that play at the same time: with all of them one operator on two busy cores needs longer to observe than a case may take."""
THREADS = 96
"""Each lane waits in threads: for what its observer sees, and for kubectl."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One cluster that cases share, as it is created."""

    name: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    secret: bool = False
    """With an account's Secret whose certificate is right."""
    own_operator: bool = False
    late: bool = False
    """The first case creates the cluster itself."""
    before: Callable[[Trial], Awaitable[None]] | None = None
    """What is there before the cluster."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table.

    ``calls`` and ``restarts`` are what the simulator counts from the beginning to the end of the case: ``A>B 201`` with A the number of
    shards at its beginning and B the other one of 1 and 2. ``words`` are reasons as conditions show them, in this order, others between
    them; ``events`` are reasons of Events, with ``!`` in front when they are warnings. The case ends at rest with ``end`` shards.
    """

    name: str
    lane: str
    action: Callable[[Trial], Awaitable[None]]
    calls: tuple[str, ...] = ()
    restarts: int = 0
    words: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    end: str = "B"
    start: int | None = None
    """Shards at the beginning; None: as many as the case before has left."""


class Recorder(Observer):
    """An observer that keeps every reason that a condition showed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.words: list[str] = []
        self.messages: list[str] = []
        super().__init__(*args, **options)

    def take(self, kind: str, obj: Obj, *, gone: bool = False, first: bool = False) -> None:
        """Take in one object, and note what its conditions say now."""
        if kind == "WhatsAppCluster" and not gone:
            for one in (obj.get("status") or {}).get("conditions") or ():
                word = f"{one['type']}/{one['reason']}"
                if word not in [earlier for earlier in self.words if earlier.startswith(f"{one['type']}/")][-1:]:
                    self.words.append(word)
                self.messages.append(one["message"])
        super().take(kind, obj, gone=gone, first=first)


class Trial(Environment):
    """A lane as its cases see it. A is the number of shards at the beginning of the case, B the other one of 1 and 2."""

    def __init__(self, harness: LaneHarness, lane: Lane, seen: Recorder) -> None:
        super().__init__(harness, lane.name, seen)
        self.lane_harness, self.lane, self.recorder = harness, lane, seen
        self.a, self.b = 1, 2
        self.right = make("Acme", 7, datetime(2026, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
        self._began: Obj = {"set_shards_calls": [], "restarts": 0}
        self.authority: dict[str, str | bytes | None] = {}
        """What the Webapps' TLS Secret holds, if the user brings it."""
        self._count, self._operator = 0, ""

    # ------------------------------------------------------------ asking for things

    async def open(self) -> None:
        """Create the lane's cluster, with one shard."""
        account = {"secretRef": {"name": SECRET}} if self.lane.secret else self.lane.spec.get("account")
        spec = {
            "client": {"type": "Simulator", "simulator": {"restartSeconds": 0}},
            "webapp": {"replicas": 1},
            "reshard": {"restartTimeoutSeconds": RESTART_TIMEOUT},
            **self.lane.spec,
            **({"account": self.account(**account)} if account else {}),
        }
        await self.create(shards=1, **spec)

    async def patch(self, name: str = "acme", **spec: Any) -> None:
        """Change the spec; returns when the change is seen, so that what is seen next is not what was before."""
        await super().patch(name, **spec)
        await self.until(lambda _: self.cluster(name)["metadata"]["generation"] >= self.newest[name], f"generation {self.newest[name]}")

    async def resize(self, shards: int | None = None) -> None:
        """Want B shards, or so many."""
        await self.patch(shards=self.b if shards is None else shards)

    async def rest(self) -> None:
        """Wait until nothing is left to do."""
        await self.at_rest(timeout=LONG)

    async def stand_in(self, path: str, **body: Any) -> Obj:
        """One call of the simulator's control endpoint: ``POST /control/<path>``."""
        ip = self.pods("simulator")[0]["status"]["podIP"]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.post(f"http://{ip}:8080/control/{path}", json=body) as response,
        ):
            assert response.status in {200, 201}, await response.text()
            answer: Obj = await response.json()
            return answer

    async def go_wrong(self, **fault: Any) -> None:
        """One more fault of Set Shards."""
        await self.fault(call="set_shards", **fault)

    @asynccontextmanager
    async def resize_with_slow_restart(self) -> AsyncIterator[None]:
        """Want B shards; in the block the Coreapps restart, and the status has said so.

        The restart lasts long enough to be seen on a machine that is so busy that the operator needs seconds to observe it.
        """
        await self.patch(reshard={"restartTimeoutSeconds": SEEN_RESTART_TIMEOUT})
        await self.fault(call="restart", fault="slow", count=max(self.a, self.b) + 1, seconds=SEEN_RESTART)  # with the spare
        await self.resize()
        await self.word("Reconciling", "Restarting")
        yield
        await self.rest()
        await self.patch(reshard={"restartTimeoutSeconds": RESTART_TIMEOUT})

    async def put_secret(self, name: str = SECRET, **values: str | bytes | None) -> None:
        """Write a Secret whole; values None are left out."""
        raw = {key: value.encode() if isinstance(value, str) else value for key, value in values.items() if value is not None}
        data = {key: base64.b64encode(value).decode() for key, value in raw.items()}
        obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        await self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(obj))

    async def put_account(self, **changes: str | None) -> None:
        """Write the account's Secret: right, but for ``changes``."""
        values: dict[str, Any] = {"certificate": self.right, "expiresAt": "2040-01-01T00:00:00Z", **changes}
        await self.put_secret(SECRET, **values)

    def new_certificate(self) -> str:
        """Another certificate than before, to be the right one from now on."""
        self._count += 1
        issued = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=self._count)
        return make("Acme", 100 + self._count, issued, datetime(2040, 1, 1, tzinfo=UTC))

    # ------------------------------------------------------------ seeing things

    async def made(self) -> list[Obj]:
        """The calls that the simulator got since the case began, its own control endpoint's left out."""
        calls: list[Obj] = (await self.client_state())["set_shards_calls"][len(self._began["set_shards_calls"]) :]
        return [call for call in calls if call["by"] == "api"]

    async def until_made(self, count: int = 1) -> list[Obj]:
        """The calls since the case began, as soon as there are so many."""
        deadline = time.monotonic() + LONG
        while len(made := await self.made()) < count:
            assert time.monotonic() < deadline, f"{len(made)} calls instead of {count}: {self.seen.summary()}"
            await asyncio.sleep(0.05)
        return made

    async def until_restarted(self, times: int) -> None:
        """Wait until the Coreapps were restarted so often since the case began."""
        deadline = time.monotonic() + LONG
        while (seen := (await self.client_state())["restarts"] - self._began["restarts"]) < times:
            assert time.monotonic() < deadline, f"{seen} restarts instead of {times}: {self.seen.summary()}"
            await asyncio.sleep(0.1)

    async def fired(self, call: str) -> int:
        """How often faults of one kind of call have happened."""
        return sum(fault["fired"] for fault in await self.faults() if fault["call"] == call)

    def until_log(self, process: Process, text: str) -> None:
        """Wait until a process has written this."""
        deadline = time.monotonic() + LONG
        while text not in process.log.read_text(encoding="utf-8", errors="replace"):
            assert time.monotonic() < deadline, f"{process.name} did not write {text!r}: {process.last_lines()}"
            time.sleep(0.05)

    # ------------------------------------------------------------ the leader of a lane with operators of its own

    async def kill_leader(self, *, successor: bool = True) -> None:
        """SIGKILL to the operator of this lane; another is started unless ``successor`` is False."""
        process = self.operator
        self._operator = ""
        process.signal(signal.SIGKILL)
        if successor:
            await self.new_leader()

    async def new_leader(self) -> Process:
        """Start one more operator for this lane and return its process; it leads as soon as the Lease lets it."""
        self._count += 1
        self._operator = f"{self.namespace}-{self._count}"
        return await asyncio.to_thread(self.lane_harness.lane_operators[self.namespace].start, self._operator)

    @property
    def operator(self) -> Process:
        """The operator of this lane that was started last."""
        return self.lane_harness.lane_operators[self.namespace].running[self._operator]

    # ------------------------------------------------------------ one case

    async def play(self, case: Case) -> None:
        """Do what the case says and compare what came of it."""
        if self.cluster():
            if case.start is not None and self.status()["shards"] != case.start:
                await self.patch(shards=case.start, reshard={"windows": None})
            await self.rest()
            self.a = self.status()["shards"]
            self.b = 2 if self.a == 1 else 1
            self._began = await self.client_state()
        self.mark()
        first = len(self.recorder.words)
        assigned = {event["metadata"]["uid"] for event in await self.events()}
        await case.action(self)
        await self.rest()
        client_state = await self.client_state()
        assert not client_state["banned"]
        assert client_state["two_holders"] == 0
        assert not client_state["logged_off"]
        calls = [f"{call['from']}>{call['shards']} {call['status']}" for call in await self.made()]
        assert _matches([self._spelled(call) for call in case.calls], calls), f"calls {calls} instead of {case.calls}"
        assert client_state["restarts"] - self._began["restarts"] == case.restarts
        assert self.status()["shards"] == int(self._spelled(case.end))
        await self._assert_shown(case.words, first)
        await self._assert_assigned(case.events, assigned)
        await self.fault()

    def _spelled(self, text: str) -> str:
        return text.replace("A", str(self.a)).replace("B", str(self.b))

    async def _assert_shown(self, wanted: Sequence[str], first: int) -> None:
        """The recorder's watch may be behind what was asked for just now."""
        deadline = time.monotonic() + LONG
        while not _are_in_order(wanted, seen := self.recorder.words[first:]):
            assert time.monotonic() < deadline, f"{wanted} were not shown (in this order) among {list(seen)}"
            await asyncio.sleep(0.1)

    async def _assert_assigned(self, wanted: Sequence[str], before: set[str]) -> None:
        deadline = time.monotonic() + LONG
        while True:
            fresh = [event for event in await self.events() if event["metadata"]["uid"] not in before]
            assigned = {("!" if event["type"] == "Warning" else "") + event["reason"] for event in fresh}
            if assigned >= set(wanted):
                return
            assert time.monotonic() < deadline, f"events {set(wanted) - assigned} are not among {sorted(assigned)}"
            await asyncio.sleep(0.1)


def _matches(wanted: Sequence[str], calls: Sequence[str]) -> bool:
    """Whether the calls are those; one with a plus at its end stands for one or more."""
    left = list(calls)
    for call in wanted:
        if not left or left.pop(0) != call.rstrip("+"):
            return False
        while call.endswith("+") and left and left[0] == call.rstrip("+"):
            left.pop(0)
    return not left


def _are_in_order(wanted: Iterable[str], seen: Sequence[str]) -> bool:
    left = iter(seen)
    return all(word in left for word in wanted)


class LaneHarness(Harness):
    """A harness whose operators each have lanes of their own, so that one that dies disturbs no other."""

    def __init__(self, plane: ControlPlane, folder: Path, lanes: Sequence[Lane]) -> None:
        self.lanes = {lane.name: lane for lane in lanes}
        shared = ",".join(lane.name for lane in lanes if not lane.own_operator)
        super().__init__(plane, folder, replicas=("shared",) if shared else (), env={**ENV, **UNHURRIED, "WATCH_NAMESPACES": shared})
        self.lane_operators = {
            lane.name: Operators(plane, folder / "operators", env={**ENV, "WATCH_NAMESPACES": lane.name, "POD_NAMESPACE": lane.name})
            for lane in lanes
            if lane.own_operator
        }

    def start(self) -> None:
        """Everything up, and the namespace of each lane."""
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in self.lanes]
        for name in self.lane_operators:
            objects += _lease_rights(name)
        self.plane.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))
        super().start()

    def close(self) -> None:
        """Stop everything that was started."""
        for operators in self.lane_operators.values():
            operators.close()
        super().close()

    def leader_soon(self, *, but: str | None = None, within: float = LONG) -> str:
        """As in a harness, if there is an operator for all."""
        return super().leader_soon(but=but, within=within) if self.replicas else ""


def _lease_rights(namespace: str) -> list[Obj]:
    """What an operator needs whose Lease lies in this namespace."""
    rbac, meta = "rbac.authorization.k8s.io", {"name": NAME, "namespace": namespace}
    rules = yaml.safe_load((RULES / "lease-rules.yaml").read_text(encoding="utf-8"))
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    ]


class Suite:
    """All lanes of the selected cases, played at once in a thread of their own."""

    def __init__(self, lane_harness: LaneHarness, cases: Sequence[Case]) -> None:
        self.outcomes: dict[str, Future[float]] = {case.name: Future() for case in cases}
        self.checks: dict[str, Future[None]] = {case.lane: Future() for case in cases}
        self._harness, self._cases = lane_harness, cases
        self._room = asyncio.Semaphore(AT_ONCE)
        self._thread = threading.Thread(target=self._run, name="Set Shards", daemon=True)

    def start(self) -> None:
        """Begin; outcomes come as they come."""
        self._thread.start()

    def end(self) -> None:
        """Wait until no lane plays any more."""
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._play_all())

    async def _play_all(self) -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            await asyncio.gather(*(self._play_in_turn(self._harness.lanes[name]) for name in self.checks))

    async def _play_in_turn(self, lane: Lane) -> None:
        """Play a lane when there is room, and take its cluster away for the next one's sake."""
        async with self._room:
            await self._play_lane(lane)
            kubectl = self._harness.plane.kubectl
            with suppress(Exception):  # the harness is removed in the end, with all that is left of it
                await asyncio.to_thread(kubectl, "-n", lane.name, "delete", "whatsappclusters", "--all", "--wait=false")

    async def _play_lane(self, lane: Lane) -> None:
        cases = [case for case in self._cases if case.lane == lane.name]
        check = self.checks[lane.name]
        try:
            with Recorder(self._harness.plane.admin_kubeconfig, lane.name, ask_client=True) as seen:
                trial = Trial(self._harness, lane, seen)
                trial.began = now()
                await _set_up(trial)
                for case in cases:
                    began = time.monotonic()
                    try:
                        await trial.play(case)
                    except Exception as error:
                        self.outcomes[case.name].set_exception(error)
                        if case is not cases[-1]:
                            await _afresh(trial)
                    else:
                        self.outcomes[case.name].set_result(time.monotonic() - began)
                assert not (await trial.client_state())["banned"]
                await trial.check()
            check.set_result(None)
        except BaseException as error:
            futures: list[Future[Any]] = [check, *(self.outcomes[case.name] for case in cases)]
            for future in futures:
                if not future.done():
                    future.set_exception(error)


async def _set_up(trial: Trial) -> None:
    """The lane's cluster, at rest with one shard."""
    lane = trial.lane
    if lane.own_operator and not trial.lane_harness.lane_operators[lane.name].running:
        await trial.new_leader()
    if lane.secret:
        await trial.put_account()
    if lane.before is not None:
        await lane.before(trial)
    if not lane.late:
        await trial.open()
        await trial.rest()


async def _afresh(trial: Trial) -> None:
    """Another cluster in the place of one that a case has left who knows how."""
    if trial.lane.own_operator and not trial.operator.alive():
        await trial.new_leader()
    await trial.kubectl("delete", "whatsappclusters,resourcequotas", "--all", "--timeout=30s")
    # The garbage collector looks for new kinds only now and then.
    await trial.until(lambda seen: not seen.objects("Pod", trial.namespace), "the old cluster's pods are gone", LONG)
    await _set_up(trial)
