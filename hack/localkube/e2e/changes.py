"""Changes that are no faults: create, grow, shrink, upgrade, uninstall. Each function makes one and notes what a user has of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from localkube.chaos.scene import Scene
from localkube.demo.cluster import NAMESPACE
from localkube.e2e.install import Installation
from localkube.e2e.stage import CLUSTER, SHARDS, KindStage
from localkube.errors import LocalKubeError

Kind = Scene[KindStage]
Deed = Callable[[Kind], Awaitable[None]]

RESIZE_S = 120.0
ROLL_OUT_S = 180.0
GONE_S = 120.0
ALONE_S = 10.0
"""So long the pods are looked at after the operator is gone."""
SECOND = "second"
NEXT_TAG = "e2e-next"
"""One more tag of the same image, so that an upgrade has something to roll out."""


class Changes:
    """Deeds that need an installation."""

    def __init__(self, installation: Installation, images: tuple[str, ...]) -> None:
        """``images``: the operator's and the simulator's, which an upgrade names by another tag, as containerd knows them."""
        self._on = installation
        self._images = images
        self._turn = 0
        self._is_rolled = False

    async def create(self, scene: Kind) -> None:
        """`kubectl apply` of a second cluster; told is the time from it to Ready."""
        scene.told.append(await self._on.create(SECOND))

    async def remove(self, scene: Kind) -> None:
        """`kubectl delete` of the second cluster, until the last pod of it is gone."""
        await self._on.kubectl("delete", "wac", SECOND, "--ignore-not-found", timeout=GONE_S)
        await self._until_removed(scene)

    async def install_cluster(self, scene: Kind) -> None:
        """`helm install` of the chart of a cluster; told is the time until its own test has sent a message."""
        scene.told.append(await self._on.install_cluster(SECOND))

    async def uninstall_cluster(self, scene: Kind) -> None:
        """`helm uninstall`, until the last pod of it is gone."""
        await self._on.uninstall_cluster(SECOND)
        await self._until_removed(scene)

    async def _until_removed(self, scene: Kind) -> None:
        await scene.stage.seen(lambda: not self._pods(scene, SECOND), GONE_S, f"the end of {SECOND}'s pods")

    async def upgrade_operator(self, scene: Kind) -> None:
        """`helm upgrade` to another tag of the operator's image; told is how long it took."""
        await scene.stage.nodes.tag(*(f"docker.io/{self._images[0]}:{tag}" for tag in (self._on.tag, NEXT_TAG)))
        self._turn += 1
        tag = NEXT_TAG if self._turn % 2 else self._on.tag
        image = {**self._on.values()["image"], "tag": tag}
        scene.told.append(await self._on.install({"image": image}))

    async def upgrade_chart(self, scene: Kind) -> None:
        """`helm upgrade` to other values of every kind: log level, Lease, metrics, spread; told is how long it took."""
        self._turn += 1
        values: Mapping[str, Any] = {
            "logLevel": "DEBUG" if self._turn % 2 else "INFO",
            "podAnnotations": {"multiconnect.dev/e2e": str(self._turn)},
            "metrics": {"port": 8081 if self._turn % 2 else 8080},
            "podLabels": {"turn": str(self._turn)},
        }
        scene.told.append(await self._on.install(values))

    async def change_images(self, scene: Kind) -> None:
        """Another tag of the client's images, by `client.images`; told is how long it took until every Coreapp and Webapp had it."""
        repository = self._images[1]
        await scene.stage.nodes.tag(*(f"docker.io/{repository}:{tag}" for tag in (self._on.tag, NEXT_TAG)))
        image = f"{repository}:{self._on.tag if self._is_rolled else NEXT_TAG}"
        self._is_rolled = not self._is_rolled
        for holder in scene.stage.holders(CLUSTER):
            scene.strike(CLUSTER, holder.shard, holder)
        begun = time.monotonic()
        patch = {"spec": {"client": {"images": {"coreapp": image, "webapp": image}}}}
        await self._on.kubectl("-n", NAMESPACE, "patch", "wac", CLUSTER, "--type=merge", "-p", json.dumps(patch))
        await scene.stage.seen(lambda: self._run(scene, image), ROLL_OUT_S, f"every Coreapp and Webapp with {image}")
        if await scene.stage.settle(scene.clusters, ROLL_OUT_S):
            msg = f"{CLUSTER} did not settle with {image} within {ROLL_OUT_S:g} s. {scene.stage.state()}"
            raise LocalKubeError(msg)
        scene.told.append(time.monotonic() - begun)

    def _run(self, scene: Kind, image: str) -> bool:
        pods = [*scene.stage.pods(CLUSTER, "coreapp"), *scene.stage.pods(CLUSTER, "webapp")]
        return all(pod["spec"]["containers"][0]["image"] == image for pod in pods)

    async def uninstall(self, scene: Kind) -> None:
        """`helm uninstall`: pods serve on, CRDs and clusters stay; told is how long the uninstalling took."""
        stage, begun = scene.stage, time.monotonic()
        before = {pod["metadata"]["uid"] for pod in self._pods(scene, CLUSTER)}
        await self._on.uninstall()
        scene.told.append(time.monotonic() - begun)
        await asyncio.sleep(ALONE_S)
        await self._on.kubectl("get", "crd", "whatsappclusters.multiconnect.dev")
        await self._on.kubectl("-n", NAMESPACE, "get", "wac", CLUSTER)
        if left := before - {pod["metadata"]["uid"] for pod in self._pods(scene, CLUSTER)}:
            msg = f"{len(left)} pods of {CLUSTER} went with the operator"
            raise LocalKubeError(msg)
        if len(stage.holders(CLUSTER)) != SHARDS:
            msg = f"only {len(stage.holders(CLUSTER))} of {SHARDS} shards are served after the operator is gone"
            raise LocalKubeError(msg)

    async def install(self, _: Kind) -> None:
        """`helm install` again, over the CRD and the clusters that stayed."""
        await self._on.install()

    def _pods(self, scene: Kind, cluster: str) -> list[Mapping[str, Any]]:
        return [pod for component in ("coreapp", "webapp", "simulator") for pod in scene.stage.pods(cluster, component)]


async def grow(scene: Kind) -> None:
    """2 -> 4 shards."""
    await _resize(scene, 4)


async def shrink(scene: Kind) -> None:
    """4 -> 2 shards."""
    await _resize(scene, SHARDS)


def at(shards: int) -> Deed:
    """What brings the cluster to so many shards, settled."""

    async def resize(scene: Kind) -> None:
        await scene.stage.set_shards(CLUSTER, shards)
        if await scene.stage.settle(scene.clusters, RESIZE_S):
            msg = f"{CLUSTER} did not settle at {shards} shards within {RESIZE_S:g} s. {scene.stage.state()}"
            raise LocalKubeError(msg)

    return resize


async def _resize(scene: Kind, shards: int) -> None:
    """Strike all shards, for Set Shards restarts all, and wait until the cluster is as wanted."""
    stage, begun = scene.stage, time.monotonic()
    for holder in stage.holders(CLUSTER):
        scene.strike(CLUSTER, holder.shard, holder)
    await stage.set_shards(CLUSTER, shards)
    await stage.seen(lambda: stage.status(CLUSTER).get("shards") == shards, RESIZE_S, f"{shards} shards")
    await at(shards)(scene)
    scene.details["settled"] = round(time.monotonic() - begun, 2)
