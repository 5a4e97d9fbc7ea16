"""A storm of 429: an HTTPS server in the API server's place that tells everybody to come again later."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from localkube.plane.certificates import Certificates

RETRY_AFTER_S = 1


@dataclass(slots=True)
class Storm:
    """Where it is, and what it did."""

    address: tuple[str, int]
    """On loopback."""
    answered: int = 0
    """Requests that were answered 429."""


@asynccontextmanager
async def storm(certificates: Certificates) -> AsyncIterator[Storm]:
    """A server where every request is answered 429 with Retry-After, under the API server's own certificate."""
    made = Storm(("", 0))

    async def refuse(_: web.BaseRequest) -> web.Response:
        made.answered += 1
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429}
        status |= {"message": "Too many requests, please try again later.", "details": {"retryAfterSeconds": RETRY_AFTER_S}}
        return web.json_response(status, status=429, headers={"Retry-After": str(RETRY_AFTER_S)})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate("server"), certificates.key("server"))
    runner = web.ServerRunner(web.Server(refuse, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        address, port = runner.addresses[0][:2]
        made.address = (str(address), int(port))
        yield made
    finally:
        await runner.cleanup()
