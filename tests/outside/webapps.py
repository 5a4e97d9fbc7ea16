"""Reaches the Webapps of a cluster and its simulator by their pods' addresses, as a client that was given the administrator's password."""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import httpx

from localkube import kubeconfig
from localkube.errors import LocalKubeError
from outside.client import UPSTREAM_PORT
from outside.laws import is_ready

Obj = dict[str, Any]

WEBAPP_PORT = 8443
TRY_SECONDS = 6.0
"""A Webapp answers after 5 s at the latest, when a Coreapp hangs."""
ASK_SECONDS = 60.0
"""In which everything that is asked once has an answer, also on a busy machine."""
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


class TrafficError(LocalKubeError):
    """The cluster could not be used as a client would; the text says what failed and where."""


class Webapps:
    """Use as an async context manager."""

    def __init__(self, kubeconfig_path: Path, namespace: str, cluster: str, *, proxy: str = "") -> None:
        """Prepare; ``proxy``: URL of an HTTP proxy to the pods."""
        self.namespace, self.cluster = namespace, cluster
        self._proxy = proxy or None
        self._cluster_api = kubeconfig.read(kubeconfig_path).client()
        self._webapps: list[str] = []
        self._turn = itertools.count()
        self._upstream = ""
        self._token = ""
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._login_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Find the Webapps and log in. Raises TrafficError."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        try:
            self._tls = await self._trust()
            await self._refresh()
            await self._log_in_at_first()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all connections."""
        if self._session is not None:
            await self._session.close()

    async def counters(self, *, within: float = ASK_SECONDS) -> Obj:
        """The simulator's own counters: accepted, duplicates, fenced and more. Raises TrafficError."""
        return await self._control("GET", "/control/counters", within=within)

    async def _try(self, method: str, path: str, body: Obj, headers: Mapping[str, str]) -> str:
        """One call to one Webapp, the next in turn: the status, or the name of the error; a token that ran out is replaced."""
        if not self._webapps:
            return "NoWebapp"
        token = self._token
        try:
            status, _ = await self._call(method, path, body, {**headers, "Authorization": f"Bearer {token}"})
        except NO_ANSWER as error:
            return type(error).__name__
        if status == 401:
            try:
                await self._log_in(token)
            except TrafficError:
                return "LoginRejected"
        return str(status)

    async def _call(self, method: str, path: str, body: Obj, headers: Mapping[str, str]) -> tuple[int, Obj]:
        if self._session is None or self._tls is None or not self._webapps:
            msg = f"no Webapp of {self.cluster} is known"
            raise TrafficError(msg)
        url = f"https://{self._webapps[next(self._turn) % len(self._webapps)]}:{WEBAPP_PORT}{path}"
        tls: Obj = {"ssl": self._tls, "server_hostname": f"{self.cluster}-webapp.{self.namespace}.svc"}
        timeout = aiohttp.ClientTimeout(total=TRY_SECONDS)
        async with self._session.request(method, url, json=body, headers=headers, proxy=self._proxy, timeout=timeout, **tls) as response:
            answer = await response.json(content_type=None)
            return response.status, answer if isinstance(answer, dict) else {}

    async def _log_in_at_first(self) -> None:
        """Log in as soon as a Webapp answers: on a busy machine one may give up a handshake."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ASK_SECONDS
        while not self._token:
            try:
                await self._log_in("")
            except TrafficError as error:
                if not isinstance(error.__cause__, NO_ANSWER) or loop.time() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _log_in(self, old: str) -> None:
        """Get a token, unless ``old`` was replaced meanwhile. TrafficError when the password is rejected or no Webapp answers."""
        async with self._login_lock:
            if self._token != old:
                return
            headers = {"Authorization": aiohttp.encode_basic_auth(*[await self._secret("admin", key) for key in ("username", "password")])}
            try:
                status, answer = await self._call("POST", "/v1/users/login", {}, headers)
                if status == 200:
                    self._token = answer["users"][0]["token"]
                    return
            except (*NO_ANSWER, LookupError) as error:
                msg = f"the Webapps of {self.cluster} do not answer a login: {type(error).__name__}"
                raise TrafficError(msg) from error
            msg = f"the Webapps of {self.cluster} reject the password in Secret {self.cluster}-admin: {status}"
            raise TrafficError(msg)

    async def _refresh(self) -> None:
        """Find where the Webapps and the simulator's upstream are now."""
        query = quote(f"multiconnect.dev/cluster={self.cluster}")
        pods = (await self._get(f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={query}"))["items"]
        self._take_addresses(pods)

    def _take_addresses(self, pods: list[Obj]) -> None:
        self._webapps = sorted(_addresses(pods, "webapp", is_ready))
        self._upstream = next(_addresses(pods, "simulator", lambda _: True), "")
        if not self._webapps:
            msg = f"no Webapp of {self.namespace}/{self.cluster} is ready"
            raise TrafficError(msg)

    async def _trust(self) -> ssl.SSLContext:
        """How the Webapps are known."""
        return ssl.create_default_context(cadata=await self._secret("webapp-tls", "ca.crt"))

    async def _secret(self, suffix: str, key: str) -> str:
        name = f"{self.cluster}-{suffix}"
        data = (await self._get(f"/api/v1/namespaces/{self.namespace}/secrets/{name}")).get("data") or {}
        try:
            return base64.b64decode(data[key], validate=True).decode()
        except (KeyError, binascii.Error, UnicodeDecodeError):
            msg = f"Secret {self.namespace}/{name} has no readable key {key}"
            raise TrafficError(msg) from None

    async def _get(self, path: str) -> Obj:
        try:
            response = await asyncio.to_thread(self._cluster_api.get, path, timeout=ASK_SECONDS)
            answer: Obj = response.json()
        except (httpx.HTTPError, ValueError) as error:
            msg = f"the API server does not answer {path}: {error}"
            raise TrafficError(msg) from error
        if response.status_code != 200:
            msg = f"the API server rejects {path}: {response.status_code} {answer.get('message', '')}"
            raise TrafficError(msg)
        return answer

    async def _control(self, method: str, path: str, *, within: float = ASK_SECONDS, **body: Any) -> Obj:
        """One call to the simulator's control endpoint."""
        if self._session is None or not self._upstream:
            msg = f"the simulator of {self.cluster} is not known: traffic runs only inside 'async with'"
            raise TrafficError(msg)
        url = f"http://{self._upstream}:{UPSTREAM_PORT}{path}"
        try:
            timeout = aiohttp.ClientTimeout(total=within)
            async with self._session.request(method, url, json=body or None, proxy=self._proxy, timeout=timeout) as response:
                answer: Obj = await response.json(content_type=None)
        except NO_ANSWER as error:
            msg = f"the simulator of {self.cluster} does not answer {path}: {type(error).__name__}: {error}"
            raise TrafficError(msg) from error
        if response.status >= 400:
            msg = f"the simulator of {self.cluster} rejects {path}: {answer}"
            raise TrafficError(msg)
        return answer


def _addresses(pods: list[Obj], component: str, fits: Callable[[Obj], bool]) -> Iterator[str]:
    for pod in pods:
        ip = (pod.get("status") or {}).get("podIP")
        if ip and pod["metadata"]["labels"].get("app.kubernetes.io/component") == component and fits(pod):
            yield ip
