"""One hollow node: its Node object, its Lease, its heartbeat, and whether it is lost. It does not handle pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from datetime import UTC, datetime

from localkube import Obj
from localkube.hollow.kube import MERGE, Kube, KubeError, RefusedError
from localkube.hollow.status import is_ready, micro_stamp, node_object, node_status

logger = logging.getLogger("localkube.hollow")


LEASE_S = 40
RENEW_S = 10.0
STATUS_S = 300.0
"""As the kubelet's nodeStatusReportFrequency; a status goes out at once when the API server thinks the node is not ready."""
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class HollowNode:
    """A node that counts as present as long as its Lease is renewed."""

    def __init__(self, kube: Kube, name: str, address: str, zone: str, renew_s: float = RENEW_S) -> None:
        self.name, self.address, self.zone = name, address, zone
        self._kube, self._renew_s = kube, renew_s
        self.reachable = asyncio.Event()
        """Clear while the node is lost: nothing of it may speak to the API server."""
        self.reachable.set()
        self._uid = ""
        self._since = datetime.now(UTC)
        self._reported = 0.0
        self._poked = asyncio.Event()

    @property
    def lost(self) -> bool:
        """Whether the node is out of reach."""
        return not self.reachable.is_set()

    async def register(self) -> None:
        """Create the Node unless it is there, report it ready and take its Lease. Raises KubeError."""
        try:
            found = await self._kube.post("/api/v1/nodes", node_object(self.name, zone=self.zone))
        except RefusedError as e:
            if e.reason != "AlreadyExists":
                raise
            found = await self._kube.get(f"/api/v1/nodes/{self.name}") or {}
        self._uid = (found.get("metadata") or {}).get("uid", "")
        await self._renew()
        await self._report()

    async def come_back(self) -> None:
        """Renew and report again, at once; a Node object that was deleted is created again. The heartbeat retries what fails here."""
        self._since = datetime.now(UTC)
        self.reachable.set()
        try:
            await self.register()
        except KubeError as e:
            logger.info("%s", e)
            self._poked.set()

    def judged(self, node: Obj) -> None:
        """What the API server holds of this node: if it is not ready there, report at once that it is (a Lease alone does not)."""
        if not self.lost and not is_ready(node):
            self._poked.set()

    async def keep(self) -> None:
        """The heartbeat, until cancelled."""
        pause = random.uniform(0, self._renew_s)  # noqa: S311  # many nodes must not renew in one instant
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), pause)
            await self.reachable.wait()
            poked, pause = self._poked.is_set(), self._renew_s
            self._poked.clear()
            try:
                await self._renew()
                if poked:
                    await asyncio.sleep(0.1)  # a lasting disagreement must not cause continuous writes
                if poked or asyncio.get_running_loop().time() - self._reported > STATUS_S:
                    await self._report()
            except KubeError as e:
                logger.info("%s", e)
                self._poked.set()  # while the API server was down, the node may have been given up
                await asyncio.sleep(0.5)

    async def _renew(self) -> None:
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": LEASE_S, "renewTime": micro_stamp(datetime.now(UTC))}
        try:
            await self._kube.patch(f"{_LEASES}/{self.name}", {"spec": spec}, kind=MERGE)
        except RefusedError as e:
            if e.status != 404:
                raise
            owner = {"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": self._uid}
            meta = {"name": self.name, "namespace": "kube-node-lease"} | ({"ownerReferences": [owner]} if self._uid else {})
            await self._kube.post(_LEASES, {"metadata": meta, "spec": spec})

    async def _report(self) -> None:
        body = node_status(self.name, address=self.address, since=self._since, now=datetime.now(UTC))
        try:
            await self._kube.patch(f"/api/v1/nodes/{self.name}/status", body)
        except RefusedError as e:
            if e.status != 404:  # the Node was deleted: as a kubelet, do not bring it back until it is started again
                raise
        self._reported = asyncio.get_running_loop().time()
