"""Where the operator's tests play: one control plane with hollow nodes and operators for all of them, one namespace for each."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
import pytest

from localkube.errors import LocalKubeError
from localkube.hollow.control import HollowControl
from localkube.plane.controlplane import ControlPlane, Write
from localkube.plane.operators import NAME, NAMESPACE, Operators
from localkube.plane.processes import Process, start, stop
from outside.laws import is_ready
from outside.observer import Commit, NotSeenError, Observer
from outside.traffic import Traffic

T = TypeVar("T")
Obj = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{NAME}"
NODES = 3
REPLICAS = ("op-a", "op-b")
SWITCHOVER = "multiconnect.dev/switchover"
KINDS = (
    "pods,services,statefulsets,deployments,replicasets,poddisruptionbudgets,networkpolicies,secrets,persistentvolumeclaims,configmaps,"
    "controllerrevisions,endpoints,whatsappclusters"
)
CLUSTERS = "multiconnect.dev/v1alpha1:whatsappclusters"
LONG = 90.0
"""Seconds in which anything must have happened; nothing but a failing test waits so long."""
_numbers = itertools.count(1)


class Harness:
    """A control plane, the process of its hollow nodes, and replicas of the operator with rights of their own."""

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        *,
        replicas: Iterable[str] = REPLICAS,
        env: Mapping[str, str] = MappingProxyType({}),
        objects: Sequence[Obj] = (),
    ) -> None:
        """``objects``: what to install of the operator, its CRD and its rights; as ``localkube.plane.operators`` does it if not given."""
        self.plane, self.folder, self.replicas = plane, folder, tuple(replicas)
        # Short, so that what is held up by an unanswered call is not held up for minutes.
        self.operators = Operators(
            plane, folder / "operators", env={"SETTLE_GRACE_SECONDS": "2", "LOG_LEVEL": "INFO", **env}, objects=objects
        )
        self.hollow: Process | None = None

    def start(self) -> None:
        """Everything up, without any cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [sys.executable, "-m", "localkube.hollow", "--nodes", str(NODES), "--folder", self.folder / "hollow"]
        argv += ["--kubeconfig", self.plane.admin_kubeconfig]
        env = {**os.environ, "PYTHONPATH": f"{ROOT / 'hack'}{os.pathsep}{ROOT / 'operator'}"}
        self.hollow = start("hollow nodes", argv, folder=self.folder, log=self.folder / "hollow.log", env=env)
        self.operators.install()
        for name in self.replicas:
            self.operators.start(name)
        # Several workers may start all this at once.
        _until((self.folder / "hollow" / "hollow.json").exists, "the hollow nodes are ready", lambda: self.hollow_log)
        self.leader_soon()

    def close(self) -> None:
        """Stop everything that was started."""
        self.operators.close()
        if self.hollow is not None:
            stop([self.hollow])

    @property
    def hollow_log(self) -> str:
        return self.hollow.last_lines(20) if self.hollow is not None else ""

    def leader_soon(self, *, but: str | None = None, within: float = LONG) -> str:
        """The name of the replica that leads, as soon as one does that is not ``but``."""
        return (
            _until(lambda: (name := self.operators.leader()) and name != but and name, "a replica leads", self.operator_log, within) or ""
        )

    def ensure_replicas(self) -> None:
        """Start again what a test has ended."""
        for name in self.replicas:
            if name not in self.operators.running or not self.operators.running[name].alive():
                self.operators.start(name)
        self.leader_soon()

    def end_replicas(self) -> None:
        """End all replicas by SIGTERM."""
        self.operators.close()

    def operator_log(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted((self.folder / "operators").glob("*.log")))

    def writes(self, *, since: str = "", namespace: str | None = None) -> list[Write]:
        """The operator's own writes (Events and Leases apart) that arrived at ``since`` or later, as in the audit log."""
        return [
            write
            for write in self.plane.writes()
            if write.user == OPERATOR
            and write.at >= since
            and write.resource not in {"events", "leases"}
            and namespace in {None, write.namespace}
        ]

    def rejections(self, since: str) -> list[Write]:
        return [write for write in self.plane.writes() if write.user == OPERATOR and write.at >= since and write.code in {401, 403}]


