"""A kind cluster as containers: nodes stopped, paused, parted and brought back; what runs in them; and the way to its pods."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from localkube import LocalKubeError, Obj
from localkube.offline import docker as host
from localkube.run import output

NAME = "whatsapp-e2e"
LABEL = f"label=io.x-k8s.kind.cluster={NAME}"
SENDER, SENDER_PORT = f"{NAME}-sender", 18080
RULES = ("INPUT -i eth0", "OUTPUT -o eth0", "FORWARD -i eth0", "FORWARD -o eth0")
"""Matches all traffic between a node and the others, including that of its pods, but not `docker exec`."""
RUN_S = 60.0
SHELL_S = 10.0
MOST = 2000


async def run(*argv: str | Path, timeout: float = RUN_S, given: str = "") -> str:
    """Like `localkube.run.output`, without blocking the event loop."""
    return await asyncio.to_thread(output, [str(word) for word in argv], timeout=timeout, text=given)


class NodeShell:
    """A shell inside a node that is kept open, so that a fault strikes within a millisecond and not when a new process has started.

    It is opened by the first command, and again after the node was away. `aclose` ends it.
    """

    def __init__(self, container: str) -> None:
        """Prepare; ``container`` is the node's name in Docker."""
        self.container = container
        self._child: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()

    async def aclose(self) -> None:
        """End the shell; the next command opens another one."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with what it may have started on this machine
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHELL_S):
                    await child.communicate()

    async def run(self, command: str, *, timeout: float = SHELL_S) -> str:
        """What a command writes. LocalKubeError when it fails or does not end within ``timeout`` seconds."""
        async with self._one:
            try:
                async with asyncio.timeout(timeout):
                    output, status = await self._exchange(command, secrets.token_hex(8))
            except (TimeoutError, OSError) as error:
                await self.aclose()
                why = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else str(error)
                raise LocalKubeError(f"'{command}' in node {self.container}: {why}") from None
        if status != "0":
            raise LocalKubeError(f"'{command}' in node {self.container} failed: {output.strip()[-MOST:]}")
        return output

    async def _exchange(self, command: str, mark: str) -> tuple[str, str]:
        """What a command writes, and its exit status. OSError when the shell has ended."""
        if self._child is None or self._child.returncode is not None:
            self._child = await asyncio.create_subprocess_exec(
                *("docker", "exec", "-i", self.container, "bash", "--norc"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=2**20,
                start_new_session=True,  # Ctrl-C is for this process, which restores the nodes first
            )
        to, answer = self._child.stdin, self._child.stdout
        if to is None or answer is None:
            raise OSError("the shell has no pipes")
        to.write(f"( {command}\n) 2>&1 </dev/null; echo {mark} $?\n".encode())
        await to.drain()
        try:
            output = (await answer.readuntil(mark.encode())).decode("utf-8", "replace").removesuffix(mark)
            return output, (await answer.readline()).decode().strip()
        except asyncio.IncompleteReadError:
            raise OSError("the shell has ended") from None


async def docker(*words: str) -> str:
    """What docker prints. LocalKubeError when it fails, or there is none."""
    return await asyncio.to_thread(host.docker, *words)


class KindNodes:
    """All nodes of one cluster. Use as an async context manager; its end brings every node back that was taken away."""

    def __init__(self, names: tuple[str, ...], *, routes: Callable[[], Awaitable[None]]) -> None:
        """``names``: of the nodes, which are those of their containers; ``routes``: lays the routes between nodes again after a restart."""
        self.shells = {name: NodeShell(name) for name in names}
        self._routes = routes
        self._away: dict[str, Callable[[str], Awaitable[object]]] = {}  # nodes that were taken away, and how they are brought back
        self._started: dict[str, datetime] = {}
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for shell in self.shells.values():
            self._exits.push_async_callback(shell.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._exits:
            await self.back()

    async def stop(self, name: str) -> None:
        """`docker stop`: its processes are asked to end and killed a second later."""
        self._away[name] = self._start
        await docker("stop", "--time", "1", name)

    async def kill(self, name: str) -> None:
        """`docker kill`: as when the power fails."""
        self._away[name] = self._start
        await docker("kill", name)

    async def pause(self, name: str) -> None:
        """`docker pause`: every process in it is frozen at once; the kernel keeps answering for them."""
        self._away[name] = lambda name: docker("unpause", name)
        await docker("pause", name)

    async def part(self, name: str) -> None:
        """Drop all packets on its only interface; everything in it keeps running."""
        await self.shells[name].run("true")
        self._away[name] = lambda name: self._tables(name, "D")
        await self._tables(name, "I")

    async def _tables(self, name: str, change: str) -> None:
        await self.shells[name].run("; ".join(f"iptables -w 5 -{change} {rule} -j DROP" for rule in RULES))

    async def back(self) -> dict[str, datetime]:
        """Bring every node back that was taken away; returns those whose containers start again, and since when.

        LocalKubeError when one does not come.
        """
        away, self._away = self._away, {}
        self._started = {}
        for name, bring in away.items():
            await bring(name)
        return self._started

    async def _start(self, name: str) -> None:
        await self.shells[name].aclose()
        self._started[name] = datetime.now(UTC).replace(microsecond=0)
        await docker("start", name)
        await self._routes()

    async def process_of(self, pod: Obj) -> tuple[NodeShell, int]:
        """The shell of a pod's node and the process id of its first container there. LocalKubeError when it does not run."""
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        statuses: list[Obj] = (pod.get("status") or {}).get("containerStatuses") or [{}]
        container = str(statuses[0].get("containerID", "")).removeprefix("containerd://")
        if node not in self.shells or not container:
            raise LocalKubeError(f"pod {name} runs no container on a node of this cluster")
        rows = (await self.shells[node].run("ctr -n k8s.io task ls")).splitlines()
        found = next((row.split() for row in rows if row.startswith(container)), None)
        if found is None or found[-1] != "RUNNING":
            raise LocalKubeError(f"the container of pod {name} does not run on {node}: {found}")
        return self.shells[node], int(found[1])

    async def tag(self, image: str, also: str) -> None:
        """Give an image that every node already has one more name there."""
        names = f"{shlex.quote(image)} {shlex.quote(also)}"
        await asyncio.gather(*(shell.run(f"ctr -n k8s.io images tag --force {names}", timeout=60.0) for shell in self.shells.values()))


