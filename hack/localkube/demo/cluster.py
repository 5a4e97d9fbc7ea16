"""One WhatsAppCluster as demo and bench handle it: asked for things, looked at from outside, its pods killed, its messages counted."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from localkube.demo.stage import Stage
from localkube.errors import LocalKubeError
from localkube.hollow.control import HollowControl
from localkube.hollow.kube import Kube, KubeError, Mirror
from localkube.plane import kubeconfig
from outside.ledger import GatewayLog, Ledger, Senders, settle
from outside.observer import Commit, Observer

T = TypeVar("T")
Obj = dict[str, Any]

NAMESPACE, NAME = "default", "acme"
GROUP = "/apis/multiconnect.dev/v1alpha1"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/whatsapp-operator-system/leases"
LEASE = "whatsapp-operator"
ROLE = "multiconnect.dev/role"
SWITCHOVER = "multiconnect.dev/switchover"
POLL_S = 0.01
CALL_S = 5.0


class Api(Kube):
    """The API server as an administrator, with the calls that hollow nodes do not need."""

    async def replace(self, path: str, body: Obj) -> Obj:
        """Put an object in the place of the one at a path, as ``kubectl replace`` does. Raises KubeError."""
        return await self._call("PUT", path, body)

    async def delete(self, path: str, *, grace: int | None = None) -> None:
        """Delete the object at a path as ``kubectl delete`` does, with its own grace or so many seconds. Raises KubeError."""
        options = {} if grace is None else {"gracePeriodSeconds": grace}
        await self._call("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})


@dataclass(frozen=True)
class Holder:
    """The pod that serves a shard."""

    shard: int
    pod: str
    uid: str


@dataclass(frozen=True)
class LeaseChange:
    """The operators' Lease was seen to be held by somebody else (empty: nobody) than before."""

    holder: str
    monotonic: float


class Cluster:
    """The cluster of ``examples/cluster.yaml`` on a stage. Use as an async context manager."""

    def __init__(self, stage: Stage) -> None:
        """Prepare; the stage must be up."""
        self.stage = stage
        self.observer = Observer(stage.plane.admin_kubeconfig, ask_client=True)
        self.control = HollowControl.of(stage.folder / "hollow")
        self.api = Api(kubeconfig.read(stage.plane.admin_kubeconfig))
        self.senders = Senders()
        """Of all messages that were sent to measure something."""
        self.log = GatewayLog(self.upstream)
        self._session: aiohttp.ClientSession | None = None
        self._leases: list[LeaseChange] = []
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.observer.__enter__)
        await self.control.__aenter__()
        await self.api.__aenter__()
        self._watching = asyncio.create_task(Mirror(self.api, LEASES, self._lease_changed).run())
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        if self._session is not None:
            await self._session.close()
        await self.api.__aexit__()
        await self.control.__aexit__()
        await asyncio.to_thread(self.observer.__exit__, KeyboardInterrupt)  # whether it saw all is asked of it before

    # ---- what is asked for

    async def apply(self, manifest: Path) -> None:
        """``kubectl apply -f``. LocalKubeError with what kubectl said."""
        await asyncio.to_thread(self.stage.plane.kubectl, "apply", "-n", NAMESPACE, "-f", str(manifest))

    async def set_shards(self, shards: int) -> None:
        """Change ``spec.shards``."""
        await self._patch({"spec": {"shards": shards}})

    async def switch_over(self, shard: int) -> None:
        """Wish that a shard moves to a spare, by the annotation that users write."""
        await self._patch({"metadata": {"annotations": {SWITCHOVER: str(shard)}}})

    async def _patch(self, body: Obj) -> None:
        await self.api.patch(f"{GROUP}/namespaces/{NAMESPACE}/whatsappclusters/{NAME}", body, kind="merge-patch+json")

    async def delete_pod(self, pod: str) -> None:
        """Delete a pod as ``kubectl delete pod`` does; returns when the API server took it."""
        await self.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")

    # ---- what is seen

    def status(self) -> Obj:
        """The cluster's status as last seen; empty before the first."""
        obj = self.observer.find("WhatsAppCluster", NAMESPACE, NAME) or {}
        return obj.get("status") or {}

    def settled(self) -> bool:
        """Whether the cluster is as wanted: all shards served, all spares ready, nobody leaves, and the operator has nothing to do."""
        return is_settled(self.observer, NAMESPACE, NAME)

    def coreapps(self) -> list[Obj]:
        """The Coreapps' pods as last seen."""
        return coreapps_of(self.observer, NAMESPACE, NAME)

    def holder(self, shard: int) -> Holder:
        """Who serves a shard now. LocalKubeError if nobody does."""
        name = self.observer.holders(NAMESPACE, NAME).get(shard)
        pod = self.observer.find("Pod", NAMESPACE, name) if name else None
        if pod is None:
            msg = f"nobody serves shard {shard}. {self.observer.summary()}"
            raise LocalKubeError(msg)
        return Holder(shard, pod["metadata"]["name"], pod["metadata"]["uid"])

    def commit_after(self, monotonic: float, shard: int, *, not_to: str = "") -> Commit | None:
        """The first handover of a shard that was seen after this time, to another pod than the one with uid ``not_to``."""
        fits = (one for one in self.observer.commits if one.monotonic > monotonic and one.shard == shard and one.holder_uid != not_to)
        return next(fits, None)

    async def seen(self, look: Callable[[], T | None], timeout: float, what: str) -> T:
        """What ``look`` says as soon as that is true. LocalKubeError after ``timeout`` seconds or when a process of the stage died."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            if time.monotonic() > deadline:
                fault = self.stage.fault()
                msg = f"{what} did not come true within {timeout:g} s. {fault or self.observer.summary()}"
                raise LocalKubeError(msg)
            await asyncio.sleep(POLL_S)
        return found

    async def settle(self, timeout: float = 90.0) -> None:
        """Wait until the cluster is as wanted."""
        await self.seen(self.settled, timeout, f"{NAMESPACE}/{NAME} as wanted, with all its spares,")

    def leader(self) -> str | None:
        """Name of the operator that leads, if its process runs."""
        name = self._leases[-1].holder if self._leases else ""
        process = self.stage.operators().get(name)
        return name if process is not None and process.alive() else None

    def lease_after(self, monotonic: float, *, not_to: str) -> LeaseChange | None:
        """When an operator of another name was first seen to hold the Lease after this time."""
        return next((one for one in self._leases if one.monotonic > monotonic and one.holder not in {"", not_to}), None)

    def _lease_changed(self, kind: str, lease: Obj) -> None:
        if kind != "DELETED" and lease["metadata"]["name"] == LEASE:
            holder = str(lease["spec"].get("holderIdentity") or "").rpartition("_")[0]
            if not self._leases or self._leases[-1].holder != holder:
                self._leases.append(LeaseChange(holder, time.monotonic()))

    # ---- the simulator

    async def webapp(self) -> tuple[str, ssl.SSLContext, str]:
        """URL of a Webapp, how to trust it, and a fresh token. LocalKubeError when it does not let us in."""
        admin = await self._secret(f"{NAME}-admin")
        context = ssl.create_default_context(cadata=(await self._secret(f"{NAME}-webapp-tls"))["ca.crt"])
        ip, port = await self.control.resolve(NAMESPACE, f"{NAME}-webapp", 443)
        url = f"https://{ip}:{port}"
        auth = aiohttp.encode_basic_auth(admin["username"], admin["password"])
        host = f"{NAME}-webapp.{NAMESPACE}.svc"
        answer = await self._call("POST", f"{url}/v1/users/login", headers={"Authorization": auth}, ssl=context, server_hostname=host)
        return url, context, str(answer["users"][0]["token"])

    async def upstream(self, path: str, body: Obj | None = None) -> Obj:
        """What the simulator's WhatsApp servers answer under ``/control``."""
        ip, port = await self.control.resolve(NAMESPACE, f"{NAME}-simulator", 8080)
        return await self._call("GET" if body is None else "POST", f"http://{ip}:{port}/control/{path}", json=body)

    async def ledger(self) -> Ledger:
        """What became of every message that was sent to measure something. LedgerError when that does not add up."""
        await self.log.read()
        return settle([self.senders], self.log, {})

    async def _secret(self, name: str) -> dict[str, str]:
        secret = await self.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
        if secret is None:
            msg = f"there is no Secret {NAMESPACE}/{name}: the operator has not made it yet"
            raise LocalKubeError(msg)
        return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}

    async def _call(self, method: str, url: str, **options: Any) -> Obj:
        if self._session is None:
            msg = "Cluster is used outside of its 'async with' block"
            raise LocalKubeError(msg)
        try:
            async with self._session.request(method, url, **options) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            msg = f"the simulator does not answer {method} {url}: {type(error).__name__} {error}"
            raise LocalKubeError(msg) from error
        if response.status >= 400 or not isinstance(answer, dict):
            msg = f"the simulator refuses {method} {url}: {response.status} {str(answer)[:200]}"
            raise LocalKubeError(msg)
        return answer


