"""One operator process: the real loop, observer, executor, tethers, sessions and election, on simulated clients. Killable at any await."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from random import Random
from typing import Any, Protocol

from whatsapp_operator.core import self_check
from whatsapp_operator.core.actions import AssignRole
from whatsapp_operator.core.answers import ApiFault
from whatsapp_operator.core.desired import Tuning
from whatsapp_operator.core.manifests import CLUSTER_LABEL, cluster_of
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.snapshot import Report, Silence
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.coreapps.probe import Tethers
from whatsapp_operator.shell.coreapps.schedule import Target
from whatsapp_operator.shell.coreapps.self_check import SelfCheck
from whatsapp_operator.shell.kube.lease import Election, Leadership
from whatsapp_operator.shell.kube.nodes import Nodes
from whatsapp_operator.shell.loop.execute import Executor
from whatsapp_operator.shell.loop.observe import Observer
from whatsapp_operator.shell.loop.reconcile import Reconciler
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.reading import desired_of
from whatsapp_operator.shell.watch.index import PodIndex
from whatsapp_operator.shell.whatsapp.access import Access
from whatsapp_operator.shell.whatsapp.failures import ApiError
from whatsapp_operator.shell.whatsapp.session import ApiSession, ApiSessions

from .apiserver import ApiServer
from .client import Account, CallOutcome
from .kinds import POD, SERVICE, STATEFULSET, WAC, Kind, Obj
from .kube import SimKube
from .laws import Call, Laws
from .machines import Cluster
from .network import Network
from .virtual import PROCESS, START, MachineClocks, Process, VirtualLoop, outside

RELEASE = "sim:1"
"""The simulator's image of the release that is tested."""


class Surroundings(Protocol):
    """What an operator finds around it."""

    loop: VirtualLoop
    rng: Random
    server: ApiServer
    account: Account
    cluster: Cluster
    laws: Laws
    network: Network
    tuning: Tuning
    watch_lag: float
    tell_lost: float
    api_faults: float
    api_slow: float


class SimTethers(Tethers):
    """Real tethers; only what goes over the wire is simulated."""

    def __init__(self, around: Surroundings, operator: Operator) -> None:
        super().__init__(clock=operator.clock, wake=operator.wake)
        self._around = around
        self._operator = operator
        self._is_observation = False

    def hold(self, key: Key, targets: Mapping[str, Target]) -> None:
        super().hold(key, targets)
        self._around.laws.failures.watches(self._operator.process, set(targets))
        self._is_observation = True

    def silence(self) -> Silence:
        silence = super().silence()
        if self._is_observation and PROCESS.get() is self._operator.process:
            # An observation sets the targets, then reads their silence, without a pause.
            self._is_observation = False
            self._around.laws.failures.looked(self._operator.process, knows_nodes=self._operator.nodes.snapshot() is not None)
        return silence

    async def assign(self, message: AssignRole) -> bool:
        """Post a role order; it may be lost on its way there or back."""
        around, pod, holder = self._around, message.coreapp, message.holder
        lost = around.rng.random() < around.tell_lost
        lost_on_the_way = around.rng.random() < 0.5
        around.laws.did["order lost"] += lost
        await asyncio.sleep(0.001 + around.rng.random() * 0.01)
        if self._operator.dead:
            raise asyncio.CancelledError
        machine = around.cluster.at(pod.ip or "")
        coreapp = machine.coreapp if machine is not None and around.cluster.reaches(self._operator.process, machine) else None
        if coreapp is None or not coreapp.listening or (lost and lost_on_the_way):
            if coreapp is None or lost:
                await asyncio.sleep(1.0)
            return False
        order: dict[str, Any] = {"uid": pod.uid, "shard": message.shard, "epoch": message.epoch, "shards": message.shards}
        if holder is not None:
            order["holder"] = {"pod": holder.name, "ip": holder.ip}
        took = outside(coreapp.obey, order)
        if lost or coreapp.is_hung:
            await asyncio.sleep(1.0)
            return False
        if took:
            self.take_report(pod.uid, json.dumps(coreapp.report()).encode())
        return took


