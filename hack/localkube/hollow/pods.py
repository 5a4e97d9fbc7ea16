"""One pod of a hollow node: a small kubelet for a single pod. Its main container gets a life in process, the API server gets to know.

Two streams meet here and never wait for each other: what the container does (`_live`, `_leave`) and what the API server is told (`_write`).
So containers go on when the API server is away, as they do under a real kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from localkube.hollow.addresses import Addresses
from localkube.hollow.components import Component, Make, Resolve
from localkube.hollow.kube import Kube, KubeError, RefusedError, version_of
from localkube.hollow.nodes import HollowNode
from localkube.hollow.spec import (
    ConfigError,
    Sources,
    Volume,
    component_of,
    environment,
    main_container,
    patience,
    relocated,
    volumes,
)
from localkube.hollow.status import KILLED, known_transitions, pod_status, recalled, restarts_after, stamp, transitions

logger = logging.getLogger("localkube.hollow")

Obj = dict[str, Any]

START_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 6.0
CONFIG_LAG_S = 0.05
"""A Secret that was created just before its pod may reach us just after it; only after this is it said to be missing."""
CONFIG_RETRY_S = 1.0
FLUSH_TIMEOUT_S = 1.0
SLOWEST_RETRY_S = 5.0
RESTART_S = 1.0
"""From a container's end to its restart, as with a kubelet, which looks at its containers once a second."""


def _nowhere(_: str) -> Resolve:
    async def resolve(service: str, _: int) -> tuple[str, int]:
        message = f"there is no service {service}"
        raise LookupError(message)

    return resolve


def _nothing(_: str) -> Sources:
    return Sources(secret=lambda _: None, config_map=lambda _: None)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every pod of a process shares. `resolve` and `sources` are asked with the pod's namespace."""

    kube: Kube
    addresses: Addresses
    folder: Path
    restart_delay_s: float
    make: Make
    resolve: Callable[[str], Resolve] = _nowhere
    sources: Callable[[str], Sources] = _nothing
    effects: defaultdict[str, list[Counter[str]]] = field(default_factory=lambda: defaultdict(list))
    """By uid of a pod, also of one that is gone: what faults were seen to do to each of its lives, by name."""


class NotRunningError(Exception):
    """The pod has no container at this moment that could be acted upon."""


