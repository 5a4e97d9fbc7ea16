"""The components that are registered at the upstream: every Coreapp and Webapp keeps one websocket open."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from .link import frames, upstream_socket

_SEND_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Member:
    """One registered component."""

    uid: str
    pod: str
    ip: str
    role: str
    socket: web.WebSocketResponse
    forgot: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, frame: dict[str, Any]) -> None:
        """Send a frame. It is dropped if it cannot be sent within a second: the member gets the state when it registers again."""
        with suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS):
                await self.socket.send_json(frame)


class Members:
    """All members by uid; a later registration of the same uid replaces the earlier."""

    def __init__(self, gate: asyncio.Event, hello: Callable[[], dict[str, Any]]) -> None:
        """``hello`` makes the first frame for a new member."""
        self._gate = gate
        self._hello = hello
        self._members: dict[str, Member] = {}
        self._left = False

    def of(self, role: str) -> list[Member]:
        """Return the members of a role, ``coreapp`` or ``webapp``, by name."""
        return sorted((member for member in self._members.values() if member.role == role), key=lambda member: (member.pod, member.uid))

    async def tell(self, role: str, frame: dict[str, Any]) -> None:
        """Send a frame to all members of a role at once."""
        await asyncio.gather(*(member.send(frame) for member in self.of(role)))

    async def forget_tokens(self) -> None:
        """Make all Webapps drop their cached tokens; waits at most a second for those that do not answer."""
        webapps = self.of("webapp")
        for webapp in webapps:
            webapp.forgot.clear()
        await self.tell("webapp", {"type": "forget_tokens"})
        with suppress(TimeoutError):
            async with asyncio.timeout(_SEND_SECONDS):
                await asyncio.gather(*(webapp.forgot.wait() for webapp in webapps))

    async def close(self, code: int) -> None:
        """Close all connections."""
        await asyncio.gather(*(member.socket.close(code=code) for member in list(self._members.values())), return_exceptions=True)

    async def leave(self) -> None:
        """Shut down: close all connections, and each new one until the port is closed."""
        self._left = True
        await self.close(1001)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """``GET /ws/node?uid&pod&ip[&role=webapp]``."""
        query = request.query
        role = query.get("role", "coreapp")
        if not query.get("uid") or role not in {"coreapp", "webapp"}:
            return web.json_response({"error": "uid is needed; role is coreapp or webapp"}, status=400)
        socket = upstream_socket()
        await socket.prepare(request)
        if self._left:
            await socket.close(code=1001)
            return socket
        member = Member(uid=query["uid"], pod=query.get("pod", ""), ip=query.get("ip", ""), role=role, socket=socket)
        earlier = self._members.get(member.uid)
        self._members[member.uid] = member
        try:
            if earlier is not None:
                await earlier.socket.close()
            await member.send(self._hello())
            async for frame in frames(socket, self._gate, None):
                if frame.get("type") == "forgot":
                    member.forgot.set()
        finally:
            if self._members.get(member.uid) is member:
                del self._members[member.uid]
        return socket
