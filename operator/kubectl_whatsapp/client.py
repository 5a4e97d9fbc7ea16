"""Requests to the API server. Alone knows pykube-ng, which it loads only for what the standard library does not do."""

from __future__ import annotations

import base64
import json
import threading
import warnings
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any, Final

from kubectl_whatsapp.errors import AccessError, RequestError
from kubectl_whatsapp.plain import Answer, Reader, needs_proxy

Obj = dict[str, Any]

Timeout = float | tuple[float, float | None]
"""Seconds for each step; of a pair the first for the connection, the second for each silence."""


class Client:
    """Requests to the API server. Several threads may use it at once."""

    def __init__(self, config: Obj) -> None:
        """Prepare; nothing is sent yet. AccessError if a file cannot be used. ``config``: of one context, with certificates as files."""
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._config = config
        self._headers = {"User-Agent": "kubectl-whatsapp", **dict(_impersonation(user))}
        self._lock = threading.Lock()
        self._http: Any = None
        try:
            credential = dict(_authorization(user))
            certificate = {"certificate": user.get("client-certificate") or "", "key": user.get("client-key") or ""}
            self._reader = None if needs_proxy(cluster) else Reader(cluster, self._headers | credential, **certificate)
        except OSError as error:
            msg = f"The kubeconfig cannot be used: {error}."
            raise AccessError(msg) from None
        self.server_date = ""
        """The Date header of the last answer: the API server's clock, by which other times are compared."""

    def _session(self) -> Any:
        """The client library's session. The library takes a tenth of a second to load, so it is made when it is needed."""
        with self._lock:
            if self._http is None:
                self._http = self._made()
            return self._http.session

    def _made(self) -> Any:
        import pykube  # noqa: PLC0415

        cluster = self._config["clusters"][0]["cluster"]
        http = pykube.HTTPClient(pykube.KubeConfig(self._config))
        http.session.headers.update(self._headers)
        http.session.auth = _unchanged  # else a .netrc that names the host would replace the credential of the kubeconfig
        if cluster.get("insecure-skip-tls-verify"):
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")  # asked for, and kubectl does not warn either
        if proxy := cluster.get("proxy-url"):
            http.session.proxies = {"http": proxy, "https": proxy}
        return http

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
            msg = "the answer is no JSON object"
            raise RequestError(msg)
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
        answer: Any = None
        if method == "GET" and not stream and self._reader is not None:
            answer = self._read(self._reader, path, timeout if isinstance(timeout, float | int) else timeout[0], query)
        if answer is None or 300 <= answer.status_code < 400:  # the client library follows redirects
            answer = self._ask(method, path, body, timeout, query, stream=stream)
        self.server_date = answer.headers.get("Date") or self.server_date
        if answer.status_code >= 400:
            raise _rejection(answer)
        return answer

    def _read(self, reader: Reader, path: str, timeout: float, query: Mapping[str, str]) -> Answer:
        try:
            return reader.get(path, query, timeout=timeout)
        except TimeoutError:
            raise RequestError(_silence(timeout)) from None
        except (OSError, HTTPException) as error:
            raise RequestError(_connection_trouble(error)) from None

    def _ask(self, method: str, path: str, body: Obj | None, timeout: Timeout, query: Mapping[str, str], *, stream: bool) -> Any:
        """Send a request by the client library."""
        import requests  # noqa: PLC0415

        session = self._session()
        headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
        data = json.dumps(body) if body is not None else None
        url = self._http.url.rstrip("/") + path
        try:
            answer = session.request(
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
    """The JSON object of an answer; empty if it is none."""
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return _cleaned(found) if isinstance(found, dict) else {}


_CONTROLS: Final = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def _cleaned(value: Any) -> Any:
    """Return a value without control characters: an author of a message must not control the terminal of its reader."""
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
    return RequestError(text or f"HTTP {answer.status_code}", status=answer.status_code, details=found)


def _impersonation(user: Obj) -> Iterator[tuple[str, str]]:
    """The headers of a kubeconfig that acts as another user. Requests can send one group only."""
    if name := user.get("as"):
        yield "Impersonate-User", str(name)
    groups = user.get("as-groups") or ()
    if len(groups) > 1:
        msg = "The kubeconfig acts as several groups (as-groups); this plugin can send one."
        raise AccessError(msg)
    yield from (("Impersonate-Group", str(group)) for group in groups)


def _authorization(user: Obj) -> Iterator[tuple[str, str]]:
    """The header with the credential of a kubeconfig, unless it is a certificate."""
    if token := user.get("token"):
        yield "Authorization", f"Bearer {token}"
    elif user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}".encode()
        yield "Authorization", f"Basic {base64.b64encode(pair).decode()}"


def _connection_trouble(error: Exception) -> str:
    """The innermost cause of a failed connection, which alone says something to a person."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    said = " ".join(str(inner).split())[:200] or type(inner).__name__
    return f"the API server cannot be reached ({said})"