class HollowPod:
    """A pod that is bound to a hollow node, from its start until its object is gone."""

    def __init__(self, pod: Obj, node: HollowNode, around: Surroundings) -> None:
        now = datetime.now(UTC)
        self.pod, self.node, self.around = pod, node, around
        self.namespace, self.name, self.uid = pod["metadata"]["namespace"], pod["metadata"]["name"], pod["metadata"]["uid"]
        self.main = main_container(pod)
        self.kind = component_of(self.main)
        status = pod.get("status") or {}
        self.ip = around.addresses.retake(status["podIP"]) if status.get("podIP") else around.addresses.take()
        self.container = recalled(pod, self.main["name"], now)
        self.failed = ""
        self.finished = False
        self._over = status.get("phase") in {"Succeeded", "Failed"}
        self._policy = pod["spec"].get("restartPolicy") or "Always"
        self._began = now if not status.get("startTime") else datetime.fromisoformat(status["startTime"])
        known = known_transitions(pod)
        self._scheduled = {} if "PodScheduled" in known else {"PodScheduled": ("True", stamp(now))}
        self._since = known
        self._path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self._folder = around.folder / "pods" / self.uid
        self._component: Component | None = None
        self._end: asyncio.Future[int] | None = None
        self._message = ""  # why the last life ended
        self._settled = asyncio.Event()  # not in the middle of a start
        self._settled.set()
        self._news = asyncio.Event()  # a Secret or ConfigMap of the namespace changed
        self._hung: dict[str, float] = {}
        self._parted: Component | None = None
        self._deaf_since: float | None = None  # half-open ports: the kubelet's probes do not even connect
        self._ready_before_hang = False
        self._readiness, self._liveness = patience(self.main.get("readinessProbe")), patience(self.main.get("livenessProbe"))
        self._deadline: float | None = None
        self._dirty, self._quiet = asyncio.Event(), asyncio.Event()
        self._said: Obj | None = None
        self._said_version = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ what its node tells it

    def begin(self) -> None:
        """Start the container (not of a pod that is over or leaving) and the reports."""
        self._task("write", self._write())
        if not self._over and "deletionTimestamp" not in self.pod["metadata"]:
            self._task("live", self._live())
        self.update(self.pod)

    def update(self, pod: Obj) -> None:
        """The object changed: begin or hasten its leave; say again what somebody overwrote (the node controller does on a loss)."""
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            deadline = time.monotonic() + float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
            if "leave" not in self._tasks:
                self._task("leave", self._leave())
        elif self._said is not None and version_of(pod) > self._said_version and self._contradicted(pod):
            self.report_again()

    def look(self) -> None:
        """Follow the component's readiness, and what a kubelet's probes would find of a hung one. Called every 20 ms, so it is cheap."""
        component = self._component
        if component is None or self.container.started_at is None:
            return
        ready = component.ready
        if self._hung or self._deaf_since is not None:
            ready = self._ready_before_hang and not self._given_up("readinessProbe", self._readiness)
            if self._given_up("livenessProbe", self._liveness):
                self._hung.pop("asked", None)
                self._deaf_since = None
                self._task("liveness", self._end_life(component, KILLED, "Liveness probe failed"))
        if ready != self.container.ready:
            self.container = replace(self.container, ready=ready)
            self.report()

    def _given_up(self, name: str, patience_: timedelta | None) -> bool:
        """Whether the kubelet has had no answer to this probe for longer than it bears with. On a lost node no kubelet of ours probes."""
        silent = [self._deaf_since]
        if "tcpSocket" not in (self.main.get(name) or {}):  # such a probe the kernel answers for a stopped process
            silent.append(self._hung.get("asked"))
        longest = max((time.monotonic() - since for since in silent if since is not None), default=0.0)
        return patience_ is not None and longest > patience_.total_seconds()

    def look_again(self) -> None:
        """A Secret or ConfigMap of the namespace changed: a container that waits for it may try again."""
        self._news.set()

    def report(self) -> None:
        """Let the API server know the present state, soon; several calls may become one."""
        self._quiet.clear()
        self._dirty.set()

    def report_again(self) -> None:
        """As `report`, even if it was said before."""
        self._said = None
        self.report()

    async def vanish(self) -> None:
        """The object is gone (the last step of a deletion, or a force delete): whatever still runs is killed at once."""
        self._cancel("live", "leave", "write", "liveness")
        if not self.finished:
            if self._component is not None:
                await self._quietly(self._component.kill())
            self._clean()

    async def shut_down(self) -> None:
        """The hollow process ends: like the power going off, nothing is reported and nothing is removed."""
        self._cancel("live", "leave", "write", "liveness")
        if self._component is not None:
            await self._quietly(self._component.kill())

    # ------------------------------------------------------------ what a test does to it

    async def kill(self, code: int = KILLED, message: str = "") -> None:
        """The container ends at once with this exit code, with no goodbye; the kubelet's rules then restart it. Raises NotRunningError."""
        await self._end_life(self._running(), code, message)

    async def fail(self, reason: str) -> None:
        """The whole pod ends for good in phase Failed, as under node pressure (reason Evicted)."""
        component = self._running()
        self.failed = reason
        await self._end_life(component, KILLED, f"the pod was ended: {reason}")

    async def hang(self, why: str = "asked") -> None:
        """Stop the container's process without ending it (SIGSTOP, or its node is out of reach). Raises NotRunningError."""
        component = self._running()
        if not self._hung:
            if self._deaf_since is None:
                self._ready_before_hang = component.ready
            await _called(component.hang())
        self._hung.setdefault(why, time.monotonic())

    async def resume(self, why: str = "asked") -> None:
        """Take back one `hang`; it goes on when none is left."""
        if self._hung.pop(why, None) is not None and not self._hung and self._component is not None:
            await _called(self._component.resume())

    async def disturb(self, wish: Mapping[str, Any]) -> None:
        """Have the component do something else wrong: see `Disturbance` of the simulator. Raises NotRunningError, ValueError."""
        component = self._running()
        disturb = getattr(component, "disturb", None)
        if disturb is None:
            message = f"a {self.kind} cannot be disturbed, only killed and hung"
            raise ValueError(message)
        if not self._hung and self._deaf_since is None:
            self._ready_before_hang = component.ready
        await disturb(wish)
        if "ports" in wish:
            self._deaf_since = time.monotonic() if wish["ports"] == "half-open" else None

    async def part(self) -> None:
        """Cut the container off from all who call it, while it goes on, and so do its own calls. Raises NotRunningError, ValueError."""
        component = self._running()
        disturb = getattr(component, "disturb", None)
        if disturb is None:
            message = f"a {self.kind} cannot be cut off from its callers"
            raise ValueError(message)
        await disturb({"ports": "parted"})
        self._parted = component

    async def join(self) -> None:
        """End `part`: what was asked meanwhile is answered now, if that life still lasts."""
        parted, self._parted = self._parted, None
        if parted is not None and parted is self._component:
            await parted.disturb({"ports": "open"})  # type: ignore[attr-defined]  # `part` has asked whether it can be

    @property
    def leaving(self) -> bool:
        """Whether its deletion began."""
        return self._deadline is not None

    def describe(self) -> Obj:
        """The pod for a control client: identity, address, state."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "node": self.node.name,
            "ip": self.ip,
            "component": self.kind,
            "state": self.container.describe(),
            "message": self.container.message,
            "ready": self.container.ready,
            "restarts": self.container.restarts,
            "hung": sorted(self._hung),
            "leaving": self.leaving,
            "failed": self.failed,
        }

    # ------------------------------------------------------------ the container's lives

    async def _live(self) -> None:
        if self.kind is None:
            self._become(self.container.running(datetime.now(UTC), ready=True))
            return
        failures = 0
        while True:
            env = await self._configured()
            code = await self._one_life(env)
            now = datetime.now(UTC)
            failures = failures + 1 if self.container.started_at is None else 0
            if self.container.started_at is None:  # it never came up, but a kubelet saw it run for a moment
                self.container = self.container.running(now, ready=False)
            self._become(self.container.terminated(now, code, self._message))
            if self.leaving or self.failed or not restarts_after(code, self._policy):
                return
            # The end must be seen before the next life covers it; but an API server that is away stops nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_TIMEOUT_S):
                    await self._quiet.wait()
            delay = self.around.restart_delay_s
            await asyncio.sleep(min(max(delay, 0.1) * 2**failures, SLOWEST_RETRY_S) if failures else delay)

    async def _configured(self) -> dict[str, str]:
        """The environment of the next life; while its Secrets or ConfigMaps are missing the container waits and says so."""
        waited = False
        while True:
            self._news.clear()
            try:
                return await self._environment()
            except ConfigError as e:
                if waited and (self.container.reason, self.container.message) != ("CreateContainerConfigError", str(e)):
                    self._become(self.container.waiting("CreateContainerConfigError", str(e)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONFIG_RETRY_S if waited else CONFIG_LAG_S):
                    await self._news.wait()
            waited = True

    async def _environment(self) -> dict[str, str]:
        sources = self.around.sources(self.namespace)
        env = environment(self.pod, self.main, ip=self.ip, host_ip=self.node.address, sources=sources)
        folders = [(volume.mount_path, str(await self._place(volume))) for volume in volumes(self.pod, self.main, sources)]
        return relocated(env, folders) | {"WABIZ_LISTEN": self.ip}

    async def _place(self, volume: Volume) -> Path:
        """The real folder of a volume, with its files."""
        folder: Path = self._folder / volume.name
        if volume.kind == "claim":
            try:
                claim = await self.around.kube.get(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{volume.claim}")
            except KubeError as e:
                raise ConfigError(str(e)) from e
            if claim is None:
                message = f'persistentvolumeclaim "{volume.claim}" not found'
                raise ConfigError(message)
            uid: str = claim["metadata"]["uid"]
            folder = self.around.folder / "claims" / uid
        _fill(folder, volume)
        return folder / volume.sub_path if volume.sub_path else folder

    async def _one_life(self, env: Mapping[str, str]) -> int:
        """The exit code of one life from start to end, after which nothing of it is left. A cancelled life is a killed one."""
        end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._end = end
        self._message = ""
        self._hung.clear()
        self._deaf_since = None
        self._settled.clear()
        component: Component | None = None
        noticing: asyncio.Task[None] | None = None
        try:
            assert self.kind is not None  # noqa: S101  # a pod without a component has no such lives
            self._component = component = self.around.make(self.kind, env, self.around.resolve(self.namespace))
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
            result = await component.wait_stopped()
            code = result if isinstance(result, int) else 0
        except Exception as e:
            code, message = 1, f"{type(e).__name__}: {e}"
        if "leave" not in self._tasks and not end.done():
            self._message = message
            end.set_result(code)

    async def _end_life(self, component: Component, code: int, message: str) -> None:
        end = self._end
        self._message = message
        self.around.effects[self.uid].append(Counter({"containers ended": 1}))
        if end is not None and not end.done():
            end.set_result(code)  # before the kill: its own end must not be taken for an exit with another code
        await self._quietly(component.kill())

    def _running(self) -> Component:
        if self._component is None or self.container.started_at is None:
            message = f"pod {self.namespace}/{self.name} runs no container now ({self.container.describe()})"
            raise NotRunningError(message)
        return self._component

    # ------------------------------------------------------------ its deletion

    async def _leave(self) -> None:
        """SIGTERM, grace, SIGKILL, and then the word to the API server that nothing is left."""
        component = self._component
        if component is None:
            self._cancel("live")
        else:
            await self._stopped(component)
        await self._delete()
        self._clean()

    async def _stopped(self, component: Component) -> None:
        stop: asyncio.Task[None] | None = None
        code = KILLED
        while self._end is not None and not self._end.done():
            remaining = self._remaining()
            if remaining <= 0:
                break
            if stop is None and self._settled.is_set() and not self._hung:  # a stopped process gets its SIGTERM when it goes on
                stop = asyncio.create_task(component.stop(remaining), name=f"stop {self.name}")
                self._endings.add(stop)
                stop.add_done_callback(self._endings.discard)
            waited_for: set[asyncio.Future[Any]] = {self._end} | ({stop} if stop else set())
            await asyncio.wait(waited_for, timeout=min(remaining, 0.1), return_when=asyncio.FIRST_COMPLETED)
            if stop is not None and stop.done():
                code = 0 if stop.exception() is None else KILLED
                break
        if stop is None or not stop.done() or stop.exception() is not None:
            await self._quietly(component.kill())
        if stop is not None:
            await self._quietly(_ended(stop))
        if self._end is not None and not self._end.done():
            self._end.set_result(code)

    def _remaining(self) -> float:
        return 0.0 if self._deadline is None else self._deadline - time.monotonic()

    async def _delete(self) -> None:
        pause = 0.05
        while True:
            await self.node.reachable.wait()
            try:
                await self.around.kube.finish_deletion(self._path, self.uid)
            except KubeError as e:
                logger.info("%s; trying again in %.2f s", e, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                return

    def _clean(self) -> None:
        self.finished = True
        self._component = None
        self._cancel("live", "write", "liveness")
        self.around.addresses.give_back(self.ip)
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------ what the API server is told

    def _become(self, container: Any) -> None:
        self.container = container
        self.report()

    def _status(self) -> Obj:
        over = bool(self.failed) or (self.container.ended is not None and not restarts_after(self.container.ended.exit_code, self._policy))
        self._since = transitions(self._since, self.container, datetime.now(UTC), over=over)
        return pod_status(
            self.pod,
            self.container,
            main_name=self.main["name"],
            ip=self.ip,
            host_ip=self.node.address,
            started_at=self._began,
            since=self._since | self._scheduled,
            failed=self.failed,
        )

    async def _write(self) -> None:
        pause = 0.05
        while True:
            if not self._dirty.is_set():
                self._quiet.set()
            await self._dirty.wait()
            await self.node.reachable.wait()
            self._dirty.clear()
            body = self._status()
            if body == self._said:
                continue
            try:
                answer = await self.around.kube.patch(f"{self._path}/status", body)
            except RefusedError as e:
                if e.status == 404 or "metadata.uid" in str(e):  # gone, or a namesake with another uid (422): the watch will say so
                    continue
                logger.warning("%s", e)
            except KubeError as e:
                logger.info("%s; trying again in %.2f s", e, pause)
            else:
                self._said, self._said_version, pause = body, version_of(answer), 0.05
                continue
            self._dirty.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    def _contradicted(self, pod: Obj) -> bool:
        """Whether the API server has another opinion on a condition of ours than what was told last."""
        have = {one["type"]: one["status"] for one in (pod.get("status") or {}).get("conditions") or []}
        return any(have.get(kind) != status for kind, (status, _) in self._since.items())

    # ------------------------------------------------------------ small parts

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"{name} {self.namespace}/{self.name}")
        task.add_done_callback(_complain)
        self._tasks[name] = task

    def _cancel(self, *names: str) -> None:
        for name in names:
            task = self._tasks.get(name)
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """See it through, for a bounded time; what it raises is logged, since an ended component has nothing more to say.

        It is a task of its own: whoever waits here may be cancelled, but a kill that is cut short would leave ports and tasks behind.
        """
        task = asyncio.create_task(work, name=f"end of {self.namespace}/{self.name}")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        task.add_done_callback(_complain)
        done, _ = await asyncio.wait({task}, timeout=KILL_TIMEOUT_S)
        if not done:
            logger.warning("pod %s/%s: %s did not end within %.0f s", self.namespace, self.name, self.kind, KILL_TIMEOUT_S)


async def _called(result: object) -> None:
    if inspect.isawaitable(result):
        await result


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("hollow: task %s failed", task.get_name(), exc_info=error)


def _fill(folder: Path, volume: Volume) -> None:
    (folder / volume.sub_path).mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in volume.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = file.with_name(f".{file.name}.partial")
        partial.touch(mode=0o600)
        partial.write_bytes(content)
        partial.replace(file)
