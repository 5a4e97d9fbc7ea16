"""GET requests with only the standard library.

Most commands only read, and the client library takes long to load: ``status`` of a running demo on 2 CPUs took 0.48 s (p95) with it
and 0.28 s without it.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import weakref
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from kubectl_whatsapp import Obj

PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
"""Variables that name a proxy, in upper or lower case. Only the client library interprets them."""


class Answer:
    """A complete answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        """Read it. OSError or HTTPException if that fails."""
        self.status_code, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self.content = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            import gzip  # noqa: PLC0415  # only long answers are compressed

            self.content = gzip.decompress(self.content)


class Reader:
    """Sends GET requests, and keeps connections open for later ones. Several threads may use it at once."""

    def __init__(self, cluster: Obj, headers: Mapping[str, str], *, certificate: str = "", key: str = "") -> None:
        """Prepare; nothing is sent yet. OSError if a file cannot be used. ``cluster``: of a kubeconfig, with certificates as files."""
        url = urlsplit(cluster["server"])
        self._host, self._port, self._prefix = url.hostname or "", url.port, url.path.rstrip("/")
        self._headers = {**headers, "Accept": "application/json", "Accept-Encoding": "gzip"}
        self._server_name = cluster.get("tls-server-name") or self._host
        self._trust = _trust(cluster, certificate, key) if url.scheme == "https" else None
        self._idle: list[http.client.HTTPConnection] = []
        self._is_closed = False
        weakref.finalize(self, _close, self._idle)

    def get(self, path: str, query: Mapping[str, str], *, timeout: float) -> Answer:
        """Return the answer. OSError (including TimeoutError) or HTTPException if there is none; ``timeout``: seconds for each step."""
        target = quote(f"{self._prefix}{path}", safe="/%:@!$&'()*+,;=") + (f"?{urlencode(query)}" if query else "")
        while True:
            try:
                connection, is_fresh = self._idle.pop(), False
            except IndexError:
                connection, is_fresh = self._connection(), True
            try:
                return self._answer(connection, target, timeout)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # The API server may close an idle connection at any time.
                if is_fresh or isinstance(error, TimeoutError):
                    raise

    def _answer(self, connection: http.client.HTTPConnection, target: str, timeout: float) -> Answer:
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        connection.request("GET", target, headers=self._headers)
        answer = Answer(response := connection.getresponse())
        if not response.will_close:
            self._idle.append(connection)
        if self._is_closed:
            _close(self._idle)
        return answer

    def close(self) -> None:
        """Close the idle connections; one in use closes after its answer."""
        self._is_closed = True
        _close(self._idle)

    def _connection(self) -> http.client.HTTPConnection:
        return _Connection(self._host, self._port or (443 if self._trust else 80), self._trust, self._server_name)


class _Connection(http.client.HTTPConnection):
    """A connection to a server; its certificate may have another name than its address. Without TLS if ``trust`` is None."""

    def __init__(self, host: str, port: int, trust: ssl.SSLContext | None, server_name: str) -> None:
        super().__init__(host, port)
        self._trust, self._server_name = trust, server_name

    def connect(self) -> None:
        self.sock = socket.create_connection((_encoded(self.host), self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._trust is not None:
            self.sock = self._trust.wrap_socket(self.sock, server_hostname=_encoded(self._server_name))


def _encoded(name: str) -> Any:
    """An ASCII name as bytes: given a text, Python would load its tables for international domain names."""
    return name.encode() if name.isascii() else name


def _close(connections: list[http.client.HTTPConnection]) -> None:
    for one in connections:
        one.close()


def _trust(cluster: Obj, certificate: str, key: str) -> ssl.SSLContext:
    # Not the default context: since Python 3.13 it rejects authorities that kubectl accepts.
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cluster.get("insecure-skip-tls-verify"):
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    elif authority := cluster.get("certificate-authority"):
        trust.load_verify_locations(cafile=authority)
    else:
        trust.load_default_certs()
    if certificate:
        trust.load_cert_chain(certificate, key or None)
    return trust


def needs_proxy(cluster: Obj) -> bool:
    """Return whether a proxy may be needed, which this module does not support."""
    return bool(cluster.get("proxy-url")) or any(os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES)
