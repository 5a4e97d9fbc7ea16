"""TLS and token towards the API server, by the files that the kubeconfig or the service account names; read again when rotated."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

if TYPE_CHECKING:
    import ssl

    from lightkube.config.kubeconfig import SingleConfig

UNREADABLE = (OSError, ValueError, ConfigError)
"""What reading a file may raise; ssl.SSLError is an OSError."""


class Trust:
    """The authority that this process trusts, and the client certificate that it presents."""

    def __init__(self, config: SingleConfig) -> None:
        """Read the files. Raises one of `UNREADABLE`."""
        self._config, self._user = config, config.user or User()
        self._read_at = self._state()
        self._context = self._read()

    @property
    def is_outdated(self) -> bool:
        """Whether a file has changed since the files were last read."""
        return self._state() != self._read_at

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now; while they cannot be read, the former one."""
        if self.is_outdated:
            state = self._state()
            with suppress(*UNREADABLE):  # the kubelet may be about to update them
                self._context, self._read_at = self._read(), state
        return self._context

    def _read(self) -> ssl.SSLContext:
        return verify_cluster(self._config.cluster, self._user, self._config.abs_file, trust_env=False)

    def _state(self) -> list[tuple[int, int] | None]:
        """Return what distinguishes the files from other versions of them; None stands for a missing file."""
        names = (self._config.cluster.certificate_auth, self._user.client_cert, self._user.client_key)
        return [version_of_file(self._config.abs_file(name)) for name in names if name]


class CurrentToken(httpx2.AsyncBaseTransport):
    """Sends the token that is in a file now; while none can be read, the former one.

    The library reads it again only after a 401. The API server may take an old token for a year, and notes each call with it as stale.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, path: str | os.PathLike[str]) -> None:
        self._inner = inner
        self._path = Path(path)
        self._read_at: tuple[int, int] | None = None
        self._token = ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request (called by the client library)."""
        version = version_of_file(self._path)
        if version not in {None, self._read_at}:
            with suppress(OSError):
                self._token, self._read_at = self._path.read_text(encoding="utf-8").strip() or self._token, version
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def version_of_file(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> tuple[int, int] | None:
    """Return what distinguishes a file from other versions of it; None: it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
