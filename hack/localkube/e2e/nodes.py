"""The nodes of a kind cluster as containers: stopped, paused, parted and brought back; and what runs in them, by process id."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Self

from localkube.e2e.programs import NodeShell, run
from localkube.errors import LocalKubeError

Obj = dict[str, Any]

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
RULES = ("INPUT -i eth0", "OUTPUT -o eth0", "FORWARD -i eth0", "FORWARD -o eth0")
"""What crosses a node's only way to the others, its pods' traffic included; `docker exec` does not."""
DOCKER_S = 60.0


class KindNodes:
    """All nodes of one cluster. Use as an async context manager; its end brings every node back that was taken away."""

    def __init__(self, names: tuple[str, ...], *, routes: Callable[[], Awaitable[None]]) -> None:
        """``names``: of the nodes, which are those of their containers; ``routes``: lays the routes between nodes again after a restart."""
        self.shells = {name: NodeShell(name) for name in names}
        self._routes = routes
        self._away: dict[str, Callable[[str], Awaitable[None]]] = {}
        """Nodes that were taken away, and how they are brought back."""
        self._started: dict[str, datetime] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for shell in self.shells.values():
            await self._exits.enter_async_context(shell)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.back()
        finally:
            await self._exits.aclose()

    # ------------------------------------------------------------ whole nodes

    async def stop(self, name: str) -> None:
        """`docker stop`: its processes are told to end and killed a second later."""
        self._away[name] = self._start
        await run("docker", "stop", "--time", "1", name, timeout=DOCKER_S)

    async def kill(self, name: str) -> None:
        """`docker kill`: as when the power fails."""
        self._away[name] = self._start
        await run("docker", "kill", name, timeout=DOCKER_S)

    async def pause(self, name: str) -> None:
        """`docker pause`: every process in it is frozen at once, the kernel goes on answering for them."""
        self._away[name] = self._unpause
        await run("docker", "pause", name, timeout=DOCKER_S)

    async def part(self, name: str) -> None:
        """Drop whatever comes or goes over its only interface; everything in it runs on."""
        await self.shells[name].run("true")
        self._away[name] = self._heal
        await self.shells[name].run("; ".join(f"iptables -w 5 -I {rule} -j DROP" for rule in RULES))

    async def back(self) -> dict[str, datetime]:
        """Bring every node back that was taken away; returns those whose containers start anew, and since when.

        LocalKubeError when one does not come.
        """
        away, self._away = self._away, {}
        self._started = {}
        for name, bring in away.items():
            await bring(name)
        return self._started

    async def _start(self, name: str) -> None:
        await self.shells[name].close()
        self._started[name] = datetime.now(UTC).replace(microsecond=0)
        await run("docker", "start", name, timeout=DOCKER_S)
        await self._routes()

    async def _unpause(self, name: str) -> None:
        await run("docker", "unpause", name, timeout=DOCKER_S)

    async def _heal(self, name: str) -> None:
        await self.shells[name].run("; ".join(f"iptables -w 5 -D {rule} -j DROP" for rule in RULES))

    # ------------------------------------------------------------ what runs in them

    async def process_of(self, pod: Obj) -> tuple[NodeShell, int]:
        """The shell of a pod's node and the process id of its first container there. LocalKubeError when it does not run."""
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        statuses: list[Obj] = (pod.get("status") or {}).get("containerStatuses") or [{}]
        container = str(statuses[0].get("containerID", "")).removeprefix("containerd://")
        if node not in self.shells or not container:
            msg = f"pod {name} runs no container on a node of this cluster"
            raise LocalKubeError(msg)
        rows = (await self.shells[node].run("ctr -n k8s.io task ls")).splitlines()
        found = next((row.split() for row in rows if row.startswith(container)), None)
        if found is None or found[-1] != "RUNNING":
            msg = f"the container of pod {name} does not run on {node}: {found}"
            raise LocalKubeError(msg)
        return self.shells[node], int(found[1])

    async def tag(self, image: str, also: str) -> None:
        """Have every node know an image, which it has already, under one more name."""
        names = f"{shlex.quote(image)} {shlex.quote(also)}"
        await asyncio.gather(*(shell.run(f"ctr -n k8s.io images tag --force {names}", timeout=DOCKER_S) for shell in self.shells.values()))
