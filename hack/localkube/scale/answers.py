"""All Coreapps and Webapps of the scale bench in one small process: they answer what the operator asks them, and their nodes are alive.

python -m localkube.scale.answers --kubeconfig FILE --plan FILE --ready FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any

from localkube.hollow.kube import Kube
from localkube.hollow.nodes import HollowNode
from localkube.plane import kubeconfig
from whatsapp_operator.core.manifests import HEALTHCHECK_PORT, WEBAPP_PORT

Obj = dict[str, Any]

BACKLOG = 16


class _Answerer(asyncio.Protocol):
    """Answers every request with the same; it reads no more of one than its end."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(self._answer)


class _Webapp(asyncio.Protocol):
    """Lets everybody in and says how many shards there are."""

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if not end or len(body) < length or self._transport is None:
            return
        self._read = b""
        meta = {"version": "v2.53.4", "api_status": "stable"}
        login: Obj = {"users": [{"token": "t" * 64, "expires_after": "2099-01-01 00:00:00+00:00"}], "meta": meta}
        account: Obj = {"account": {"shards": self._shards}, "meta": meta}
        self._transport.write(answer(login if head.startswith(b"POST /v1/users/login") else account))


def answer(body: Obj) -> bytes:
    """An HTTP answer with a JSON body."""
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


def _context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # ssl loads certificates from files only
        pem.write(certificate + key)
        pem.flush()
        context.load_cert_chain(pem.name)
    return context


async def listen(plan: Obj) -> None:
    """Listen on every address of a plan: ``coreapps`` maps addresses to reports, ``webapps`` lists addresses, certificate, key, shards."""
    loop = asyncio.get_running_loop()
    for ip, report in plan["coreapps"].items():
        said = answer(report)
        await loop.create_server(lambda said=said: _Answerer(said), ip, HEALTHCHECK_PORT, backlog=BACKLOG)  # type: ignore[misc]
    for one in plan["webapps"]:
        context, shards = _context(one["certificate"], one["key"]), one["shards"]
        for ip in one["addresses"]:
            await loop.create_server(lambda shards=shards: _Webapp(shards), ip, WEBAPP_PORT, ssl=context, backlog=BACKLOG)  # type: ignore[misc]


async def _run(options: argparse.Namespace) -> None:
    plan: Obj = json.loads(options.plan.read_text(encoding="utf-8"))
    await listen(plan)
    async with Kube(kubeconfig.read(options.kubeconfig)) as kube:
        nodes = [HollowNode(kube, one["name"], one["address"], one["zone"]) for one in plan["nodes"]]
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(node.keep())
            options.ready.touch()


def main() -> None:
    """Answer until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--kubeconfig", "--plan", "--ready"):
        parser.add_argument(name, type=Path, required=True)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
