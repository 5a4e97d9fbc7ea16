"""Hollow nodes: a cluster without kubelets. One process registers nodes and runs the simulator for their pods on loopback addresses.

`python -m localkube.hollow --kubeconfig PATH --nodes N --folder DIR` runs until SIGTERM and writes DIR/hollow.json when it is ready.
The map: `nodes` nodes and Leases; `pods` one pod; `components` what runs in it; `spec` what a pod asks for; `status` what is reported;
`kube` the API server; `addresses` loopback addresses; `claims` volumes; `control` faults; here they meet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from localkube.errors import LocalKubeError
from localkube.hollow.addresses import AddressError, Addresses
from localkube.hollow.claims import HollowClaims
from localkube.hollow.components import Component, Make, Resolve
from localkube.hollow.control import ADDRESS_FILE, application
from localkube.hollow.kube import Kube, KubeError, Mirror
from localkube.hollow.nodes import RENEW_S, HollowNode
from localkube.hollow.pods import RESTART_S, HollowPod, Surroundings
from localkube.hollow.spec import (
    Backend,
    ConfigError,
    Data,
    Sources,
    backends,
    config_map_data,
    is_address,
    named_ports,
    secret_data,
    selects,
    service_name,
    target_port,
)
from localkube.hollow.status import is_barred, is_ready
from localkube.plane import kubeconfig

logger = logging.getLogger("localkube.hollow")

Obj = dict[str, Any]
LOOK_S = 0.02
READY_TIMEOUT_S = 60.0
SCHEDULABLE_TIMEOUT_S = 10.0
ZONES = 3


def stand_in(kind: str, env: Mapping[str, str], resolve: Resolve) -> Component:
    """A part of the real simulator: `coreapp`, `webapp` or `upstream`, set up by its environment. Raises ValueError for bad settings."""
    from wabiz_sim.settings import Settings  # noqa: PLC0415  # only a process that runs the simulator needs it installed

    settings = Settings.from_env(env)
    if kind == "coreapp":
        from wabiz_sim.coreapp import Coreapp  # noqa: PLC0415

        return cast("Component", Coreapp(settings, resolve=resolve))
    if kind == "webapp":
        from wabiz_sim.webapp import Webapp  # noqa: PLC0415

        return cast("Component", Webapp(settings, resolve=resolve))
    from wabiz_sim.upstream import Upstream  # noqa: PLC0415

    return cast("Component", Upstream(settings))


class Hollow:
    """The hollow nodes of one process and all that runs on them. `running` starts and ends one."""

    def __init__(self, around: Surroundings, nodes: Sequence[HollowNode]) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.pods: dict[str, HollowPod] = {}
        self.ambiguous: Counter[str] = Counter()
        self._in_namespace: dict[str, dict[str, Obj]] = {}
        self._around = replace(around, resolve=self._resolver, sources=self._sources)
        kube = around.kube
        self._services = Mirror(kube, "/api/v1/services", _ignore)
        self._secrets = Mirror(kube, "/api/v1/secrets", self._config_changed)
        self._config_maps = Mirror(kube, "/api/v1/configmaps", self._config_changed)
        self._nodes = Mirror(kube, "/api/v1/nodes", self._node_changed)
        self._claims = HollowClaims(kube, around.folder / "claims", self._spawn)
        self._pods = Mirror(kube, "/api/v1/pods", self._pod_changed, selector="spec.nodeName!=")  # the empty value: only bound pods
        self._barred = set(self.nodes)
        self._open = asyncio.Event()
        """Set as soon as the scheduler may use all nodes."""
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Register the nodes and follow their pods; returns when everything that exists is known. Raises KubeError."""
        await asyncio.gather(*(node.register() for node in self.nodes.values()))
        mirrors = [self._services, self._secrets, self._config_maps, self._nodes, self._claims.mirror]
        for mirror in mirrors:
            self._spawn(mirror.run())
        await asyncio.gather(*(mirror.synced.wait() for mirror in mirrors))
        self._spawn(self._pods.run())  # last: a pod that starts looks for its Secrets and Services
        await self._pods.synced.wait()
        _remove_leftovers(self._around.folder / "pods", set(self.pods))
        for node in self.nodes.values():
            self._spawn(node.keep())
        self._spawn(self._look())
        await self._schedulable()

    async def _schedulable(self) -> None:
        """Wait until the scheduler may use the nodes, lest it put all pods on the first; without a controller manager, go on."""
        try:
            async with asyncio.timeout(SCHEDULABLE_TIMEOUT_S):
                await self._open.wait()
        except TimeoutError:
            logger.warning("the nodes still carry taints after %.0f s: does a controller manager run?", SCHEDULABLE_TIMEOUT_S)

    async def stop(self) -> None:
        """Everything ends at once, as if the power went off. Nodes and pods stay in the API."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pod.shut_down() for pod in self.pods.values()))

    async def _look(self) -> None:
        while True:
            for pod in list(self.pods.values()):
                pod.look()
            await asyncio.sleep(LOOK_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("hollow: a part of the process failed", exc_info=error)

    # ------------------------------------------------------------ what the API server says

    def _pod_changed(self, event: str, pod: Obj) -> None:
        meta = pod["metadata"]
        here = self._in_namespace.setdefault(meta["namespace"], {})
        if event != "DELETED":
            here[meta["name"]] = pod
        elif here.get(meta["name"], pod)["metadata"]["uid"] == meta["uid"]:
            here.pop(meta["name"], None)
        node = self.nodes.get(pod["spec"].get("nodeName", ""))
        if node is not None and not node.lost:  # what happens meanwhile is made up for when the node is back
            self._settle(event, pod, node)

    def _settle(self, event: str, pod: Obj, node: HollowNode) -> None:
        """Make what runs agree with one pod object."""
        uid = pod["metadata"]["uid"]
        known = self.pods.get(uid)
        if event == "DELETED":
            if known is not None:
                del self.pods[uid]
                self._spawn(known.vanish())
        elif known is not None:
            if not known.finished:
                known.update(pod)
        else:
            self.pods[uid] = started = HollowPod(pod, node, self._around)
            started.begin()

    def _config_changed(self, _: str, obj: Obj) -> None:
        for pod in self.pods.values():
            if pod.namespace == obj["metadata"]["namespace"]:
                pod.look_again()

    def _node_changed(self, event: str, obj: Obj) -> None:
        node = self.nodes.get(obj["metadata"]["name"])
        if node is None or event == "DELETED":
            return
        node.judged(obj)
        self._barred.discard(node.name)
        if is_barred(obj):
            self._barred.add(node.name)
        if not self._barred:
            self._open.set()

    def _sources(self, namespace: str) -> Sources:
        def read(mirror: Mirror, decode: Callable[[Obj], dict[str, bytes]]) -> Callable[[str], Data | None]:
            def data(name: str) -> Data | None:
                found = mirror.items.get((namespace, name))
                try:
                    return None if found is None else decode(found)
                except ValueError as e:
                    message = f"{name} cannot be decoded: {e}"
                    raise ConfigError(message) from e

            return data

        return Sources(secret=read(self._secrets, secret_data), config_map=read(self._config_maps, config_map_data))

    # ------------------------------------------------------------ Services

    def _resolver(self, namespace: str) -> Resolve:
        async def resolve(service: str, port: int) -> tuple[str, int]:
            return await self.resolve(namespace, service, port)

        return resolve

    async def resolve(self, namespace: str, service: str, port: int) -> tuple[str, int]:
        """(ip, port) behind a Service, asked from a namespace, as its endpoints are at this moment. Raises LookupError when there is none.

        EndpointSlices refuse loopback addresses, so the selector is applied here. Of several pods the first by name is taken, and counted.
        """
        if is_address(service):
            return service, port
        where, name = service_name(service, namespace)
        found = self._services.items.get((where, name))
        if found is None:
            message = f"there is no service {where}/{name}"
            raise LookupError(message)
        selector = found["spec"].get("selector")
        matching = [pod for pod in self._in_namespace.get(where, {}).values() if selects(selector, pod["metadata"].get("labels"))]
        chosen = backends(found, (backend for pod in matching if (backend := self._backend(pod)) is not None))
        if not chosen:
            message = f"service {where}/{name} has no endpoint"
            raise LookupError(message)
        if len(chosen) > 1:
            self.ambiguous[f"{where}/{name}"] += 1
        return chosen[0].ip, target_port(found, port, chosen[0])

    def _backend(self, pod: Obj) -> Backend | None:
        """The pod as a Service sees it: by what its node reports or, when that is lost, by what the API server thinks."""
        meta, status = pod["metadata"], pod.get("status") or {}
        own = self.pods.get(meta["uid"])
        if status.get("phase") in {"Failed", "Succeeded"}:
            return None
        told = own is not None and not own.node.lost
        return Backend(
            name=meta["name"],
            ip=own.ip if own is not None else status.get("podIP", ""),
            labels=meta.get("labels") or {},
            ready=own.container.ready if own is not None and told else is_ready(pod),
            leaving="deletionTimestamp" in meta,
            ports=named_ports(pod),
        )

    # ------------------------------------------------------------ on command

    def pod(self, namespace: str, name: str, uid: str | None = None) -> HollowPod:
        """The pod of this name (and uid) that this process runs. Raises LookupError."""
        for pod in self.pods.values():
            if (pod.namespace, pod.name) == (namespace, name) and uid in {None, pod.uid} and not pod.finished:
                return pod
        message = f"no hollow node runs a pod {namespace}/{name}{f' with uid {uid}' if uid else ''}"
        raise LookupError(message)

    def _node(self, name: str) -> HollowNode:
        if name not in self.nodes:
            message = f"there is no hollow node {name}; there are {', '.join(sorted(self.nodes))}"
            raise LookupError(message)
        return self.nodes[name]

    async def lose(self, name: str, *, running: bool = False) -> None:
        """Cut a node off: nothing of it is renewed, reported or carried out, and its containers answer nobody.

        Its processes are stopped, which is as if the node had lost all of its network. With ``running`` its Coreapps go on instead: nobody
        reaches them but a test that calls from `wabiz_sim.disturbance.NEAR`, and they reach whom they call, which is the WhatsApp servers
        and the webhook. All else there is stopped.
        """
        node = self._node(name)
        node.lose()
        for pod in list(self.pods.values()):
            if pod.node is node:
                with contextlib.suppress(Exception):  # one without a running container has nothing to freeze
                    await (pod.part() if running and pod.kind == "coreapp" else pod.hang("lost"))

    async def bring_back(self, name: str, *, rebooted: bool = False) -> None:
        """End a loss: containers of pods that are still wanted go on (or start anew after a reboot), the others end; all is reported."""
        node = self._node(name)
        if not node.lost:
            return
        self._end_unbound(node)  # before they can answer anybody again
        for pod in [pod for pod in self.pods.values() if pod.node is node]:
            if rebooted:
                with contextlib.suppress(Exception):
                    await pod.kill(message="the node was rebooted")
            else:
                await pod.join()
                await pod.resume("lost")
        await node.come_back()
        self._end_unbound(node)
        for uid, obj in self._bound(name).items():
            self._settle("MODIFIED", obj, node)
            if uid in self.pods:
                self.pods[uid].report_again()

    def _bound(self, name: str) -> dict[str, Obj]:
        """By uid: what is bound to a node now. To be asked anew after every wait: a pod that is gone by then would be revived."""
        return {obj["metadata"]["uid"]: obj for obj in self._pods.items.values() if obj["spec"].get("nodeName") == name}

    def _end_unbound(self, node: HollowNode) -> None:
        bound = self._bound(node.name)
        for pod in [pod for pod in self.pods.values() if pod.node is node and pod.uid not in bound]:
            self._settle("DELETED", pod.pod, node)

    def describe(self) -> Obj:
        """All there is, for a control client."""
        pods = sorted((pod.describe() for pod in self.pods.values() if not pod.finished), key=lambda pod: (pod["namespace"], pod["name"]))
        nodes = [{"name": node.name, "address": node.address, "zone": node.zone, "lost": node.lost} for node in self.nodes.values()]
        loop = asyncio.get_running_loop()
        behind = max(loop.time() - mirror.heard for mirror in (self._pods, self._services))
        effects = {uid: dict(sum(lives, Counter())) for uid, lives in self._around.effects.items()}
        return {"pods": pods, "nodes": nodes, "ambiguous": dict(self.ambiguous), "behind_s": round(behind, 1), "effects": effects}


@contextlib.asynccontextmanager
async def running(
    access: kubeconfig.Access,
    folder: Path,
    *,
    nodes: int = 3,
    prefix: str = "hollow",
    restart_delay_s: float = RESTART_S,
    renew_s: float = RENEW_S,
    pod_range: str | None = None,
    make: Make = stand_in,
) -> AsyncGenerator[Hollow, None]:
    """Hollow nodes `<prefix>-0` … in this process, from ready to the end of the block.

    `folder` holds the pods' volumes and decides the address range, so that a restart finds its own. Raises KubeError, AddressError.
    """
    addresses = Addresses(_seed(folder), pod_range)
    try:
        async with Kube(access) as kube:
            around = Surroundings(kube=kube, addresses=addresses, folder=folder, restart_delay_s=restart_delay_s, make=make)
            members = [HollowNode(kube, f"{prefix}-{i}", addresses.node(i), f"zone-{'abc'[i % ZONES]}", renew_s) for i in range(nodes)]
            hollow = Hollow(around, members)
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await hollow.start()
                yield hollow
            finally:
                await hollow.stop()
    finally:
        addresses.close()


@contextlib.asynccontextmanager
async def controlled(hollow: Hollow, port: int = 0) -> AsyncGenerator[str, None]:
    """The control endpoint of a hollow process on loopback, as its URL; port 0 takes a free one."""
    runner = web.AppRunner(application(hollow), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _ignore(_: str, __: Obj) -> None:
    """Services are looked up when somebody asks."""


def _remove_leftovers(folder: Path, uids: set[str]) -> None:
    """Volumes of pods that went while no process was there to see it."""
    if folder.is_dir():
        for left in folder.iterdir():
            if left.name not in uids:
                shutil.rmtree(left, ignore_errors=True)


async def _serve(options: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    access = kubeconfig.read(options.kubeconfig)
    nodes = running(
        access,
        options.folder,
        nodes=options.nodes,
        prefix=options.node_prefix,
        restart_delay_s=options.restart_delay,
        renew_s=options.renew,
        pod_range=options.pod_range,
    )
    file: Path = options.folder / ADDRESS_FILE
    try:
        async with nodes as hollow, controlled(hollow, options.control_port) as url:
            _write(file, {"control": url, "pid": os.getpid(), "nodes": sorted(hollow.nodes)})
            print(f"{len(hollow.nodes)} hollow nodes are ready; faults on command at {url}", flush=True)
            await stopped.wait()
    finally:
        _remove(file)


def _seed(folder: Path) -> str:
    return str(folder.resolve())


def _write(file: Path, content: Obj) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(file)


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)


def _locked(folder: Path) -> int:
    """A file descriptor that keeps the folder ours. Raises LocalKubeError when another process has it, or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "hollow.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as e:
        message = f"folder {folder} cannot be used ({e.strerror}): give another with --folder"
        raise LocalKubeError(message) from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(lock)
        message = f"other hollow nodes run in {folder}: stop them or give another folder with --folder"
        raise LocalKubeError(message) from e
    return lock


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 after SIGTERM, 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m localkube.hollow", description="Hollow nodes for a control plane without kubelets.")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="how to reach the API server, as an administrator")
    parser.add_argument("--nodes", type=int, default=3, help="how many nodes (default 3)")
    parser.add_argument("--folder", type=Path, required=True, help="for volumes, and for hollow.json when ready")
    parser.add_argument("--control-port", type=int, default=0, help="loopback port for faults on command (default: a free one)")
    parser.add_argument(
        "--restart-delay", type=float, default=RESTART_S, help=f"seconds from a container's end to its restart (default {RESTART_S:g})"
    )
    parser.add_argument("--renew", type=float, default=RENEW_S, help=f"seconds between renewals of a node's Lease (default {RENEW_S:.0f})")
    parser.add_argument("--node-prefix", default="hollow", help="nodes are called PREFIX-0 … (default hollow)")
    parser.add_argument("--pod-range", help="addresses of the pods, e.g. 127.72.0.0/18 (default: one that is free)")
    parser.add_argument("--verbose", action="store_true", help="log what is retried")
    options = parser.parse_args(arguments)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        lock = _locked(options.folder)
        try:
            asyncio.run(_serve(options))
        finally:
            os.close(lock)
    except TimeoutError:
        print(f"hollow nodes: the API server at hand did not answer in full within {READY_TIMEOUT_S:.0f} s", file=sys.stderr)
        return 1
    except (LocalKubeError, KubeError, AddressError, OSError) as e:
        print(f"hollow nodes: {e}", file=sys.stderr)
        return 1
    return 0
