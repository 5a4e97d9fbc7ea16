"""One connection to a Coreapp's healthcheck, byte by byte: answers, answers that are none, and every way in which it ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from whatsapp_operator.core.snapshot import Report
from whatsapp_operator.shell.coreapps.wire import MOST_BYTES, MOST_RECEIVED, Wire, question, read_report

ASK = question("10.0.0.1", "/health")


class Transport(asyncio.Transport):
    """Notes what is sent and whether the connection was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_cut = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def abort(self) -> None:
        self.is_cut = True


class Peer:
    """A wire with its transport, and what its listener was given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.losses = 0
        self.transport = Transport()
        self.wire = Wire(self)
        self.wire.connection_made(self.transport)

    def answered(self, wire: Wire, body: bytes) -> None:
        assert wire is self.wire
        self.bodies.append(body)

    def lost(self, wire: Wire) -> None:
        assert wire is self.wire
        self.losses += 1

    def ask(self) -> None:
        self.wire.ask(ASK)

    def receive(self, *parts: bytes) -> None:
        for part in parts:
            self.wire.data_received(part)


def answer(body: bytes = b"{}", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_question_goes_out_and_its_answer_is_delivered_however_it_is_cut_into_pieces() -> None:
    peer = Peer()
    peer.ask()
    assert peer.transport.sent.startswith(b"GET /health HTTP/1.1\r\nHost: 10.0.0.1\r\n")
    assert peer.wire.is_asked

    whole = answer(b'{"shard": 1}')
    peer.receive(*(whole[index : index + 1] for index in range(len(whole))))

    assert (peer.bodies, peer.wire.is_asked, peer.wire.is_lost, peer.losses) == ([b'{"shard": 1}'], False, False, 0)


def test_a_connection_is_used_again() -> None:
    peer = Peer()
    for body in (b"one", b"two"):
        peer.ask()
        peer.receive(answer(body))

    assert peer.bodies == [b"one", b"two"]
    assert peer.transport.sent.count(b"GET /health") == 2


@pytest.mark.parametrize(("status", "is_error"), [("200 OK", False), ("307 Moved", False), ("400 Bad", True), ("503 Gone", True)])
def test_an_answer_is_an_error_if_it_is_one_for_a_kubelet(status: str, is_error: bool) -> None:
    peer = Peer()
    for expected, said in ((is_error, status), (False, "204 No Content"), (is_error, status)):
        peer.ask()
        peer.receive(answer(b"", status=said))
        assert peer.wire.is_error is expected


def test_a_server_that_speaks_first_is_not_listened_to() -> None:
    peer = Peer()
    peer.receive(b"220 ready\r\n", answer())

    assert (peer.bodies, peer.transport.is_cut) == ([], False)


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02\r\n\r\n", b"HTTP/9 nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"])
def test_an_answer_that_is_no_HTTP_cuts_the_connection(garbage: bytes) -> None:  # noqa: N802
    peer = Peer()
    peer.ask()
    peer.receive(garbage)
    assert peer.transport.is_cut

    peer.wire.connection_lost(None)
    assert (peer.bodies, peer.losses) == ([], 1)


def test_garbage_after_the_connection_was_lost_does_no_harm() -> None:
    peer = Peer()
    peer.ask()
    peer.wire.connection_lost(ConnectionResetError())
    peer.receive(b"\x00\x01\x02\r\n\r\n")

    assert (peer.losses, peer.transport.is_cut) == (1, False)


def test_of_a_long_answer_the_beginning_is_kept() -> None:
    peer = Peer()
    peer.ask()
    peer.receive(answer(b"x" * (MOST_BYTES + 1)))

    assert [len(body) for body in peer.bodies] == [MOST_BYTES]


ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"


@pytest.mark.parametrize(
    ("asks", "before"),
    [(False, b""), (True, b""), (True, ENDLESS), (True, answer())],
    ids=["unasked", "no head", "no end", "after its answer"],
)
def test_a_server_that_sends_without_an_end_is_cut_off(asks: bool, before: bytes) -> None:
    peer = Peer()
    if asks:
        peer.ask()
    peer.receive(before)
    for _ in range(MOST_RECEIVED // 2**14 + 1):
        if peer.transport.is_cut:
            break
        peer.receive((b"x: y\r\n" * 2**12)[: 2**14])
    assert peer.transport.is_cut


def test_many_answers_over_one_connection_are_no_long_one() -> None:
    peer = Peer()
    for _ in range(3 * MOST_RECEIVED // MOST_BYTES):
        peer.ask()
        peer.receive(answer(b"x" * MOST_BYTES))
    assert not peer.transport.is_cut


def test_an_answer_that_ends_with_the_connection_is_delivered() -> None:
    peer = Peer()
    peer.ask()
    peer.receive(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"body")
    assert peer.bodies == []

    assert peer.wire.eof_received() is False, "asyncio closes the transport"
    assert peer.bodies == [b"body"]


def test_an_end_without_a_question_or_in_the_middle_of_an_answer_delivers_nothing() -> None:
    idle, cut = Peer(), Peer()
    cut.ask()
    cut.receive(answer(b"whole")[:-2])

    for peer in (idle, cut):
        assert peer.wire.eof_received() is False
    assert (idle.bodies, cut.bodies, cut.transport.is_cut) == ([], [], True)


def test_an_announced_end_is_seen_and_nothing_more_is_asked_over_that_connection() -> None:
    peer = Peer()
    peer.ask()
    assert not peer.wire.announced_end
    peer.receive(answer(b"last", "connection: close"))
    assert peer.wire.announced_end

    sent = peer.transport.sent
    peer.ask()
    assert (peer.transport.sent, peer.wire.is_asked, peer.bodies) == (sent, False, [b"last"])


def test_the_loss_is_reported_once_and_nothing_is_sent_afterwards() -> None:
    peer = Peer()
    peer.ask()
    sent = peer.transport.sent
    for _ in range(2):
        peer.wire.connection_lost(ConnectionResetError())
    peer.ask()

    assert (peer.losses, peer.wire.is_lost, peer.transport.sent) == (1, True, sent)


def test_who_closes_hears_nothing_more() -> None:
    peer = Peer()
    peer.ask()
    peer.wire.close()
    peer.receive(answer())
    peer.wire.connection_lost(None)

    assert (peer.transport.is_cut, peer.bodies, peer.losses) == (True, [], 0)
    Wire(peer).close()


def test_a_transport_that_is_no_stream_is_not_written_to() -> None:
    peer = Peer()
    peer.wire.connection_made(asyncio.BaseTransport())
    peer.ask()

    assert (peer.transport.sent, peer.wire.is_asked) == (b"", False)


# --- what the body says


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/health", b"/health"),
        ("health", b"/health"),
        ("/a b", b"/a%20b"),
        ("/a?b=c&d=e", b"/a?b=c&d=e"),
        ("/a\r\nx: y", b"/a%0D%0Ax:%20y"),
    ],
)
def test_a_path_is_quoted(path: str, target: bytes) -> None:
    assert question("10.0.0.1", path).target == target


def test_an_IPv6_address_is_bracketed() -> None:  # noqa: N802
    assert dict(question("fd00::1", "/").headers)[b"host"] == b"[fd00::1]"


@pytest.mark.parametrize(
    ("body", "report"),
    [
        (b"{}", Report(gateway="disconnected")),
        (
            b'{"shard": "1", "epoch": "10-x", "shards": 4, "gateway_status": "connected", "fenced": true, "version": "v2"}',
            Report(shard=1, epoch="10-x", shards=4, gateway="connected", fenced=True, version="v2"),
        ),
        (b'{"fenced": "yes", "shard": null}', Report(gateway="disconnected")),
        (b'{"uid": "9a-b"}', Report(uid="9a-b")),
        (b'{"stopping": true}', Report(stopping=True)),
        (b'{"uid": 9}', None),
        (b"", None),
        (b"<html>502 Bad Gateway</html>", None),
        (b'"text"', None),
        (b"[1]", None),
        (b'{"shard": "one"}', None),
        (b'{"shards": []}', None),
        (b"\xff\xfe\x00", None),
        (b'{"shards": 1e999}', None),
        (b'{"shard": -1e999}', None),
        (b'{"shard": 0, "epoch": 5}', None),
        (b'{"shard": 0, "epoch": ["10-x"]}', None),
        (b'{"version": {}}', None),
        (b"[" * 50_000, None),
    ],
)
def test_a_body_is_a_report_or_none(body: bytes, report: Report | None) -> None:
    assert read_report(body) == report


@pytest.mark.parametrize("who", ["here", "there"])
async def test_a_connection_that_ended_is_freed_at_once(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A garbage collection that frees it may be minutes away, and very many connections end until then."""
    loop, peer = asyncio.get_running_loop(), Peer()
    monkeypatch.setattr(peer, "lost", lambda _: None)
    accepted: asyncio.Future[asyncio.BaseTransport] = loop.create_future()
    ended = asyncio.Event()

    class Listening(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport)

    class Ending(Wire):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.set()

    server = await loop.create_server(Listening, "127.0.0.1", 0)
    transport, wire = await loop.create_connection(lambda: Ending(peer), *server.sockets[0].getsockname())
    held, other = weakref.ref(transport), await accepted
    del transport
    gc.disable()
    try:
        wire.close() if who == "here" else other.abort()  # type: ignore[attr-defined]
        del wire
        async with asyncio.timeout(60):
            await ended.wait()
        await asyncio.sleep(0)  # asyncio lets go of it after it has called
        assert held() is None
    finally:
        gc.enable()
        server.close()
