"""One connection to a healthcheck port: requests, answers, and the moment when it is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol
from urllib.parse import quote

import h11

from whatsapp_operator.core.snapshot import Report
from whatsapp_operator.shell.addresses import bracketed

MOST_BYTES = 65_536
"""Bytes of an answer's body that are kept; the rest is dropped."""
FIRST_ERROR = 400
"""The lowest HTTP status that is an error; redirects are none, for kubelets too."""
MOST_RECEIVED = 2**20
"""Bytes between two requests; then the connection is cut. One Coreapp must not take the time and memory of the operator."""


class Listener(Protocol):
    """Receives the events of a wire."""

    def answered(self, wire: Wire, body: bytes) -> None:
        """Handle the answer to the last request."""
        ...

    def lost(self, wire: Wire) -> None:
        """Handle the end of the connection by the other side; not called for a wire that was closed here."""
        ...


class Wire(asyncio.Protocol):
    """One connection, with one request at a time."""

    __slots__ = ("_body", "_http", "_listener", "_received", "_transport", "is_asked", "is_error", "is_lost")

    def __init__(self, listener: Listener) -> None:
        """Prepare; asyncio connects it."""
        self._listener: Listener | None = listener
        self._transport: asyncio.Transport | None = None
        self._http: h11.Connection | None = None
        self._body = b""
        self._received = 0
        """Bytes since the last request."""
        self.is_asked = False
        """A request is unanswered."""
        self.is_error = False
        """The last answer is one that a kubelet's probe counts as a failure."""
        self.is_lost = False

    @property
    def announced_end(self) -> bool:
        """Whether the last answer announced that the connection ends with it."""
        return self._http is not None and self._http.our_state is h11.MUST_CLOSE and not self.is_asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; called by asyncio."""
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def ask(self, request: h11.Request) -> None:
        """Send a request. Its answer, or the loss of the wire, goes to the listener."""
        if self._transport is None or self.announced_end:
            return
        if self._http is None:
            self._http = h11.Connection(h11.CLIENT)
        elif self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._body, self._received, self.is_asked = b"", 0, True
        self._transport.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; called by asyncio."""
        self._received += len(data)
        if self._received > MOST_RECEIVED:
            self._cut()
            return
        if self._http is None:
            # No request was sent: a server that speaks first is not a healthcheck.
            return
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Response):
                    self.is_error = event.status_code >= FIRST_ERROR
                elif isinstance(event, h11.Data):
                    self._body += event.data[: MOST_BYTES - len(self._body)]
                elif isinstance(event, h11.EndOfMessage) and self._listener is not None:
                    body, self._body, self.is_asked = self._body, b"", False
                    self._listener.answered(self, body)
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except h11.RemoteProtocolError:
            self._cut()

    def eof_received(self) -> bool:
        """Handle an answer that ends with the connection; called by asyncio, which then closes it."""
        if self.is_asked:
            self.data_received(b"")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the connection to the listener; called by asyncio."""
        # An asyncio transport holds methods of its own, the second from Python 3.12 on. Only a full garbage collection would free it. That
        # runs every few minutes, but very many tethers replace a hundred connections a second.
        for method in ("_read_ready_cb", "_write_ready"):
            getattr(self._transport, "__dict__", {}).pop(method, None)
        self.is_lost, self._transport = True, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(self)

    def close(self) -> None:
        """Close the connection; the listener gets no more events."""
        self._listener = None
        self._cut()

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def question(ip: str, path: str) -> h11.Request:
    """Return the request to the healthcheck at this address, IPv4 or IPv6. Characters that a path must not contain are quoted."""
    target = quote(path if path.startswith("/") else f"/{path}", safe="/?&=%:@!$'()*+,;~")
    return h11.Request(method="GET", target=target, headers=[("Host", bracketed(ip))])


def read_report(body: bytes) -> Report | None:
    """Return the report in a Coreapp's answer, or None if it is not one."""
    try:
        content: dict[str, Any] = json.loads(body)
        shard, shards = content.get("shard"), content.get("shards")
        return Report(
            shard=int(shard) if shard is not None else None,
            epoch=_text(content.get("epoch")),
            shards=int(shards) if shards is not None else None,
            gateway=str(content.get("gateway_status", "disconnected")),
            fenced=content.get("fenced") is True,
            version=_text(content.get("version")),
            uid=_text(content.get("uid")),
            stopping=content.get("stopping") is True,
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _text(value: object) -> str | None:
    """Return a text or None; TypeError for anything else."""
    if value is None or isinstance(value, str):
        return value
    msg = "no text"
    raise TypeError(msg)