class SimSession(ApiSession):
    """A real session; only what goes over the wire is simulated."""

    around: Surroundings
    operator: Operator

    async def _send(
        self,
        access: Access,
        method: str,
        path: str,
        *,
        timeout: float,
        body: dict[str, Any] | None = None,
        basic: tuple[str, str] | None = None,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        around, account, rng = self.around, self.around.account, self.around.rng
        what = f"{method} {path}"
        if not access.addresses:
            raise ApiError("no Webapp is ready", sent=False)
        if self.operator.dead:
            raise asyncio.CancelledError
        sent_at = around.loop.time()
        if send_by is not None and self._clock.monotonic() > send_by:
            raise ApiError(f"{what}: too late", sent=False)
        if (method, path) == ("POST", "/v1/account/shards"):
            return await self._answer_set_shards(what, body or {}, timeout)
        await asyncio.sleep(0.002 + rng.random() * 0.02)
        if rng.random() < around.api_slow:
            around.laws.did["client slow"] += 1
            await asyncio.sleep(timeout * rng.random())
        if rng.random() < around.api_faults:
            around.laws.did["client fails"] += 1
            await asyncio.sleep(timeout if rng.random() < 0.3 else 0.01)
            raise ApiError(f"{what}: no answer", status=rng.choice([None, 503]))
        if path == "/v1/users/login":
            return self._answer_login(what, basic or ("", ""), body or {})
        if self._token is None or self._token[0] not in account.tokens:
            raise ApiError(f"{what}: HTTP 401", status=401)
        around.laws.asked(sent_at, account.shards)
        return {"account": {"shards": account.shards}, "meta": {"version": "v2.53.4"}}

    def _answer_login(self, what: str, basic: tuple[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        account = self.around.account
        if account.password is None and basic[1] == "secret" and body.get("new_password"):
            account.password = body["new_password"]
        elif basic[1] != account.password:
            raise ApiError(f"{what}: HTTP 401", status=401)
        token = f"token-{len(account.tokens)}-{self.around.rng.random():.6f}"
        account.tokens.add(token)
        return {"users": [{"token": token}]}

    async def _answer_set_shards(self, what: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        around, account, laws = self.around, self.around.account, self.around.laws
        if self._token is None or self._token[0] not in account.tokens:
            raise ApiError(f"{what}: HTTP 401", status=401)
        call = laws.sent(self.operator.name, body)
        outcome = account.call_outcomes[0] if account.call_outcomes else CallOutcome()
        if account.call_outcomes and not outcome.lasts:
            account.call_outcomes.popleft()
        if outcome != CallOutcome():
            laws.did[f"Set Shards {outcome.kind} {outcome.status or ''}".strip()] += 1
        responses: asyncio.Future[dict[str, Any]] = around.loop.create_future()
        delay = 0.005 + around.rng.random() * 0.03
        if outcome.applied is None:
            pass
        elif outcome.status is None:
            around.loop.call_later(
                delay + outcome.applied, self._arrive, what, body, call, responses if outcome.kind == "answer" else None, context=Context()
            )
        if outcome.status is not None:
            if outcome.final == "certificate":
                account.log_off()
            around.loop.call_later(delay, _refuse, responses, _error(what, outcome))
        elif outcome.kind == "5xx":
            around.loop.call_later(delay, _refuse, responses, ApiError(f"{what}: HTTP 500", status=500))
        elif outcome.kind == "reset":
            around.loop.call_later(delay, _refuse, responses, ApiError(f"{what}: ReadError"))
        definite = refused = None
        laws.on_call()
        try:
            async with asyncio.timeout(timeout):
                answer = await responses
            definite = True
        except TimeoutError:
            raise ApiError(f"{what}: ReadTimeout") from None
        except ApiError as error:
            definite = outcome.is_clear or (error.status is not None and error.status < 500)
            if outcome.final:
                laws.refused_for_good(outcome.final, body)
            elif definite and error.status == 400 and not outcome.clear:
                refused = body.get("cert")
            raise
        else:
            return answer
        finally:
            laws.ended(call, definite=bool(definite) and not self.operator.dead, refused=refused)

    def _arrive(self, what: str, body: dict[str, Any], call: Call, responses: asyncio.Future[dict[str, Any]] | None) -> None:
        """The call reaches the account."""
        account = self.around.account
        if account.now() < account.restarting_until:
            _refuse(responses, ApiError(f"{what}: HTTP 403", status=403))
        elif account.is_banned:
            _refuse(responses, ApiError(f"{what}: HTTP 400", status=400, faults=(ApiFault(1031, "account is banned"),)))
        elif account.right_certificate is not None and body.get("cert") != account.right_certificate:
            account.log_off()
            _refuse(
                responses, ApiError(f"{what}: HTTP 400, error 1005", status=400, faults=(ApiFault(1005, "client setup is logged off"),))
            )
        else:
            call.took_effect = True
            account.set_shards(int(body["shards"]))
            if responses is not None:
                self.around.loop.call_later(0.01, _answer, responses)


def _error(what: str, outcome: CallOutcome) -> ApiError:
    """Return what the operator's HTTP client makes of an answer that rejects the call."""
    after = timedelta(seconds=outcome.retry_after) if outcome.retry_after is not None else None
    return ApiError(
        f"{what}: HTTP {outcome.status}", status=outcome.status, faults=(ApiFault(outcome.code, outcome.text),), retry_after=after
    )


def _answer(responses: asyncio.Future[dict[str, Any]]) -> None:
    if not responses.done():
        responses.set_result({})


def _refuse(responses: asyncio.Future[dict[str, Any]] | None, error: ApiError) -> None:
    if responses is not None and not responses.done():
        responses.set_exception(error)


class SimSessions(ApiSessions):
    """Real sessions with simulated wires."""

    def __init__(self, around: Surroundings, operator: Operator) -> None:
        super().__init__(clock=operator.clock, wake=operator.wake, call_timeout=around.tuning.call_timeout / timedelta(seconds=1))
        self._around = around
        self._operator = operator

    def _session(self, key: Key) -> ApiSession:
        if key not in self._sessions:
            session = SimSession(key, clock=self._clock, wake=self._wake, call_timeout=self._call_timeout)
            session.around, session.operator = self._around, self._operator
            self._sessions[key] = session
        return self._sessions[key]


@cache
def _metrics() -> Metrics:
    """The series of all operators: nothing reads them here, and to begin them costs as much as a minute of simulated rest."""
    return Metrics()


class Operator:
    """One process. `campaign` seeks the Lease as the real one does; `lead` makes it believe that it leads, with any Lease."""

    def __init__(self, around: Surroundings, name: str, *, kube: SimKube | None = None, ahead: float = 0.0, image: str = RELEASE) -> None:
        self.name = name
        self.image = image
        """Of the simulator that its release brings."""
        self.dead = False
        self.leads = False
        """It believes to lead, and acts."""
        self._around = around
        self._rng = Random(around.rng.random())
        self.process = Process(around.loop, name)
        self.process.cut_off = lambda node: node in self.cut_off
        self.cut_off: frozenset[str] = frozenset()
        """Nodes that this process cannot speak to."""
        self.machine = MachineClocks(around.loop, skew=(self._rng.random() - 0.5) * 7200 + ahead)
        self.clock = SystemClock(wall=self.machine.wall, seconds=self.machine.seconds)
        self.kube = kube or SimKube(around.server, actor=name, rng=self._rng, network=around.network)
        self._tasks: list[asyncio.Task[Any]] = []
        self.election = Election(
            self.kube,
            namespace="operator",
            name="whatsapp-operator",
            identity=name,
            watch=None,
            clock=around.loop.time,
            wall=self.clock.wall,
        )
        self._tethers = SimTethers(around, self)
        self.nodes = Nodes(self.kube, clock=self.clock, changed=self._node_changed)
        self._pod_index = PodIndex(self._tethers.hold, read=lambda obj: desired_of(obj, image=image, tuning=around.tuning))
        self._self_check = SelfCheck(
            self_check=lambda: self_check.self_check(self._tethers.silence(), self.nodes.snapshot(), self.clock.now()),
            step_down=lambda: self.election.step_down(2.0),
            clock=self.clock,
        )
        self._sessions = SimSessions(around, self)
        self._reconciler: Reconciler | None = None
        self._writes: SimKube | None = None

    def _build(self, kube: SimKube) -> Reconciler:
        self._writes, around = kube, self._around
        parts: Any = {"kube": kube, "clients": self._sessions, "coreapps": self._tethers, "clock": self.clock}
        return Reconciler(
            kube=kube,
            observer=Observer(
                **parts,
                image=self.image,
                tuning=around.tuning,
                nodes=self.nodes.snapshot,
                nodes_unread=self.nodes.unread,
                holders=self._pod_index.holders,
                number_keeper=self._pod_index.keeper,
                cluster_gone=self._pod_index.note_absent,
                server_time=lambda: START + timedelta(seconds=around.loop.time()),
            ),
            executor=Executor(**parts, identity=self.name, metrics=_metrics()),
            clock=self.clock,
            forget=self._forget,
            listed=self._pod_index.note_listed,
            nonce=lambda: "".join(self._rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(5)),
            metrics=_metrics(),
        )

    def wake(self, key: Key) -> None:
        """Pass on that something changed."""
        if self._reconciler is not None and not self.dead:
            self._reconciler.wake(key)

    def _forget(self, key: Key) -> None:
        self._pod_index.release(key)
        self._sessions.forget(key)

    def _node_changed(self, node: str) -> None:
        for key in self._pod_index.clusters_on(node):
            self.wake(key)

    def _lag(self) -> float:
        """Return how many seconds late an event is."""
        lag = 0.001 + self._rng.random() * 0.01
        if self._rng.random() < 0.05:
            lag += self._rng.random() * self._around.watch_lag
            self._around.laws.did["news late"] += self._around.watch_lag > 0
        return lag

    def _event(self, kind: Kind, obj: Obj, gone: bool) -> None:
        """Take in what a watch tells, as the handlers do."""
        meta = obj["metadata"]
        name = meta["name"] if kind is WAC else cluster_of(obj)
        if name and not self.dead:
            saw = {WAC: self._pod_index.note_cluster, POD: self._pod_index.note_pod, SERVICE: self._pod_index.note_service}.get(kind)
            if saw is not None:
                saw(obj, gone=gone)
            self.wake(Key(meta["namespace"], name))

    # --- life ---------------------------------------------------------------------------------------------------------

    def campaign(self) -> None:
        """Run as the real process does: lead while this process holds the Lease."""
        self._reconciler = self._build(self.kube.fenced(self.election))
        self._begin(self.election.run(self._lead))
        self._keep_up()

    def lead(self, epoch: int) -> None:
        """Believe to lead from now on, without any Lease."""
        self._reconciler = self._build(self.kube)
        self._begin(self._lead(Leadership(epoch, self.name)))
        self._keep_up()

    def _keep_up(self) -> None:
        """Begin what runs independently of the leadership: watches and the self-check."""
        self._begin(self.nodes.run())
        self._begin(self._beat())
        for kind in (WAC, POD, SERVICE, STATEFULSET):
            label = None if kind is WAC else CLUSTER_LABEL
            self._begin(self.kube.follow(kind, partial(self._event, kind), lag=self._lag, label=label))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._self_check.check()

    def hears(self, uid: str) -> Report | None:
        """Return what a Coreapp said last, if its connection has not ended."""
        return self._tethers.result_of(uid).report if self._tethers.result_of(uid).broken_at is None else None

    def asked_at(self, key: Key) -> datetime:
        """When it last asked the client of a cluster for the number of shards and got an answer."""
        return self._sessions.state_of(key).asked_at or START

    def before_a_write(self, do: Callable[[str], None] | None) -> None:
        """Call this with what it is before each write is sent, but for those of Leases."""
        if self._writes is not None:
            self._writes.before_write = do

    def pause(self, seconds: float) -> None:
        """Stop like SIGSTOP, and go on later."""
        if not self.dead and not self.process.is_stopped:
            self._around.laws.emit(f"{self.name} stands still for {seconds:.1f} s")
            self.process.stop()
            self._around.loop.call_later(seconds, self.process.go_on)

    def cut(self, nodes: Iterable[str]) -> None:
        """Cut the way to what runs on these nodes, and only that; none: mend it."""
        self.cut_off = frozenset(nodes)
        self._around.laws.emit(f"{self.name} is cut off from {sorted(self.cut_off)}")
        self._around.cluster.mend_lines()

    async def _lead(self, leadership: Leadership) -> None:
        if self._reconciler is None:
            raise AssertionError
        self._around.laws.emit(f"{self.name} leads, epoch {leadership.epoch}")
        self._pod_index.lead()
        self.leads = True
        try:
            await self._reconciler.run(leadership)
        finally:
            self.leads = False
            self._pod_index.stand_by()
            await self._sessions.close()

    def _begin(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=self.name, context=self.process.context.copy()))

    def kill(self) -> None:
        """End like `kill -9`: nothing is tidied up, and what is under way lands or does not."""
        if self.dead:
            return
        self._around.laws.emit(f"{self.name} is killed")
        self.dead = True
        self.kube.kill()
        self._pod_index.close()
        for task in self._tasks:
            task.cancel()
        self.process.go_on()
        # The kernel closes what a process held.
        self._begin(self._tethers.close())

    async def stop(self) -> None:
        """End like SIGTERM: stop the work, release the Lease."""
        self.process.go_on()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.kill()


def hurried(tuning: Tuning | None = None) -> Tuning:
    """Return the times that simulations go by: those of the real thing, made shorter."""
    return replace(
        tuning or Tuning(),
        call_timeout=timedelta(seconds=5),
        settle_grace=timedelta(seconds=2),
        missing_holder=timedelta(seconds=10),
    )
