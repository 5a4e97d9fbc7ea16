"""One pod of a hollow node: a small kubelet for a single pod. Its main container lives in this process; its state is reported.

The container's life (`_live`, `_leave`) and the reports never wait for each other: containers keep running when the API server is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from localkube import Obj
from localkube.hollow.addresses import Addresses
from localkube.hollow.config import configured
from localkube.hollow.kube import Kube, KubeError
from localkube.hollow.nodes import HollowNode
from localkube.hollow.reports import Reporter
from localkube.hollow.spec import ConfigError, Sources, component_of, main_container, patience
from localkube.hollow.status import KILLED, Container, pod_status, stamp, transitions

logger = logging.getLogger("localkube.hollow")


START_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 6.0
CONFIG_LAG_S = 0.05
"""A Secret that was created just before its pod may be observed just after it; only after this is it reported as missing."""
CONFIG_RETRY_S = 1.0
FLUSH_TIMEOUT_S = 1.0
SLOWEST_RETRY_S = 5.0
RESTART_S = 1.0
"""From a container's end to its restart, as with a kubelet, which checks its containers once a second."""


Resolve = Callable[[str, int], Awaitable[tuple[str, int]]]


class Component(Protocol):
    """A part of the simulator, running in this process. It may also have ``disturb(fault)`` and ``effects``, as a Coreapp does."""

    @property
    def ready(self) -> bool:
        """Whether its readiness probe would succeed."""

    async def start(self) -> None:
        """Begin to listen."""

    async def stop(self, grace: float) -> None:
        """SIGTERM; returns when it has ended by itself, `grace` (s) being what it has."""

    async def kill(self) -> None:
        """SIGKILL."""

    def hang(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""

    async def wait_stopped(self) -> None:
        """Returns when it has ended, for any reason; raises what it died of."""


Make = Callable[[str, Mapping[str, str], Resolve], Component]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every pod of a process shares. `resolve` and `sources` are asked with the pod's namespace."""

    kube: Kube
    folder: Path
    restart_delay_s: float
    make: Make
    resolve: Callable[[str], Resolve]
    sources: Callable[[str], Sources]
    addresses: Addresses = field(default_factory=Addresses)
    effects: defaultdict[str, list[Counter[str]]] = field(default_factory=lambda: defaultdict(list))
    """By uid of a pod, also of one that is gone: what faults were seen to do to each of its lives, by name."""


class NotRunningError(Exception):
    """The pod has no container at this moment that a fault could be done to."""


class HollowPod:
    """A pod that is bound to a hollow node, from its start until its object is gone."""

    def __init__(self, pod: Obj, node: HollowNode, around: Surroundings) -> None:
        now, meta, status = datetime.now(UTC), pod["metadata"], pod.get("status") or {}
        self.pod, self.node, self.around = pod, node, around
        self.namespace, self.name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.main = main_container(pod)
        self.kind = component_of(self.main)
        self.ip = around.addresses.take()
        self.container = Container()
        self.failed = ""
        self.finished = False
        self._over = status.get("phase") in {"Succeeded", "Failed"}
        self._started = stamp(now)
        self._since: dict[str, tuple[str, str]] = {}
        is_scheduled = any(one["type"] == "PodScheduled" for one in status.get("conditions") or ())
        self._scheduled = {} if is_scheduled else {"PodScheduled": ("True", stamp(now))}
        self._path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self._folder = around.folder / "pods" / self.uid
        self.reporter = Reporter(around.kube, self._path, node, self._status)
        self._component: Component | None = None
        self._end: asyncio.Future[int] | None = None
        self._message = ""  # why the last life ended
        self._settled = asyncio.Event()  # not in the middle of a start
        self._settled.set()
        self.news = asyncio.Event()
        """A Secret or ConfigMap of the namespace changed: a container that waits for it may try again."""
        self._hung: dict[str, float] = {}
        self._parted: Component | None = None
        self._deaf_since: float | None = None  # half-open ports: the kubelet's probes do not even connect
        self._ready_before_hang = False
        self._patience = {probe: patience(self.main.get(probe)) for probe in ("readinessProbe", "livenessProbe")}
        self._deadline: float | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ what its node reports to it

    def begin(self) -> None:
        """Start the container (not of a pod that is over or leaving) and the reports."""
        self._task("write", self.reporter.run())
        if not self._over and "deletionTimestamp" not in self.pod["metadata"]:
            self._task("live", self._live())
        self.update(self.pod)

    def update(self, pod: Obj) -> None:
        """The object changed: begin or hasten its end; report again what was overwritten."""
        self.pod, meta = pod, pod["metadata"]
        if "deletionTimestamp" not in meta:
            self.reporter.compare(pod)
            return
        deadline = time.monotonic() + float(meta.get("deletionGracePeriodSeconds") or 0)
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        if "leave" not in self._tasks:
            self._task("leave", self._leave())

    def probe(self) -> None:
        """Follow the component's readiness, and what a kubelet's probes would find of a hung one. Called every 20 ms, so it is cheap."""
        component = self._component
        if component is None or not self.container.runs:
            return
        ready = component.ready
        if self._hung or self._deaf_since is not None:
            ready = self._ready_before_hang and not self._given_up("readinessProbe")
            if self._given_up("livenessProbe"):
                self._hung.pop("asked", None)
                self._deaf_since = None
                self._task("liveness", self._end_life(component, "Liveness probe failed"))
        if ready != self.container.ready:
            self._become(replace(self.container, ready=ready))

    def _given_up(self, probe: str) -> bool:
        """Whether the kubelet has had no answer to this probe for longer than it accepts. On a lost node no simulated kubelet probes."""
        since = [self._deaf_since]
        if "tcpSocket" not in (self.main.get(probe) or {}):  # such a probe the kernel answers for a stopped process
            since.append(self._hung.get("asked"))
        now = time.monotonic()
        return any(one is not None and now - one > self._patience[probe] for one in since)

    async def vanish(self) -> None:
        """The object is gone (the last step of a deletion, or a force delete): what still runs is killed at once."""
        await self.shut_down()
        if not self.finished:
            self._clean()

    async def shut_down(self) -> None:
        """The hollow process ends: like the power going off, nothing is reported and nothing is removed."""
        self._cancel("live", "leave", "write", "liveness")
        if self._component is not None:
            await self._quietly(self._component.kill())

    # ------------------------------------------------------------ faults

    async def kill(self, message: str = "") -> None:
        """Kill the container at once, without a graceful end; the kubelet's rules then restart it. Raises NotRunningError."""
        await self._end_life(self._running(), message)

    async def fail(self, reason: str) -> None:
        """The whole pod ends for good in phase Failed, as under node pressure (reason Evicted)."""
        component = self._running()
        self.failed = reason
        await self._end_life(component, f"the pod was ended: {reason}")

    async def hang(self, why: str = "asked") -> None:
        """Stop the container's process without ending it (SIGSTOP, or its node is out of reach). Raises NotRunningError."""
        component = self._running()
        if not self._hung:
            self._note_readiness(component)
            component.hang()
        self._hung.setdefault(why, time.monotonic())

    async def resume(self, why: str = "asked") -> None:
        """End one `hang`; the process continues when none is left."""
        if self._hung.pop(why, None) is not None and not self._hung and self._component is not None:
            self._component.resume()

    async def disturb(self, **fault: Any) -> None:
        """Inject another fault into the component: see `Disturbance` of the simulator. Raises NotRunningError, ValueError."""
        component = self._running()
        if not hasattr(component, "disturb"):
            raise ValueError(f"a {self.kind} cannot be disturbed, only killed and hung")
        self._note_readiness(component)
        await component.disturb(fault)
        if "ports" in fault:
            self._deaf_since = time.monotonic() if fault["ports"] == "half-open" else None

    def _note_readiness(self, component: Component) -> None:
        if not self._hung and self._deaf_since is None:
            self._ready_before_hang = component.ready

    async def part(self) -> None:
        """Cut the container off from its callers, while it keeps running and making its own calls. Raises NotRunningError, ValueError."""
        await self.disturb(ports="parted")
        self._parted = self._component

    async def join(self) -> None:
        """End `part`: what was asked meanwhile is answered now, if that life still lasts."""
        parted, self._parted = self._parted, None
        if parted is not None and parted is self._component:
            await self.disturb(ports="open")

    @property
    def leaving(self) -> bool:
        """Whether its deletion began."""
        return self._deadline is not None

    def describe(self) -> Obj:
        """The pod for a control client: identity, address, state."""
        return {
            **{name: getattr(self, name) for name in ("namespace", "name", "uid", "ip", "leaving", "failed")},
            "node": self.node.name,
            "component": self.kind,
            "state": self.container.describe(),
            "message": self.container.message,
            "ready": self.container.ready,
            "restarts": self.container.restarts,
            "hung": sorted(self._hung),
        }

    # ------------------------------------------------------------ the container's lives

    async def _live(self) -> None:
        if self.kind is None:
            self._become(self.container.running(datetime.now(UTC), ready=True))
            return
        failures = 0
        while True:
            code = await self._one_life(await self._configured())
            now = datetime.now(UTC)
            failures = 0 if self.container.runs else failures + 1
            if failures:  # it never came up, but a kubelet saw it run for a moment
                self.container = self.container.running(now, ready=False)
            self._become(self.container.terminated(now, code, self._message))
            if self.leaving or self.failed:
                return
            # The end must be reported before the next start hides it; but an API server that is down must not block the start.
            await self.reporter.reported(FLUSH_TIMEOUT_S)
            delay = self.around.restart_delay_s
            await asyncio.sleep(min(max(delay, 0.1) * 2**failures, SLOWEST_RETRY_S) if failures else delay)

    async def _configured(self) -> dict[str, str]:
        """The environment of the next life; while its Secrets or ConfigMaps are missing the container waits and reports so."""
        around, waited = self.around, False
        while True:
            self.news.clear()
            try:
                return await configured(
                    self.pod,
                    self.main,
                    ip=self.ip,
                    host_ip=self.node.address,
                    sources=around.sources(self.namespace),
                    kube=around.kube,
                    folder=self._folder,
                    claims=around.folder / "claims",
                )
            except ConfigError as e:
                if waited and self.container.message != str(e):
                    self._become(self.container.waiting("CreateContainerConfigError", str(e)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), CONFIG_RETRY_S if waited else CONFIG_LAG_S)
            waited = True

    async def _one_life(self, env: Mapping[str, str]) -> int:
        """The exit code of one life from start to end, after which nothing of it is left. A cancelled life is a killed one."""
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = end
        self._message, self._deaf_since = "", None
        self._hung.clear()
        self._settled.clear()
        component: Component | None = None
        noticing: asyncio.Task[None] | None = None
        try:
            self._component = component = self.around.make(str(self.kind), env, self.around.resolve(self.namespace))
            if (effects := getattr(component, "effects", None)) is not None:
                self.around.effects[self.uid].append(effects)
            async with asyncio.timeout(START_TIMEOUT_S):
                await component.start()
            self._become(self.container.running(datetime.now(UTC), ready=component.ready))
            self._settled.set()
            if self.node.lost:
                await self.hang("lost")
            noticing = asyncio.create_task(self._notice_end(component, end), name=f"end of {self.name}")
            return await end
        except Exception as e:
            logger.warning("pod %s/%s: %s did not start: %s: %s", self.namespace, self.name, self.kind, type(e).__name__, e)
            self._message = f"{type(e).__name__}: {e}"
            return 2 if isinstance(e, ValueError) else 1  # as the simulator's own command: 2 for bad settings
        finally:
            if noticing is not None:
                noticing.cancel()
            if component is not None:
                await self._quietly(component.kill())
            self._component = None
            self._settled.set()

    async def _notice_end(self, component: Component, end: asyncio.Future[int]) -> None:
        code, message = 0, ""
        try:
            await component.wait_stopped()
        except Exception as e:
            code, message = 1, f"{type(e).__name__}: {e}"
        if "leave" not in self._tasks and not end.done():
            self._message = message
            end.set_result(code)

    async def _end_life(self, component: Component, message: str) -> None:
        self._message = message
        self.around.effects[self.uid].append(Counter({"containers ended": 1}))
        self._exit(KILLED)  # before the kill: its own end must not be taken for an exit with another code
        await self._quietly(component.kill())

    def _exit(self, code: int) -> None:
        if self._end is not None and not self._end.done():
            self._end.set_result(code)

    def _running(self) -> Component:
        if self._component is None or not self.container.runs:
            raise NotRunningError(f"pod {self.namespace}/{self.name} runs no container now ({self.container.describe()})")
        return self._component

    # ------------------------------------------------------------ its deletion

    async def _leave(self) -> None:
        """SIGTERM, grace, SIGKILL, and then the report to the API server that nothing is left."""
        component = self._component
        if component is None:
            self._cancel("live")
        else:
            await self._stopped(component)
        await self._delete()
        self._clean()

    async def _stopped(self, component: Component) -> None:
        stop: asyncio.Task[None] | None = None
        while self._end is not None and not self._end.done() and (remaining := (self._deadline or 0.0) - time.monotonic()) > 0:
            if stop is None and self._settled.is_set() and not self._hung:  # a stopped process gets its SIGTERM when it goes on
                stop = self._ending(component.stop(remaining))
            waited_for: set[asyncio.Future[Any]] = {self._end} | ({stop} if stop else set())
            await asyncio.wait(waited_for, timeout=min(remaining, 0.1), return_when=asyncio.FIRST_COMPLETED)
            if stop is not None and stop.done():
                break
        stopped = stop is not None and stop.done() and stop.exception() is None
        if not stopped:
            await self._quietly(component.kill())
        if stop is not None:
            stop.cancel()
            await asyncio.wait({stop}, timeout=KILL_TIMEOUT_S)
        self._exit(0 if stopped else KILLED)

    async def _delete(self) -> None:
        pause = 0.05
        while True:
            await self.node.reachable.wait()
            try:
                return await self.around.kube.finish_deletion(self._path, self.uid)
            except KubeError as e:
                logger.info("%s; trying again in %.2f s", e, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _clean(self) -> None:
        self.finished = True
        self._component = None
        self._cancel("live", "write", "liveness")
        self.around.addresses.give_back(self.ip)
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------ small parts

    def _become(self, container: Container) -> None:
        self.container = container
        self.reporter.report()

    def _status(self) -> Obj:
        self._since = transitions(self._since, self.container, datetime.now(UTC), failed=bool(self.failed))
        return pod_status(
            self.pod,
            self.container,
            main_name=self.main["name"],
            ip=self.ip,
            host_ip=self.node.address,
            started=self._started,
            since=self._since | self._scheduled,
            failed=self.failed,
        )

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = task = asyncio.create_task(work, name=f"{name} {self.namespace}/{self.name}")
        task.add_done_callback(_complain)

    def _cancel(self, *names: str) -> None:
        for name in names:
            task = self._tasks.get(name)
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _ending(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in a separate task: the caller may be cancelled, but an interrupted shutdown would leave ports and tasks behind."""
        return spawn(work, f"end of {self.namespace}/{self.name}", kept=self._endings)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """Complete a shutdown within a bounded time; its error is logged, because an ended component reports nothing more."""
        done, _ = await asyncio.wait({self._ending(work)}, timeout=KILL_TIMEOUT_S)
        if not done:
            logger.warning("pod %s/%s: %s did not end within %.0f s", self.namespace, self.name, self.kind, KILL_TIMEOUT_S)


def spawn(work: Coroutine[Any, Any, None], name: str, *, kept: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    """Begin a task, which is in ``kept`` until it has ended; that it failed is logged."""
    task = asyncio.create_task(work, name=name)
    kept.add(task)
    task.add_done_callback(kept.discard)
    task.add_done_callback(_complain)
    return task


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("hollow: task %s failed", task.get_name(), exc_info=error)
