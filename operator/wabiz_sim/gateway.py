"""A Coreapp's one connection to the WhatsApp servers: retried until it is open, reconnected until it is fenced or retired."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

import aiohttp

from .link import UNREACHABLE, Backoff, Frame, dial, frames
from .process import Process
from .role import Role
from .webhook import Webhook

log = logging.getLogger(__name__)

REPLACED = 4001
"""Close code: a connection with a higher epoch replaced this one."""
RESHARDED = 4002
"""Close code: the number of shards was set; all Coreapps restart."""
LOGGED_OFF = 4003
"""Close code: the client was logged off or the account banned."""
UNABLE = 1011
"""Close code: the servers failed; they may or may not have accepted unacknowledged messages (RFC 6455, 7.4.1)."""
REJECTION_HEADER = "X-Simulator-Rejection"
"""The reason for a rejected connection: fenced, shards, logged_off, banned."""

_RETIRE_SECONDS = 1.0


class GatewayStatus(StrEnum):
    """As the health API spells them."""

    CONNECTED = "connected"
    CONNECTING = "connecting"
    DISCONNECTED = "disconnected"


class Gateway:
    """The connection of one role. ``on_change`` is called when ``status`` or ``fenced`` changed."""

    def __init__(self, process: Process, role: Role, webhook: Webhook, on_change: Callable[[], None]) -> None:
        self.role = role
        self.status = GatewayStatus.CONNECTING
        self.fenced = False
        self._process = process
        self._webhook = webhook
        self._on_change = on_change
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._pending: dict[str, asyncio.Future[bool]] = {}
        self._inbound: dict[str, asyncio.Task[None]] = {}
        self._accepted: deque[str] = deque(maxlen=1024)
        self._retired = False
        self._task = process.spawn(self._run())

    async def send(self, message_id: str, to: str, body: str, timeout: float) -> bool:
        """Send a message. True: the upstream stored it durably; False: the connection was lost before it confirmed that.

        Raises TimeoutError if there was no answer within ``timeout`` seconds. Sending the same id again is safe.
        """
        answer = self._pending.get(message_id)
        if answer is None:
            if self._socket is None or self._retired:
                return False
            answer = self._pending[message_id] = asyncio.get_running_loop().create_future()
            try:
                await self._socket.send_json({"type": "send", "id": message_id, "to": to, "body": body})
            except (ConnectionError, aiohttp.ClientError):
                self._settle(message_id, accepted=False)
                return False
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(answer)
        except TimeoutError:
            self._settle(message_id, accepted=False)
            raise

    async def retire(self) -> None:
        """Send nothing new, let messages in progress finish for at most a second, then close."""
        self._retired = True
        self._become(GatewayStatus.DISCONNECTED)
        under_way: set[asyncio.Future[Any]] = {*self._pending.values(), *self._inbound.values()}
        if under_way:
            await asyncio.wait(under_way, timeout=_RETIRE_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Close now, with a close frame."""
        self._retired = True
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while not self.fenced:
                try:
                    await self._connect(backoff)
                except aiohttp.WSServerHandshakeError as error:
                    self._handle_rejection(error)
                except UNREACHABLE:
                    self._become(GatewayStatus.CONNECTING)
                if not self.fenced:
                    await backoff.pause()
                    await self._process.gate.wait()
        finally:
            self._lost()
            for delivery in self._inbound.values():
                delivery.cancel()

    async def _connect(self, backoff: Backoff) -> None:
        role = self.role
        query = {"shard": str(role.shard), "epoch": str(role.epoch), "uid": self._process.settings.pod_uid, "shards": str(role.shards)}
        socket = await dial(self._process, "/ws/gateway", query)
        backoff.reset()
        self._socket = socket
        if not self._retired:
            self._become(GatewayStatus.CONNECTED)
        try:
            async for frame in frames(socket, self._process.gate):
                self._handle(frame)
        finally:
            self._lost()
            self._become(GatewayStatus.CONNECTING)  # before the close, which may wait, so that no message is sent meanwhile
            await socket.close()
        if socket.close_code == REPLACED:
            self._fence()
        else:
            self._become(GatewayStatus.DISCONNECTED if socket.close_code == LOGGED_OFF else GatewayStatus.CONNECTING)

    def _handle_rejection(self, error: aiohttp.WSServerHandshakeError) -> None:
        reason = error.headers.get(REJECTION_HEADER, "") if error.headers else ""
        if reason == "fenced":
            self._fence()
        else:
            self._become(GatewayStatus.DISCONNECTED if reason in {"logged_off", "banned"} else GatewayStatus.CONNECTING)

    def _fence(self) -> None:
        log.info("%s: shard %d is fenced, epoch %s is over", self._process.settings.pod_name, self.role.shard, self.role.epoch)
        self.fenced = True
        self.status = GatewayStatus.DISCONNECTED
        self._on_change()

    def _become(self, status: GatewayStatus) -> None:
        if self._retired:
            status = GatewayStatus.DISCONNECTED
        if status != self.status:
            self.status = status
            self._on_change()

    def _handle(self, frame: Frame) -> None:
        if frame["type"] == "ack":
            self._settle(frame["id"], accepted=True)
        elif frame["type"] == "inbound" and not self._retired and frame["id"] not in self._inbound:
            self._inbound[frame["id"]] = self._process.spawn(self._deliver(frame))

    def _settle(self, message_id: str, *, accepted: bool) -> None:
        answer = self._pending.pop(message_id, None)
        if answer is not None and not answer.done():
            answer.set_result(accepted)

    def _lost(self) -> None:
        self._socket = None
        for message_id in list(self._pending):
            self._settle(message_id, accepted=False)

    async def _deliver(self, frame: Frame) -> None:
        try:
            if frame["id"] not in self._accepted:  # otherwise only its acknowledgement was lost: do not call the webhook again
                await self._webhook.deliver(frame)
                self._accepted.append(frame["id"])
            if self._socket is not None:
                with suppress(ConnectionError, aiohttp.ClientError):
                    await self._socket.send_json({"type": "inbound_ack", "id": frame["id"]})
        finally:
            self._inbound.pop(frame["id"], None)
