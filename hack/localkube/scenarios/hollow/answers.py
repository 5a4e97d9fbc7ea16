"""All Coreapps and Webapps of the scale bench in one small process: they answer what the operator asks them.

python -m localkube.scenarios.hollow.answers --plan FILE --ready FILE
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import tempfile
from functools import partial
from pathlib import Path
from typing import cast

from localkube import Obj
from whatsapp_operator.core.manifests import HEALTHCHECK_PORT, WEBAPP_PORT

BACKLOG = 16
META = {"version": "v2.53.4", "api_status": "stable"}


class Answerer(asyncio.Protocol):
    """Answers each piece that comes with the same: a Coreapp, whose probes are a piece each."""

    _transport: asyncio.Transport  # from connection_made on

    def __init__(self, answer: bytes) -> None:
        """``answer``: all of it, as HTTP."""
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio asks."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio asks."""
        self._transport.write(self._answer)


class _Webapp(Answerer):
    """Accepts every login and says how many shards there are."""

    def __init__(self, shards: int) -> None:
        super().__init__(answer({"account": {"shards": shards}, "meta": META}))
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        if end and len(body) >= length:
            self._read = b""
            self._transport.write(LOGIN if head.startswith(b"POST /v1/users/login") else self._answer)


def answer(body: Obj) -> bytes:
    """An HTTP answer with a JSON body."""
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


LOGIN = answer({"users": [{"token": "t" * 64, "expires_after": "2099-01-01 00:00:00+00:00"}], "meta": META})


async def listen(plan: Obj) -> None:
    """Listen on every address of a plan: ``coreapps`` maps addresses to reports, ``webapps`` lists addresses, certificate, key, shards."""
    loop = asyncio.get_running_loop()
    for ip, report in plan["coreapps"].items():
        await loop.create_server(partial(Answerer, answer(report)), ip, HEALTHCHECK_PORT, backlog=BACKLOG)
    for one in plan["webapps"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # ssl loads certificates from files only
            pem.write(one["certificate"] + one["key"])
            pem.flush()
            context.load_cert_chain(pem.name)
        for ip in one["addresses"]:
            await loop.create_server(partial(_Webapp, one["shards"]), ip, WEBAPP_PORT, ssl=context, backlog=BACKLOG)


async def _run(options: argparse.Namespace) -> None:
    await listen(json.loads(options.plan.read_text(encoding="utf-8")))
    options.ready.touch()
    await asyncio.Event().wait()


def main() -> None:
    """Answer until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--plan", "--ready"):
        parser.add_argument(name, type=Path, required=True)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
