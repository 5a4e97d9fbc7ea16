"""Many thousand calls to the API server, cheaply: what fills a control plane before it is measured. Plain dicts in and out."""

from __future__ import annotations

import ssl
import tempfile
from typing import Any, Self

import aiohttp
import msgspec

from localkube.errors import LocalKubeError
from localkube.plane.kubeconfig import Access

Obj = dict[str, Any]

CALL_S = 30.0


class Calls:
    """Use as an async context manager."""

    def __init__(self, access: Access) -> None:
        """Prepare; nothing is sent yet."""
        self._server = access.server
        self._tls = ssl.create_default_context(cadata=access.authority)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # ssl loads client certificates from files only
            pem.write(access.certificate + access.key)
            pem.flush()
            self._tls.load_cert_chain(pem.name)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), timeout=aiohttp.ClientTimeout(total=CALL_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Obj | None:
        """The object or list at a path, None if there is none."""
        return await self._call("GET", path)

    async def post(self, path: str, body: Obj) -> Obj:
        """Create an object."""
        return await self._call("POST", path, body) or {}

    async def patch(self, path: str, body: Obj, *, kind: str = "merge-patch+json") -> Obj:
        """Patch an object."""
        return await self._call("PATCH", path, body, f"application/{kind}") or {}

    async def _call(self, method: str, path: str, body: Obj | None = None, content_type: str = "application/json") -> Obj | None:
        if self._session is None:
            msg = "Calls is used outside of its 'async with' block"
            raise LocalKubeError(msg)
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(
                method, f"{self._server}{path}", data=data, headers={"Content-Type": content_type}
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            msg = f"{method} {path}: no answer ({type(error).__name__})"
            raise LocalKubeError(msg) from error
        if response.status == 404 and method == "GET":
            return None
        if response.status >= 300:
            msg = f"{method} {path}: {response.status}: {content[:300].decode('utf-8', 'replace')}"
            raise LocalKubeError(msg)
        answer: Obj = msgspec.json.decode(content)
        return answer