class Environment:
    """One namespace of the harness, watched by an independent observer from the first moment to the last."""

    def __init__(self, harness: Harness, namespace: str, seen: Observer) -> None:
        self.harness, self.namespace, self.seen = harness, namespace, seen
        self.plane = harness.plane
        self.began = now()
        self.newest: dict[str, int] = {}
        """By cluster: the generation of what was asked for last; a watch may not have reported it yet."""
        self._marks: dict[str, int] = {}
        """By cluster: how many of its versions had been seen when something was last changed."""

    # ------------------------------------------------------------ asking for things

    async def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002 - subprocess calls it so
        if args[0] != "get":
            self.mark()
        return await asyncio.to_thread(self.plane.kubectl, "-n", self.namespace, *args, input=input)

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Obj:
        """As an administrator, in the namespace: ``path`` is an API version, a colon, and what follows the namespace."""
        if method != "GET":
            self.mark()
        api, _, rest = path.partition(":")
        whole = f"/{'apis' if '/' in api else 'api'}/{api}/namespaces/{self.namespace}/{rest}"
        answer: Obj = await asyncio.to_thread(self.plane.call, method, whole, body, **options)
        return answer

    def account(self, **more: Any) -> Obj:
        """An account with a number that no other environment has: of two clusters with one number only the first sends Set Shards."""
        return {"countryCode": "1", "phoneNumber": f"{zlib.crc32(self.namespace.encode()):010}", **more}

    async def create(self, name: str = "acme", *, shards: int = 2, spares: int = 1, **spec: Any) -> None:
        body = {"shards": shards, "spares": spares, "client": {"type": "Simulator", "simulator": {"restartSeconds": 1}}, **spec}
        obj = {"apiVersion": "multiconnect.dev/v1alpha1", "kind": "WhatsAppCluster", "metadata": {"name": name}, "spec": body}
        self.newest.pop(name, None)
        await self.call("POST", f"{CLUSTERS}?fieldValidation=Strict", obj)

    async def created(self, name: str = "acme", **spec: Any) -> None:
        """A cluster that is ready and at rest."""
        await self.create(name, **spec)
        await self.at_rest(name)

    async def patch(self, name: str = "acme", **spec: Any) -> None:
        self.newest[name] = (await self._merge(name, {"spec": spec}))["metadata"]["generation"]

    async def annotate(self, key: str, value: str, name: str = "acme") -> None:
        await self._merge(name, {"metadata": {"annotations": {key: value}}})

    async def _merge(self, name: str, body: Obj) -> Obj:
        return await self.call("PATCH", f"{CLUSTERS}/{name}", body, content="application/merge-patch+json")

    async def delete_pod(self, pod: str) -> None:
        await self.call("DELETE", f"v1:pods/{pod}")

    async def kill(self, pod: str) -> None:
        """SIGKILL to the pod's container."""
        async with self.control() as control:
            await control.kill(self.namespace, pod)

    def control(self) -> HollowControl:
        """A client of the hollow nodes, for a change; made again each time, so that an environment belongs to no event loop."""
        self.mark()
        return HollowControl.of(self.harness.folder / "hollow")

    def traffic(self, name: str = "acme", **options: Any) -> Traffic:
        return Traffic(self.plane.admin_kubeconfig, self.namespace, name, **options)

    # ------------------------------------------------------------ seeing things

    async def until(self, predicate: Callable[[Observer], T], what: str, timeout: float = LONG) -> T:
        """What the observer says as soon as it is true; fails with what was seen instead and the operator's last lines."""
        try:
            return await asyncio.to_thread(self.seen.wait_until, predicate, timeout, what)
        except NotSeenError as error:
            lines = [line for line in self.harness.operator_log().splitlines() if self.namespace in line][-15:]
            msg = f"{error}\nThe operators' last lines on {self.namespace}:\n" + "\n".join(lines)
            raise AssertionError(msg) from None

    def mark(self) -> None:
        """From now on ``said`` goes by what is seen from here: something is about to be changed."""
        self._marks = {
            obj["metadata"]["name"]: len(self.seen.versions("WhatsAppCluster", self.namespace, obj["metadata"]["name"]))
            for obj in self.seen.objects("WhatsAppCluster", self.namespace)
        }

    def since_mark(self, name: str) -> list[Obj]:
        """The versions of a cluster since ``mark``, the oldest first; the last one if there is none since then."""
        versions = self.seen.versions("WhatsAppCluster", self.namespace, name)
        return versions[self._marks.get(name, 0) :] or versions[-1:]

    async def said(self, what: Callable[[Obj], T], of: str, name: str = "acme", timeout: float = LONG) -> T:
        """What a status of the cluster says as soon as that is true; of the last one, or of one since the last change by the test.

        For what passes: a busy machine may learn of a state only together with the next one.
        """

        def found(_: Observer) -> T:
            answers = [what(obj.get("status") or {}) for obj in self.since_mark(name)]
            return next((answer for answer in answers if answer), answers[-1] if answers else what({}))

        return await self.until(found, of, timeout)

    async def word(self, condition: str, reason: str, name: str = "acme", timeout: float = LONG) -> str:
        """The message of a condition as soon as it has this reason, or has had it since the last change by the test."""
        try:
            found = await self.said(lambda status: condition_of(status, condition, reason), f"{condition}={reason}", name, timeout)
        except AssertionError as error:
            shown = [one for obj in self.since_mark(name) for one in (obj.get("status") or {}).get("conditions") or ()]
            error.add_note(f"{condition} was: " + ", ".join(one["reason"] for one in shown if one["type"] == condition))
            raise
        return str(found.get("message"))

    async def at_rest(self, name: str = "acme", timeout: float = LONG) -> None:
        """Wait until the status speaks of the newest spec, and nothing is left to do."""
        await self.until(lambda _: self.is_at_rest(name), f"{name} at rest", timeout)

    def is_at_rest(self, name: str = "acme") -> bool:
        obj = self.cluster(name)
        status, spec = obj.get("status") or {}, obj.get("spec") or {}
        workload = self.seen.find("StatefulSet", self.namespace, f"{name}-coreapp") or {}
        pods = spec["shards"] + spec["spares"] if spec else 0
        webapps = (status.get("webapp") or {}).get("desired")
        holders = {entry["holder"] for entry in status.get("shardMap") or () if entry["state"] == "Serving"}
        return (
            bool(obj)
            and status.get("observedGeneration") == obj["metadata"]["generation"] >= self.newest.get(name, 1)
            and self.words(name) == {"Ready": "True", "Reconciling": "False", "Stalled": "False", "Redundant": "True"}
            and status.get("shards") == status.get("settledShards") == spec["shards"]
            and "operation" not in status
            and (workload.get("spec") or {}).get("replicas") == pods
            and (workload.get("status") or {}).get("readyReplicas") == pods
            and len(self.pods("coreapp", name)) == pods
            and len(holders) == spec["shards"]
            and set(self.seen.holders(self.namespace, name).values()) == holders
            and len(self.shard_services(name)) == spec["shards"]
            and len(self.ready("webapp", name)) == status["webapp"]["ready"] == webapps
            # Where the spec does not say how many, there are two at first.
            and webapps == (spec.get("webapp") or {}).get("replicas", 2)
        )

    def words(self, name: str = "acme") -> dict[str, str]:
        conditions = (self.cluster(name).get("status") or {}).get("conditions") or ()
        return {one["type"]: one["status"] for one in conditions if one["type"] in {"Ready", "Reconciling", "Stalled", "Redundant"}}

    def reason(self, kind: str, name: str = "acme") -> str:
        return str(self.seen.condition(self.namespace, name, kind).get("reason"))

    def cluster(self, name: str = "acme") -> Obj:
        return self.seen.find("WhatsAppCluster", self.namespace, name) or {}

    def status(self, name: str = "acme") -> Obj:
        status: Obj = self.cluster(name).get("status") or {}
        return status

    def pods(self, component: str, name: str = "acme") -> list[Obj]:
        wanted = {"app.kubernetes.io/component": component, "multiconnect.dev/cluster": name}
        return [pod for pod in self.seen.objects("Pod", self.namespace) if wanted.items() <= pod["metadata"]["labels"].items()]

    def ready(self, component: str, name: str = "acme") -> list[Obj]:
        return [pod for pod in self.pods(component, name) if is_ready(pod)]

    def shard_services(self, name: str = "acme") -> list[Obj]:
        services = self.seen.objects("Service", self.namespace)
        return [obj for obj in services if re.fullmatch(rf"{name}-shard-[0-9]+", obj["metadata"]["name"])]

    def holder(self, shard: int, name: str = "acme") -> str:
        return self.seen.holders(self.namespace, name)[shard]

    def uid(self, pod: str) -> str:
        obj = self.seen.find("Pod", self.namespace, pod)
        return str(obj["metadata"]["uid"]) if obj else ""

    def replicas(self, name: str = "acme") -> int:
        workload = self.seen.find("StatefulSet", self.namespace, f"{name}-coreapp") or {"spec": {"replicas": 0}}
        return int(workload["spec"]["replicas"])

    async def commit(self, shard: int, after: int, name: str = "acme", timeout: float = LONG) -> Commit:
        """The first commit of a shard beyond the first ``after`` commits of the observer."""

        def found(seen: Observer) -> list[Commit]:
            fresh = [one for one in seen.commits[after:] if (one.namespace, one.cluster, one.shard) == (self.namespace, name, shard)]
            # A Service that does not lead where its annotation says is no handover.
            return [one for one in fresh if one.holder]

        return (await self.until(found, f"a commit of shard {shard}", timeout))[0]

    async def events(self, reason: str | None = None) -> list[Obj]:
        items = (await self.call("GET", "v1:events"))["items"]
        return [event for event in items if event["involvedObject"]["kind"] == "WhatsAppCluster" and reason in {None, event["reason"]}]

    async def event(self, reason: str, contains: str = "") -> Obj:
        """The first Event with this reason, as soon as there is one."""
        deadline = time.monotonic() + LONG
        while True:
            said = await self.events()
            for event in said:
                if event["reason"] == reason and contains in event["message"]:
                    return event
            if time.monotonic() > deadline:
                raise AssertionError(f"no event {reason} with {contains!r}; there are {[(e['reason'], e['message']) for e in said]}")
            await asyncio.sleep(0.1)

    async def everything(self) -> set[str]:
        """The names of all objects in the namespace, Events apart."""
        return set((await self.kubectl("get", KINDS, "-o", "name")).split())

    async def client_state(self, name: str = "acme") -> Obj:
        """The state of the client, as the simulator itself shows it."""
        ip = self.pods("simulator", name)[0]["status"]["podIP"]
        url = f"http://{ip}:8080/control/counters"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session, session.get(url) as response:
            answer: Obj = await response.json()
            return answer

    async def fault(self, name: str = "acme", **fault: Any) -> None:
        """Have the simulator go wrong, as in ``POST /control/faults``; without arguments, go right again.

        AssertionError when a fault ends that has never happened: then a test proved nothing.
        """
        ip = self.pods("simulator", name)[0]["status"]["podIP"]
        url, method = f"http://{ip}:8080/control/faults", "POST" if fault else "DELETE"
        if not fault:
            assert_each_happened(await self.faults(name))
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.request(method, url, json=fault or None) as response,
        ):
            assert response.status in {200, 201}, await response.text()

    async def faults(self, name: str = "acme") -> list[Obj]:
        """The simulator's faults, and how often each has happened, as in ``GET /control/faults``."""
        ip = self.pods("simulator", name)[0]["status"]["podIP"]
        url = f"http://{ip}:8080/control/faults"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session, session.get(url) as response:
            faults: list[Obj] = (await response.json())["faults"]
            return faults

    # ------------------------------------------------------------ what must be so after every test

    async def check(self) -> None:
        """No law was broken at any instant, nothing was rejected for the operator, nothing secret was shown, no shard was served twice."""
        violations = await asyncio.to_thread(self.seen.verify)
        assert not violations, "\n".join(map(str, violations))
        for obj in self.seen.objects("WhatsAppCluster", self.namespace):
            if self.ready("simulator", obj["metadata"]["name"]):
                assert self.seen.client_reports(self.namespace, obj["metadata"]["name"]), (
                    "the client was never asked for its number of shards"
                )
                assert (await self.client_state(obj["metadata"]["name"]))["two_holders"] == 0
                assert_each_happened(await self.faults(obj["metadata"]["name"]))
        async with self.control() as control:
            ambiguous = {where: times for where, times in (await control.state())["ambiguous"].items() if "-shard-" in where}
        assert not [where for where in ambiguous if where.startswith(f"{self.namespace}/")], ambiguous
        refused = self.harness.rejections(self.began)
        assert not refused, refused
        log = self.harness.operator_log()
        # The client's own 403, "busy", is an answer like another; and a line's time may end in 403 milliseconds.
        lines = [line.split(" ", 2)[-1] for line in log.splitlines()]
        # Of a field that nobody may change the API server says "Forbidden" with 422.
        denied = [
            line
            for line in lines
            if re.search(r"\b403\b|[Ff]orbidden|[Uu]nauthorized", line) and "/v1/" not in line and ": 422 Invalid: " not in line
        ]
        assert not denied, denied
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:4000]
        await self._check_secrets(log)

    async def _check_secrets(self, log: str) -> None:
        """No value of a Secret of the namespace, no token of the operator anywhere that people read."""
        secrets = (await self.call("GET", "v1:secrets"))["items"]
        values = {base64.b64decode(data).decode("utf-8", "replace") for secret in secrets for data in (secret.get("data") or {}).values()}
        values |= {line for value in values for line in value.splitlines()}
        for path in (self.harness.folder / "operators").glob("*.kubeconfig"):
            values |= set(re.findall(r"token: (\S+)", path.read_text(encoding="utf-8")))
        assigned = {"log": log, "events": json.dumps(await self.events()), "status": json.dumps(self.seen.objects("WhatsAppCluster"))}
        for value in values:
            # "admin" and "secret" are documented words; expiresAt is shown on purpose.
            if len(value) >= 6 and value not in {"secret"} and not value.startswith("-----") and not re.fullmatch(r"[\d:TZ+.-]+", value):
                for where, text in assigned.items():
                    assert value not in text, f"a value of a Secret ({len(value)} characters) is in the {where}"
        assert "Bearer " not in log