def is_settled(observer: Observer, namespace: str, name: str) -> bool:
    """Whether a cluster is as wanted: all shards served, all spares ready, nobody leaves, and the operator has nothing to do."""
    obj = observer.find("WhatsAppCluster", namespace, name)
    if obj is None:
        return False
    spec, status = obj["spec"], obj.get("status") or {}
    conditions = {one["type"]: (one["status"], one.get("reason")) for one in status.get("conditions") or ()}
    coreapps = coreapps_of(observer, namespace, name)
    shards, spares = spec["shards"], spec["spares"]
    holders = observer.holders(namespace, name)
    reported = {one["shard"]: one.get("holder") for one in status.get("shardMap") or ()}
    return (
        status.get("observedGeneration") == obj["metadata"]["generation"]
        and conditions.get("Ready", ("", ""))[0] == "True"
        and conditions.get("Reconciling", ("", ""))[0] == "False"
        and status.get("shards") == shards
        and status.get("failuresTolerated") == spares
        and SWITCHOVER not in (obj["metadata"].get("annotations") or {})
        and len(coreapps) == shards + spares
        and all(_is_ready(pod) for pod in coreapps)
        and len(holders) == shards
        and reported == holders
        and {_label(pod, ROLE) for pod in coreapps if pod["metadata"]["name"] not in holders.values()} <= {"standby"}
    )


def coreapps_of(observer: Observer, namespace: str, name: str) -> list[Obj]:
    """The pods of a cluster's Coreapps as last seen."""
    wanted = {"app.kubernetes.io/component": "coreapp", "multiconnect.dev/cluster": name}
    return [pod for pod in observer.objects("Pod", namespace) if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


def sentence(error: BaseException) -> str:
    """An error that a person reads, without a traceback."""
    return str(error) if isinstance(error, (LocalKubeError, KubeError)) else f"{type(error).__name__}: {error}"


def _label(pod: Obj, name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def _is_ready(pod: Obj) -> bool:
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in (pod.get("status") or {}).get("conditions") or ())
