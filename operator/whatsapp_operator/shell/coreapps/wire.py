"""One connection to a healthcheck port: questions and answers over it, and the moment at which it is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol
from urllib.parse import quote

import h11

from whatsapp_operator.core.snapshot import Report
from whatsapp_operator.shell.addresses import bracketed

MOST_BYTES = 65_536
"""Of an answer's body; what is beyond is not kept."""


class Listener(Protocol):
    """Who hears what happens on a wire."""

    def answered(self, wire: Wire, body: bytes) -> None:
        """Hear the answer to the question that was asked last."""
        ...

    def lost(self, wire: Wire) -> None:
        """Hear that the other side ended the connection; not called for a wire that was closed here."""
        ...


class Wire(asyncio.Protocol):
    """One connection. One question at a time."""

    __slots__ = ("_body", "_http", "_listener", "_transport", "is_asked", "is_lost")

    def __init__(self, listener: Listener) -> None:
        """Prepare; asyncio connects it."""
        self._listener: Listener | None = listener
        self._transport: asyncio.Transport | None = None
        self._http: h11.Connection | None = None
        self._body = b""
        self.is_asked = False
        """A question is unanswered."""
        self.is_lost = False

    @property
    def announced_end(self) -> bool:
        """Whether the last answer announced that the connection ends with it."""
        return self._http is not None and self._http.our_state is h11.MUST_CLOSE and not self.is_asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; called by asyncio."""
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def ask(self, request: h11.Request) -> None:
        """Send a question; its answer, or the loss of the wire, is heard later."""
        if self._transport is None or self.announced_end:
            return
        if self._http is None:
            self._http = h11.Connection(h11.CLIENT)
        elif self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._body, self.is_asked = b"", True
        self._transport.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))

    def data_received(self, data: bytes) -> None:
        """Read on; called by asyncio."""
        if self._http is None:
            # Nobody asked: what speaks first is no healthcheck.
            return
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Data):
                    self._body += event.data[: MOST_BYTES - len(self._body)]
                elif isinstance(event, h11.EndOfMessage) and self._listener is not None:
                    body, self._body, self.is_asked = self._body, b"", False
                    self._listener.answered(self, body)
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except h11.RemoteProtocolError:
            if self._transport is not None:
                self._transport.abort()

    def eof_received(self) -> bool:
        """Take the end of an answer that has no other; called by asyncio, which then closes."""
        if self.is_asked:
            self.data_received(b"")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection ended; called by asyncio."""
        self.is_lost, self._transport = True, None
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.lost(self)

    def close(self) -> None:
        """Let go; nothing is heard of it any more."""
        self._listener = None
        if self._transport is not None:
            self._transport.abort()


def question(ip: str, path: str) -> h11.Request:
    """Return the question to a healthcheck at this address, IPv4 or IPv6; what may not stand in a path is quoted."""
    target = quote(path if path.startswith("/") else f"/{path}", safe="/?&=%:@!$'()*+,;~")
    return h11.Request(method="GET", target=target, headers=[("Host", bracketed(ip))])


def read_report(body: bytes) -> Report | None:
    """Return what a Coreapp's answer says; None if it is no such answer."""
    try:
        said: dict[str, Any] = json.loads(body)
        shard, shards = said.get("shard"), said.get("shards")
        return Report(
            shard=int(shard) if shard is not None else None,
            epoch=said.get("epoch"),
            shards=int(shards) if shards is not None else None,
            gateway=str(said.get("gateway_status", "disconnected")),
            fenced=said.get("fenced") is True,
            version=said.get("version"),
        )
    except (ValueError, TypeError, AttributeError):
        return None
