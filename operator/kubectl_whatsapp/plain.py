"""Requests with only the standard library.

Most commands only read, and the client library takes long to load: ``status`` of a running demo on 2 CPUs took 0.48 s (p95) with it
and 0.28 s without it.
"""

from __future__ import annotations

import http.client
import os
import queue
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from kubectl_whatsapp import Obj

PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
"""Variables that name a proxy, in upper or lower case. Only the client library interprets them."""

SLOW: Final = 0.4
"""Seconds without an answer after which a request may have gone to an API server that hangs."""
MOST_SENT: Final = 3
"""How often a request is sent that only reads."""
CONNECT: Final = 1.0
"""Seconds for opening a connection for a change before another one is tried."""


class Answer:
    """A complete answer."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        """Read it. OSError or HTTPException if that fails."""
        self.status_code, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self.content = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            import gzip  # noqa: PLC0415  # only long answers are compressed
            import zlib  # noqa: PLC0415

            try:
                self.content = gzip.decompress(self.content)
            except (EOFError, zlib.error) as error:
                raise http.client.HTTPException(str(error)) from None


Ends = queue.SimpleQueue[Answer | Exception | None]
"""How the sendings of a request ended; None: an answer begins."""


class Reader:
    """Sends requests, and keeps connections open for later ones. Several threads may use it at once."""

    def __init__(self, cluster: Obj, headers: Mapping[str, str], *, certificate: str = "", key: str = "") -> None:
        """Prepare; nothing is sent yet. OSError if a file cannot be used. ``cluster``: of a kubeconfig, with certificates as files."""
        url = urlsplit(cluster["server"])
        self._host, self._port, self._prefix = url.hostname or "", url.port, url.path.rstrip("/")
        self._headers = {**headers, "Accept": "application/json", "Accept-Encoding": "gzip"}
        self._server_name = cluster.get("tls-server-name") or self._host
        self._trust = _trust(cluster, certificate, key) if url.scheme == "https" else None
        self._idle: list[_Connection] = []
        self._is_closed = False
        weakref.finalize(self, _close, self._idle)

    def get(self, path: str, query: Mapping[str, str], *, timeout: float) -> Answer:
        """Return the answer. OSError (including TimeoutError) or HTTPException if there is none; ``timeout``: seconds for each step.

        Of several API servers behind a load balancer one may hang. A request without an answer is therefore sent again over another
        connection, one that has answered if there is such a one, and the first answer counts. It is not once an answer begins: a slow
        connection must not carry a long answer three times.
        """
        target = self._target(path, query)
        ended: Ends = queue.SimpleQueue()
        failed = list[Exception]()
        sent, is_begun = 0, False
        while True:
            wait = None if is_begun or sent == MOST_SENT else min(SLOW, timeout / MOST_SENT)
            try:
                answer = ended.get(timeout=wait if sent else 0)
            except queue.Empty:
                # Daemon threads: one that hangs does not keep the process alive.
                threading.Thread(target=self._send, args=(target, timeout, ended), name=f"get {path}", daemon=True).start()
                sent += 1
                continue
            if isinstance(answer, Answer):
                return answer
            if answer is None:
                is_begun = True
                continue
            failed.append(answer)
            # The time is up for the first one, or none is left.
            if isinstance(answer, TimeoutError) or len(failed) == sent:
                raise failed[0]

    def write(self, method: str, path: str, query: Mapping[str, str], *, body: str, content: str, timeout: float) -> Answer:
        """Send a request that may change something, once. Raises as ``get``. ``content``: the type of the body.

        An API server that hangs does not finish a TLS handshake: another connection is tried before anything is sent.
        """
        connection = self._connection()
        for wait in (*[min(CONNECT, timeout)] * (MOST_SENT - 1), timeout):
            connection.timeout = wait
            try:
                connection.connect()
                break
            except TimeoutError:
                if wait == timeout:
                    raise
        try:
            return self._answer(connection, self._target(path, query), timeout, method=method, body=body, headers={"Content-Type": content})
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def _target(self, path: str, query: Mapping[str, str]) -> str:
        return quote(f"{self._prefix}{path}", safe="/%:@!$&'()*+,;=") + (f"?{urlencode(query)}" if query else "")

    def _send(self, target: str, timeout: float, ended: Ends) -> None:
        try:
            ended.put(self._get(target, timeout, lambda: ended.put(None)))
        except Exception as error:  # the caller raises it
            ended.put(error)

    def _get(self, target: str, timeout: float, begun: Callable[[], None]) -> Answer:
        while True:
            try:
                connection, is_fresh = self._idle.pop(), False
            except IndexError:
                connection, is_fresh = self._connection(), True
            try:
                return self._answer(connection, target, timeout, begun=begun)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # The API server may close an idle connection at any time.
                if is_fresh or isinstance(error, TimeoutError):
                    raise

    def _answer(
        self,
        connection: _Connection,
        target: str,
        timeout: float,
        *,
        method: str = "GET",
        body: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        begun: Callable[[], None] = lambda: None,
    ) -> Answer:
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        connection.request(method, target, body, {**self._headers, **headers})
        response = connection.getresponse()
        begun()
        answer = Answer(response)
        if not response.will_close:
            self._idle.append(connection)
        if self._is_closed:
            _close(self._idle)
        return answer

    def close(self) -> None:
        """Close the idle connections; one in use closes after its answer."""
        self._is_closed = True
        _close(self._idle)

    def _connection(self) -> _Connection:
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
            self.sock = self._trust.wrap_socket(self.sock, server_hostname=_encoded(self._server_name))  # closes it if that fails


def _encoded(name: str) -> Any:
    """An ASCII name as bytes: given a text, Python would load its tables for international domain names."""
    return name.encode() if name.isascii() else name


def _close(connections: list[_Connection]) -> None:
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
