"""Volumes for PersistentVolumeClaims: without a provisioner claims stay Pending and their pods unscheduled, so folders are offered."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from localkube import Obj
from localkube.hollow.kube import Kube, KubeError, Mirror, RefusedError

logger = logging.getLogger("localkube.hollow")

_VOLUMES = "/api/v1/persistentvolumes"


class HollowClaims:
    """Gives every claim that names no storage class a volume that is a folder, and removes it when the claim is deleted.

    A claim that names a class stays Pending, as it would in a cluster that does not have that class.
    """

    def __init__(self, kube: Kube, folder: Path, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.mirror = Mirror(kube, "/api/v1/persistentvolumeclaims", self._changed)
        self._kube, self._folder, self._spawn = kube, folder, spawn

    def _changed(self, event: str, claim: Obj) -> None:
        if event == "DELETED":
            self._spawn(self._until_done(self._remove, claim))
        elif unbound(claim):
            self._spawn(self._until_done(self._offer, claim))

    async def _offer(self, claim: Obj) -> None:
        """Create a volume that is bound to this very claim."""
        meta, spec = claim["metadata"], claim["spec"]
        owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"} | {key: meta[key] for key in ("namespace", "name", "uid")}
        volume = {
            "metadata": {"name": f"hollow-{meta['uid']}"},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "claimRef": owner,
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "hostPath": {"path": str(self._folder / meta["uid"])},
            },
        }
        await self._kube.post(_VOLUMES, volume)

    async def _remove(self, claim: Obj) -> None:
        uid = claim["metadata"]["uid"]
        await self._kube.finish_deletion(f"{_VOLUMES}/hollow-{uid}")
        shutil.rmtree(self._folder / uid, ignore_errors=True)

    async def _until_done(self, work: Callable[[Obj], Coroutine[Any, Any, None]], claim: Obj) -> None:
        """Retry while the API server is down, so that no claim is left without its volume; a rejection is final."""
        while True:
            try:
                return await work(claim)
            except KubeError as e:
                if isinstance(e, RefusedError) and e.reason == "AlreadyExists":
                    return None
                logger.warning("%s", e)
                if isinstance(e, RefusedError) and e.status < 500 and e.status != 429:
                    return None
            await asyncio.sleep(1.0)


def unbound(claim: Obj) -> bool:
    """Whether a claim waits for a volume that nothing else would provide."""
    spec = claim["spec"]
    return "deletionTimestamp" not in claim["metadata"] and not spec.get("volumeName") and not spec.get("storageClassName")
