"""Requests to the API server. The only module that uses pykube-ng, which it loads only for what ``plain`` does not support."""

from __future__ import annotations

import base64
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import quote

from kubectl_whatsapp import Obj
from kubectl_whatsapp.errors import AccessError, RequestError
from kubectl_whatsapp.plain import Answer, Reader, needs_proxy

Timeout = float | tuple[float, float | None]
"""Seconds for each step. In a pair, the first is for the connection, the second for each silence."""
NAME_OF_HEADER: Final = "!#$&'*+-.^_`|~"
"""Characters that a header name may contain in addition to letters and digits (RFC 9110, 5.6.2)."""
CONTENT: Final = {"PATCH": "application/merge-patch+json", "DELETE": "application/json"}
"""The type of a body, by method."""
RENEWAL_REST: Final = 10.0
"""Shortest time between two requests for a new credential, in seconds: if each one is rejected, the user must not be asked every time."""


class Client:
    """Requests to the API server. Several threads may use it at once."""

    def __init__(self, config: Obj, renew: Callable[[], Obj] | None = None) -> None:
        """Prepare; nothing is sent yet. AccessError if a file cannot be used.

        ``config``: of one context, with certificates as files. ``renew`` returns one with a new credential.
        """
        self._renew, self._renewing = renew, threading.Lock()
        self._credential = 0
        """Counts credentials: if the requests of several threads are rejected, only one of them requests a new credential."""
        self._rests_until = 0.0
        self._lock = threading.Lock()
        self._use(config)
        self.server_date = ""
        """The Date header of the last answer: the API server's clock, by which other times are compared."""
        self.answered = 0.0
        """When the API server last answered with an object or a rejection, by the monotonic clock."""

    def _use(self, config: Obj) -> None:
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        headers = {"User-Agent": "kubectl-whatsapp", **dict(_impersonation(user))}
        try:
            credential = dict(_authorization(user))
            certificate = {"certificate": user.get("client-certificate") or "", "key": user.get("client-key") or ""}
            reader = None if needs_proxy(cluster) else Reader(cluster, headers | credential, **certificate)
        except OSError as error:
            msg = f"The kubeconfig cannot be used: {error}."
            raise AccessError(msg) from None
        with self._lock:
            self._config, self._headers, self._reader = config, headers, reader
            self._http: Any = None

    def _is_renewed(self, credential: int) -> bool:
        """Return whether there is a newer credential than this rejected one; requests it if no other thread has. RequestError."""
        with self._renewing:
            if self._credential != credential:
                return True
            if self._renew is None or time.monotonic() < self._rests_until:
                return False
            self._rests_until = time.monotonic() + RENEWAL_REST
            try:
                self._use(self._renew())
            except AccessError as error:
                raise RequestError(str(error), status=401) from None
            self._credential += 1
            return True

    def _library(self) -> Any:
        """The client library's client, created when it is first needed: the library takes a tenth of a second to load."""
        with self._lock:
            if self._http is None:
                self._http = self._made()
            return self._http

    def _made(self) -> Any:
        import pykube  # noqa: PLC0415

        cluster = self._config["clusters"][0]["cluster"]
        http = pykube.HTTPClient(pykube.KubeConfig(self._config))
        http.session.headers.update(self._headers)
        http.session.auth = _unchanged  # else a .netrc that names the host would replace the credential of the kubeconfig
        if cluster.get("insecure-skip-tls-verify"):
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")  # as configured; kubectl does not warn either
        if proxy := cluster.get("proxy-url"):
            http.session.proxies = {"http": proxy, "https": proxy}
        return http

    def close(self) -> None:
        """Close the connections; those in use close after their answers."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()
            if self._http is not None:
                self._http.session.close()

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        """Return what is at a path such as ``/api/v1/nodes``. RequestError."""
        return self._json("GET", path, None, timeout=timeout, query=query)

    def text(self, path: str, *, timeout: float, **query: str) -> str:
        """Return a text such as a pod's log. RequestError."""
        content: bytes = self._send("GET", path, None, timeout=timeout, query=query).content
        return content.decode("utf-8", "replace")

    def lines(self, path: str, *, timeout: float, **query: str) -> Iterator[str]:
        """Yield the lines of a text as they come, such as a log that is followed. RequestError."""
        answer = self._send("GET", path, None, timeout=(timeout, None), query=query, stream=True)
        import requests  # noqa: PLC0415

        try:
            with answer:
                yield from answer.iter_lines(decode_unicode=True, chunk_size=1)
        except (requests.RequestException, OSError) as error:
            raise RequestError(_connection_trouble(error)) from None

    def watch(self, path: str, *, timeout: float, silence: float, **query: str) -> Iterator[Obj]:
        """Begin a watch and return its events as they come. RequestError, also after so many seconds of ``silence``."""
        return _events(self._send("GET", path, None, timeout=(timeout, silence), query={**query, "watch": "true"}, stream=True))

    def patch(self, path: str, body: Obj, *, timeout: float, dry_run: bool = False) -> Obj:
        """Merge into an object; ``dry_run``: the API server judges it and stores nothing. RequestError."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._json("PATCH", path, body, timeout=timeout, query={**query, "fieldManager": "kubectl-whatsapp"})

    def delete(self, path: str, *, uid: str, timeout: float) -> Obj:
        """Delete exactly the object with this uid. RequestError."""
        return self._json("DELETE", path, {"preconditions": {"uid": uid}}, timeout=timeout, query={})

    def _json(self, method: str, path: str, body: Obj | None, *, timeout: float, query: Mapping[str, str]) -> Obj:
        found = _object(self._send(method, path, body, timeout=timeout, query=query))
        if not found:
            msg = "the answer is not a JSON object"
            raise RequestError(msg)
        self.answered = time.monotonic()
        return found

    def _send(
        self,
        method: str,
        path: str,
        body: Obj | None,
        *,
        timeout: Timeout,
        query: Mapping[str, str],
        stream: bool = False,
    ) -> Any:
        credential = self._credential
        answer = self._answer(method, path, body, timeout, query, stream=stream)
        if answer.status_code == 401 and self._is_renewed(credential):
            answer = self._answer(method, path, body, timeout, query, stream=stream)
        self.server_date = answer.headers.get("Date") or self.server_date
        if answer.status_code >= 400:
            self.answered = time.monotonic()
            raise _rejection(answer)
        return answer

    def _answer(self, method: str, path: str, body: Obj | None, timeout: Timeout, query: Mapping[str, str], *, stream: bool) -> Any:
        answer: Any = None
        if not stream and (reader := self._reader) is not None:
            send = reader.get if method == "GET" else partial(reader.write, method, body=json.dumps(body), content=CONTENT[method])
            answer = self._plain(send, path, query, timeout if isinstance(timeout, float | int) else timeout[0])
        if answer is None or 300 <= answer.status_code < 400:  # the client library follows redirects
            answer = self._ask(method, path, body, timeout, query, stream=stream)
        return answer

    def _plain(self, send: Callable[..., Answer], path: str, query: Mapping[str, str], timeout: float) -> Answer:
        try:
            return send(path, query, timeout=timeout)
        except TimeoutError:
            raise RequestError(_silence(timeout)) from None
        except (OSError, HTTPException) as error:
            raise RequestError(_connection_trouble(error)) from None

    def _ask(self, method: str, path: str, body: Obj | None, timeout: Timeout, query: Mapping[str, str], *, stream: bool) -> Any:
        """Send a request by the client library."""
        import requests  # noqa: PLC0415

        http = self._library()
        headers = {"Content-Type": CONTENT.get(method, "")}
        data = json.dumps(body) if body is not None else None
        url = http.url.rstrip("/") + path
        try:
            answer = http.session.request(
                method, url, params=dict(query), data=data, headers=headers if data else None, timeout=timeout, stream=stream
            )
        except requests.Timeout:
            raise RequestError(_silence(timeout[0] if isinstance(timeout, tuple) else timeout)) from None
        except (requests.RequestException, OSError) as error:
            raise RequestError(_connection_trouble(error)) from None
        answer.encoding = "utf-8"  # else a text without a named encoding would be read as Latin-1
        return answer


def _silence(seconds: float) -> str:
    return f"no answer within {seconds:.1f} s"


def _unchanged(request: Any) -> Any:
    return request


def _events(answer: Any) -> Iterator[Obj]:
    import requests  # noqa: PLC0415

    try:
        with answer:
            yield from (json.loads(line) for line in answer.iter_lines(chunk_size=None) if line)
    except (requests.RequestException, OSError, ValueError) as error:
        raise RequestError(_connection_trouble(error)) from None


def _object(answer: Any) -> Obj:
    """The JSON object in an answer; empty if it is not one."""
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return _cleaned(found) if isinstance(found, dict) else {}


_CONTROLS: Final = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def _cleaned(value: Any) -> Any:
    """Return a value without control characters: the author of a message must not control the reader's terminal."""
    if isinstance(value, str):
        return value if value.isprintable() else value.translate(_CONTROLS)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(one) for key, one in value.items()}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value