async def node_names(role: str = "") -> tuple[str, ...]:
    """The nodes' containers, of one role (control-plane, worker) if it is given. LocalKubeError if there is none."""
    filters = ("--filter", LABEL, *(("--filter", f"label=io.x-k8s.kind.role={role}") if role else ()))
    if names := sorted((await docker("ps", "--all", *filters, "--format", "{{.Names}}")).split()):
        return tuple(names)
    raise LocalKubeError(f"there is no kind cluster {NAME}: make it with 'hack/kind-offline up --name {NAME}'")


async def start_sender(image: str) -> str:
    """Start the proxy through which messages are sent, in the network of the control plane, which no fault strikes.

    ``image``: one with Python as `python`. Returns the proxy's URL.
    """
    await stop_sender()
    (container,) = await node_names("control-plane")
    text = (Path(__file__).parent / "relay.py").read_text(encoding="utf-8")
    options = ("--detach", "--name", SENDER, f"--network=container:{container}", f"--env=PORT={SENDER_PORT}", "--entrypoint=python")
    await docker("run", *options, image, "-c", text)
    (about,) = json.loads(await docker("inspect", container))
    return f"http://{about['NetworkSettings']['Networks']['kind']['IPAddress']}:{SENDER_PORT}"


async def stop_sender() -> None:
    """End the proxy, if there is one."""
    with contextlib.suppress(LocalKubeError):
        await docker("rm", "--force", SENDER)


async def unpause() -> None:
    """Resume nodes that were left paused by a run that could not clean up after itself."""
    if names := (await docker("ps", "--filter", LABEL, "--filter", "status=paused", "--format", "{{.Names}}")).split():
        await docker("unpause", *names)