@asynccontextmanager
async def an_environment(harness: Harness) -> AsyncIterator[Environment]:
    """A fresh namespace, its clusters deleted afterwards, everything checked.

    The namespace stays: to delete one costs 0.1 s of processor time, and in one that is being deleted the API server rejects what an
    observation that is in progress finds missing.
    """
    namespace = f"environment-{next(_numbers)}"
    await asyncio.to_thread(harness.plane.call, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    observer = Observer(harness.plane.admin_kubeconfig, namespace, ask_client=True)
    with observer as seen:
        environment = Environment(harness, namespace, seen)
        try:
            yield environment
            await environment.check()
        finally:
            await environment.call("DELETE", CLUSTERS)


async def reported_of(environment: Environment, commit: Commit) -> Obj:
    """What the status reports of this very handover, as soon as it does."""

    def entry(_: Observer) -> Obj:
        entries: list[Obj] = environment.status(commit.cluster).get("recentHandovers") or []
        return next((one for one in entries if one["epoch"] == commit.epoch), {})

    return await environment.until(entry, f"handover {commit.epoch} in the status")


@asynccontextmanager
async def light_traffic(environment: Environment, rate: float = 15.0) -> AsyncIterator[Traffic]:
    """A few messages a second throughout the block; afterwards none is lost, none was delivered twice."""
    async with environment.traffic(rate=rate) as traffic:
        await traffic.next_delivery(0, time.monotonic())
        yield traffic
        report = await traffic.finish()
    assert (report.lost, report.doubled, report.two_holders) == (0, 0, 0), report


def assert_each_happened(faults: Iterable[Obj]) -> None:
    """AssertionError if one of the simulator's faults has never happened."""
    never = [fault for fault in faults if not fault["fired"]]
    assert not never, f"never happened: {never}"


def selected(request: pytest.FixtureRequest, parameter: str) -> set[str]:
    """The values of a parameter in those tests of the fixture's own module that were selected."""
    tests = (item for item in request.session.items if item.path == request.path and hasattr(item, "callspec"))
    return {test.callspec.params[parameter] for test in tests if parameter in test.callspec.params}


def condition_of(status: Obj, kind: str, reason: str) -> Obj:
    """A status's condition of this kind if it has this reason; empty otherwise."""
    return next((one for one in status.get("conditions") or () if (one["type"], one.get("reason")) == (kind, reason)), {})


def now() -> str:
    """This moment as the audit log spells it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def assigned(writes: list[Write]) -> str:
    """Writes by what they were, for a message."""
    return ", ".join(
        f"{times}x {what}" for what, times in Counter(f"{w.verb} {w.resource}/{w.subresource} {w.name}" for w in writes).items()
    )


def _until(ask: Callable[[], T], what: str, context: Callable[[], str], within: float = LONG) -> T:
    deadline = time.monotonic() + within
    while not (found := ask()):
        if time.monotonic() > deadline:
            msg = f"waited {within:g} s without success until {what}:\n{context()[-3000:]}"
            raise LocalKubeError(msg)
        time.sleep(0.05)
    return found