def _rejection(answer: Any) -> RequestError:
    found = _object(answer)
    text = " ".join(str(found.get("message") or answer.reason or "").split())[:1000]
    if answer.status_code == 401:
        text = "the API server does not accept the credential of this kubeconfig (401 Unauthorized); log in again"
    elif answer.status_code == 404 and not found:
        text = "the server does not know this resource (404 page not found): is the CustomResourceDefinition installed?"
    return RequestError(text or f"HTTP {answer.status_code}", status=answer.status_code, details=found)


def _impersonation(user: Obj) -> Iterator[tuple[str, str]]:
    """The headers of a kubeconfig that impersonates another user. The library ``requests`` can send each header only once."""
    for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if user.get(key):
            yield header, str(user[key])
    lists = {"Impersonate-Group": user.get("as-groups") or ()}
    for key, values in (user.get("as-user-extra") or {}).items():
        lists[f"Impersonate-Extra-{quote(key, safe=NAME_OF_HEADER)}"] = values or ()
    for header, values in lists.items():
        if len(values) > 1:
            what = "several groups (as-groups)" if header == "Impersonate-Group" else "several values of one key (as-user-extra)"
            msg = f"The kubeconfig impersonates a user with {what}; this plugin can send only one."
            raise AccessError(msg)
        yield from ((header, str(value)) for value in values)


def _authorization(user: Obj) -> Iterator[tuple[str, str]]:
    """The header with the credential of a kubeconfig, unless it is a certificate."""
    if token := user.get("token"):
        yield "Authorization", f"Bearer {token}"
    elif user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}".encode()
        yield "Authorization", f"Basic {base64.b64encode(pair).decode()}"


def _connection_trouble(error: Exception) -> str:
    """The innermost cause of a failed connection: the only one that helps a person."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    said = " ".join(str(inner).split())[:200] or type(inner).__name__
    return f"the API server cannot be reached ({said})"
