"""Coreapp: serves one shard, or is a warm standby without a connection. It decides nothing: it follows its last role assignment."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .disturbance import NEAR, Disturbance
from .epoch import Epoch
from .gateway import Gateway, GatewayStatus
from .link import Frame, Link
from .listener import Listener
from .notifier import Notifier
from .process import Process
from .resolve import Resolve, by_dns, join_host_port
from .role import Holder, Role, RoleNote
from .settings import CONTACTS_PORT, CONTROL_PORT, HEALTHCHECK_PORT, MESSAGING_PORT, Settings
from .sharding import shard_of
from .version import CLIENT_VERSION
from .webhook import Webhook

_HOLD_SECONDS = 2.0
"""Seconds for which a Coreapp holds a message while the shard is routed to it but not yet assigned, or assigned but not yet connected."""
_BIND_SECONDS = 5.0


class Coreapp(Process):
    """One Coreapp. See ``Process`` for its life cycle; ``report`` returns its state."""

    linger_seconds = 3.0

    def __init__(self, settings: Settings, *, resolve: Resolve = by_dns) -> None:
        super().__init__(settings, resolve=resolve)
        self.shards: int | None = None
        """The number of shards at its start; None until the upstream has sent it."""
        self._note: RoleNote
        """Read when it starts."""
        self._assigned: Role | None = None
        self._holders: dict[int, Holder] = {}
        self._gateway: Gateway | None = None
        self._webhook = Webhook(self)
        self._changed = Notifier()
        self._link: Link | None = None
        self._link_task: asyncio.Task[None] | None = None
        self._restart_seconds: asyncio.Queue[float] = asyncio.Queue()
        self._disturbance = Disturbance()
        self.effects = self._disturbance.effects
        """Effects of faults on callers, counted by name."""
        self._retirements: set[asyncio.Task[None]] = set()

    def report(self) -> dict[str, Any]:
        """Return the answer to a probe: the last role assignment, and the state of its connection."""
        assigned = self._assigned
        return {
            "uid": self.settings.pod_uid,
            "pod": self.settings.pod_name,
            "shard": assigned.shard if assigned else None,
            "epoch": str(assigned.epoch) if assigned else None,
            "shards": self.shards,
            "gateway_status": str(self._gateway.status if self._gateway else GatewayStatus.DISCONNECTED),
            "fenced": self._gateway is not None and self._gateway.fenced,
            "version": CLIENT_VERSION,
            "stopping": self.stopping,
        }

    # life cycle

    async def come_up(self) -> None:
        """Read the note, listen, register."""
        self._note = RoleNote(self.settings.state_folder(), self.settings.pod_uid)
        await self._begin()
        self.spawn(self._restart_after_set_shards())

    async def announce_shutdown(self) -> None:
        """Close the WhatsApp connection with a close frame."""
        if self._gateway is not None:
            await self._gateway.retire()

    async def disturb(self, changes: Mapping[str, Any]) -> None:
        """Inject faults, or end them; ``changes`` has fields of ``Disturbance`` by name. ValueError if it is not valid.

        OSError if closed ports must be opened again and are in use.
        """
        before = self._disturbance.ports
        self._disturbance.read(changes)
        if self._disturbance.linger is not None:
            self.linger_seconds = self._disturbance.linger
        ports = self._disturbance.ports
        if ports == before:
            return
        for listener in self.listeners:
            if ports == "closed":
                listener.abort()
            elif ports == "half-open":
                listener.clog()
            elif ports == "parted":
                listener.clog(near=NEAR)
            elif before != "closed":
                listener.unclog()
            else:
                await listener.close(0.0)
                await listener.open()

    async def _begin(self) -> None:
        """Start as a fresh process does: listen on all ports, then register. The noted role waits for the upstream's number of shards."""
        self.shards = None
        self._assigned = None
        self._holders = {}
        host = self.settings.listen
        ports = {
            MESSAGING_PORT: [web.post("/messages", self._messages)],
            CONTACTS_PORT: [web.post("/contacts", self._contacts)],
            CONTROL_PORT: [web.post("/role", self._role)],
            HEALTHCHECK_PORT: [web.get("/", self._health)],
        }
        wrong = {HEALTHCHECK_PORT: [self._disturbance.meet]}
        self.listeners = [
            Listener(host, port, routes, gate=self.gate, middlewares=wrong.get(port, ()), effects=self.effects)
            for port, routes in ports.items()
        ]
        for listener in self.listeners:
            await listener.open()
        query = {"uid": self.settings.pod_uid, "pod": self.settings.pod_name, "ip": self.settings.pod_ip}
        self._link = Link(self, query, self._on_frame)
        self._link_task = self.spawn(self._link.run())
        self.log.info("%s listens on %s%s", self.settings.pod_name, host, f", has the role {self._note.role}" if self._note.role else "")

    async def _restart_after_set_shards(self) -> None:
        """Restart inside the process after each Set Shards: close everything, wait for the downtime, start again."""
        while True:
            seconds = await self._restart_seconds.get()
            self.log.info("%s restarts for Set Shards, back in %.1f s", self.settings.pod_name, seconds)
            for listener in self.listeners:
                listener.abort()
            if self._link_task is not None:
                self._link_task.cancel()
                await asyncio.wait({self._link_task})
            if self._gateway is not None:
                await self._gateway.close()
                self._gateway = None
            await asyncio.gather(*(listener.close(0.0) for listener in self.listeners))
            await asyncio.sleep(seconds)
            await self.gate.wait()
            while not self._restart_seconds.empty():
                self._restart_seconds.get_nowait()
            await self._begin_again()

    async def _begin_again(self) -> None:
        """Bind the same address again; it may still be in use for a moment."""
        deadline = asyncio.get_running_loop().time() + _BIND_SECONDS
        while True:
            try:
                await self._begin()
            except OSError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                for listener in self.listeners:
                    listener.abort()
                await asyncio.gather(*(listener.close(0.0) for listener in self.listeners))
                await asyncio.sleep(0.1)
            else:
                return

    # frames of the upstream

    def _on_frame(self, frame: Frame) -> None:
        if frame["type"] == "hello":
            self._webhook.configure(frame["settings"])
            try:
                self._hello(frame["shards"], frame["seconds"])
            except OSError as error:  # a full or lost disk: a standby does no harm, and the operator assigns the role again
                self.log.error("%s cannot write its note (%s) and is a standby", self.settings.pod_name, error.strerror)
        elif frame["type"] == "settings":
            self._webhook.configure(frame["settings"])
        elif frame["type"] == "restart":
            self._restart_seconds.put_nowait(frame["seconds"])

    def _hello(self, shards: int, seconds: float) -> None:
        if self.shards is not None and self.shards != shards:
            self._restart_seconds.put_nowait(seconds)  # the call came while it was not registered
            return
        if self.shards is None:
            self.shards = shards
            noted = self._note.role
            if noted is not None and noted.shards == shards:
                self._serve(noted)
            elif noted is not None:
                self._note.note(None)
        self._changed.notify()

    # role assignments of the operator

    def _serve(self, role: Role) -> None:
        same = self._assigned is not None and (self._assigned.shard, self._assigned.epoch) == (role.shard, role.epoch)
        if same and self._gateway is not None and not self._gateway.fenced:
            return
        self._note.known[role.shard] = role.epoch
        if self._note.role != role or not same:
            self._note.note(role)
        self._leave_gateway()
        self._assigned = role
        self._holders.pop(role.shard, None)
        self._gateway = Gateway(self, role, self._webhook, self._changed.notify)
        self._changed.notify()
        self.log.info("%s serves shard %d under epoch %s", self.settings.pod_name, role.shard, role.epoch)

    def _stand_by(self) -> None:
        if self._assigned is None:
            return
        self._note.note(None)
        self._assigned = None
        self._leave_gateway()
        self._changed.notify()
        self.log.info("%s stands by", self.settings.pod_name)

    def _leave_gateway(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            retirement = self.spawn(gateway.retire())
            self._retirements.add(retirement)
            retirement.add_done_callback(self._retirements.discard)

    async def _role(self, request: web.Request) -> web.Response:
        try:
            order = _Order.read(await request.json())
        except (ValueError, TypeError, KeyError) as error:
            return web.json_response({"error": f"not a role order: {error}"}, status=400)
        if (rejection := self._rejection(order)) is not None:
            return web.json_response({"error": rejection}, status=409)
        try:
            self._obey(order)
        except OSError as error:
            # The assignment failed and nothing was changed: the operator assigns the role again.
            return web.json_response({"error": f"the role could not be noted durably: {error.strerror}"}, status=500)
        return web.json_response(self.report())

    def _rejection(self, order: "_Order") -> str | None:
        if order.uid != self.settings.pod_uid:
            return f"this is pod {self.settings.pod_uid}, not {order.uid}"
        if order.shards != self.shards:
            return f"this Coreapp runs with {self.shards} shards, not {order.shards}"
        if order.shard is not None and order.epoch is not None:
            known = self._note.known.get(order.shard)
            if known is not None and order.epoch.n < known.n:
                return f"epoch {order.epoch} of shard {order.shard} is older than {known}"
        return None

    def _obey(self, order: "_Order") -> None:
        if order.shard is None or order.epoch is None:
            self._stand_by()
        elif order.holder is None:
            self._serve(Role(order.shard, order.epoch, order.shards))
        else:
            self._note.known[order.shard] = order.epoch
            self._holders[order.shard] = Holder(join_host_port(order.holder, MESSAGING_PORT), order.epoch)
            if self._assigned is not None and self._assigned.shard == order.shard:
                self._stand_by()
            self._changed.notify()

    # requests of the Webapp

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response(self.report())

    async def _contacts(self, request: web.Request) -> web.Response:
        try:
            contacts = (await request.json())["contacts"]
            answer = [{"input": str(contact), "status": "valid", "wa_id": str(contact).lstrip("+")} for contact in contacts]
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": "not a list of contacts"}, status=400)
        return web.json_response({"contacts": answer})

    async def _messages(self, request: web.Request) -> web.Response:
        try:
            message = await request.json()
            message_id, shard, to, body = str(message["id"]), int(message["shard"]), str(message["to"]), str(message["body"])
        except (ValueError, TypeError, KeyError):
            return web.json_response({"error": "not a message: id, shard, to and body are needed"}, status=400)
        deadline = asyncio.get_running_loop().time() + _HOLD_SECONDS
        while True:
            if (redirect := self._redirect(shard, to)) is not None:
                return redirect
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return web.json_response({"error": f"shard {shard} is not served here, and its holder is unknown"}, status=503)
            gateway = self._gateway
            if gateway is None or gateway.status is not GatewayStatus.CONNECTED:
                await self._changed.wait(left)
                continue
            with suppress(TimeoutError):
                if await gateway.send(message_id, to, body, left):
                    return web.json_response({"id": message_id})
            await asyncio.sleep(0)

    def _redirect(self, shard: int, to: str) -> web.Response | None:
        """Return the answer to a message that does not belong here, None if it does."""
        if self.shards is not None and shard_of(to, self.shards) != shard:
            return _misdirected(f"with {self.shards} shards this recipient is not in shard {shard}", shard, None)
        assigned = self._assigned
        if assigned is not None and assigned.shard == shard:
            if self._gateway is not None and self._gateway.fenced:
                return _misdirected(f"shard {shard} was taken over by a Coreapp with a higher epoch", shard, None)
            return None
        holder = self._holders.get(shard)
        if holder is not None:
            return _misdirected(f"shard {shard} is served by {holder.address}", shard, holder)
        if assigned is not None:
            return _misdirected(f"this Coreapp serves shard {assigned.shard}, not {shard}", shard, None)
        return None


@dataclass(frozen=True, slots=True)
class _Order:
    """The body of ``POST /role``."""

    uid: str
    shard: int | None
    epoch: Epoch | None
    shards: int
    holder: str | None

    @classmethod
    def read(cls, body: Any) -> "_Order":
        """Raises ValueError, TypeError or KeyError if ``body`` is not valid."""
        uid, shards, shard, epoch = body["uid"], body["shards"], body.get("shard"), body.get("epoch")
        if not isinstance(uid, str) or not isinstance(shards, int):
            msg = "uid must be text and shards a number"
            raise ValueError(msg)
        if shard is None:
            return cls(uid, None, None, shards, None)
        if not isinstance(shard, int) or not 0 <= shard < shards:
            msg = f"shard must be a number from 0 to {shards - 1}"
            raise ValueError(msg)
        holder = body.get("holder")
        return cls(uid, shard, Epoch.parse(epoch), shards, None if holder is None else str(holder["ip"]))


def _misdirected(error: str, shard: int, holder: Holder | None) -> web.Response:
    answer = web.Response(
        status=421,
        content_type="application/json",
        text=json.dumps(
            {"error": error, "holder": holder.address if holder else None, "shard": shard, "epoch": str(holder.epoch) if holder else None}
        ),
    )
    answer.force_close()  # a connection through a Service that has moved on would lead here again
    return answer
