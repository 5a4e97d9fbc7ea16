"""The way to the API server: kubectl's own configuration, exec credentials, and one request at a time. Alone knows pykube-ng.

pykube-ng's last release does not read a merged KUBECONFIG, knows no exec plugin of ``client.authentication.k8s.io/v1``, and writes client
keys to files in the temporary folder that everyone can read. So kubectl itself merges and picks the configuration, an exec plugin is run
once here, and certificates and keys lie in a folder of this user's own that goes with the process.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from kubectl_whatsapp.plain import Answer, Reader, needs_proxy

Obj = dict[str, Any]

KUBECTL_SECONDS: Final = 10.0
"""Within so long kubectl must have printed its configuration."""
CREDENTIAL_SECONDS: Final = 60.0
"""Within so long an exec plugin must have printed a credential: it may ask a person to log in."""
EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
"""The versions of exec credentials that are served (kubernetes.io, "client-go credential plugins")."""
FILES: Final = ("certificate-authority", "client-certificate", "client-key")


class AccessError(Exception):
    """There is no way to the API server; the message says why, and what to do."""


class RequestError(Exception):
    """A request did not lead to what was asked for; the message says why in a few words."""

    def __init__(self, message: str, *, status: int | None = None, details: Obj | None = None) -> None:
        """``status``: of HTTP, None without an answer; ``details``: the API server's own Status object, if it sent one."""
        super().__init__(message)
        self.status = status
        self.details = details or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """kubectl's own flags that say where to go; empty means as kubectl would choose."""

    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""

    def as_flags(self) -> list[str]:
        """The flags for kubectl."""
        pairs = (("--context", self.context), ("--kubeconfig", self.kubeconfig))
        return [f"{flag}={value}" for flag, value in pairs if value]


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and a credential for it. Its repr shows no secret."""

    config: Obj = field(repr=False)
    """A kubeconfig with one context, without data and without an exec plugin: certificates are files."""
    namespace: str
    """The one that was asked for, else the context's."""
    context: str
    server: str
    user: str = ""
    """As the kubeconfig names it."""
    asked_for: float = 0.0
    """Seconds that a credential plugin took: it may have asked a person."""

    def client(self) -> Client:
        """A client of the API server, for all threads. AccessError if a file of the kubeconfig is not there."""
        return Client(self)

    def secrets(self) -> Iterator[str]:
        """Every credential that is in it, so that a report can be searched for them."""
        user = self.config["users"][0]["user"]
        yield from (str(user[key]) for key in ("token", "password") if user.get(key))


def find(options: Options, *, environ: Mapping[str, str] = os.environ) -> Access:
    """Find the API server as kubectl would, and get a credential. AccessError says why that is not possible."""
    command = _view(options, environ)
    started = _started.pop(tuple(command), None)
    printed = _run(command, environ, KUBECTL_SECONDS, "kubectl cannot say where the API server is", started=started)
    try:
        config = json.loads(printed)
    except ValueError:
        msg = f"kubectl printed no configuration that can be read: {' '.join(command[1:])}"
        raise AccessError(msg) from None
    return access_of(config, options, environ=environ)


def _view(options: Options, environ: Mapping[str, str]) -> list[str]:
    kubectl = environ.get("KUBECTL") or shutil.which("kubectl", path=environ.get("PATH"))
    if kubectl is None:
        msg = "kubectl is not in PATH. This plugin takes its configuration from it: install kubectl, or name it in the variable KUBECTL."
        raise AccessError(msg)
    return [kubectl, *options.as_flags(), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]


_started: Final[dict[tuple[str, ...], subprocess.Popen[str]]] = {}
"""kubectl, by its command line, if it was started and nobody has asked for its answer yet."""


@contextmanager
def kubectl_started(words: Sequence[str]) -> Iterator[None]:
    """Have kubectl run, with the flags among these words of a command line, while the rest of this program is loaded.

    It only saves time: ``find`` starts kubectl again if it needs other flags. At the end a kubectl that nobody needed is ended.
    """
    with suppress(AccessError, OSError):  # ``find`` says so
        command = _view(Options(context=_value_of("--context", words), kubeconfig=_value_of("--kubeconfig", words)), os.environ)
        _started[tuple(command)] = _start(command, os.environ)
    try:
        yield
    finally:
        while _started:
            _, process = _started.popitem()
            with process:
                process.kill()


def _value_of(flag: str, words: Sequence[str]) -> str:
    """The last value of a flag, as ``--flag value`` or ``--flag=value``; empty without one."""
    values = [after for word, after in pairwise((*words, "")) if word == flag]
    values += [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
    return values[-1] if values else ""


def access_of(config: Obj, options: Options, *, environ: Mapping[str, str] = os.environ) -> Access:
    """Return the access that a kubeconfig of one context gives (``kubectl config view --raw --minify --flatten``)."""
    try:
        context = config["contexts"][0]
        cluster: Obj = dict(config["clusters"][0]["cluster"])
        user: Obj = dict((config.get("users") or [{"user": {}}])[0].get("user") or {})
        server = str(cluster["server"])
    except (KeyError, IndexError, TypeError):
        msg = "The kubeconfig names no cluster. See `kubectl config get-contexts`, then choose one with --context."
        raise AccessError(msg) from None
    begun = time.monotonic()
    if plugin := user.pop("exec", None):
        user |= credential(plugin, cluster, environ=environ)
    if "auth-provider" in user:
        msg = "The kubeconfig logs in by auth-provider, which kubectl itself no longer knows. Use a credential plugin (users[].user.exec)."
        raise AccessError(msg)
    if path := user.pop("tokenFile", None):
        user["token"] = _read(path)
    asked_for = time.monotonic() - begun
    folder = _private_folder()
    for part in (cluster, user):
        _write_files(part, folder)
    name = context.get("name") or "default"
    found = {
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": name,
    }
    namespace = options.namespace or (context.get("context") or {}).get("namespace") or "default"
    named = (context.get("context") or {}).get("user") or ""
    return Access(config=found, namespace=namespace, context=name, server=server, user=named, asked_for=asked_for)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"The token in {path}, which the kubeconfig names, cannot be read: {error.strerror}."
        raise AccessError(msg) from None


def credential(plugin: Obj, cluster: Obj, *, environ: Mapping[str, str] = os.environ) -> Obj:
    """Run an exec plugin and return what it gives as fields of a kubeconfig's user. AccessError says why it gives nothing."""
    version, command = plugin.get("apiVersion"), str(plugin.get("command") or "")
    if version not in EXEC_VERSIONS:
        msg = f"The credential plugin {command or '?'} has the version {version}; {' and '.join(EXEC_VERSIONS)} are supported."
        raise AccessError(msg)
    is_interactive = plugin.get("interactiveMode", "IfAvailable") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    spec: Obj = {"interactive": is_interactive}
    if plugin.get("provideClusterInfo"):
        kept = {"server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url"}
        spec["cluster"] = {key: value for key, value in cluster.items() if key in kept}
    information = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    variables = {one["name"]: one["value"] for one in plugin.get("env") or ()}
    found = {**environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(information)}
    called = [command, *(plugin.get("args") or ())]
    hint = f" {plugin['installHint']}" if plugin.get("installHint") else ""
    printed = _run(
        called, found, CREDENTIAL_SECONDS, f"The credential plugin {command} gives no credential", hint=hint, asks=is_interactive
    )
    try:
        status = json.loads(printed)["status"]
        certificate = {key: base64.b64encode(status[name].encode()).decode() for key, name in _CERTIFICATES.items() if status.get(name)}
    except (ValueError, KeyError, TypeError, AttributeError):
        msg = f"The credential plugin {command} printed no ExecCredential with a status.{hint}"
        raise AccessError(msg) from None
    token = {"token": status["token"]} if status.get("token") else {}
    if not token and certificate.keys() != _CERTIFICATES.keys():
        msg = f"The credential plugin {command} gave neither a token nor a certificate with its key.{hint}"
        raise AccessError(msg)
    return {**token, **certificate}


_CERTIFICATES: Final = {"client-certificate-data": "clientCertificateData", "client-key-data": "clientKeyData"}


def _start(command: Sequence[str], environ: Mapping[str, str], *, asks: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(  # what kubectl's configuration names, as a list
        list(command),
        env=dict(environ),
        stdin=None if asks else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if asks else subprocess.PIPE,
        text=True,
    )


def _run(
    command: Sequence[str],
    environ: Mapping[str, str],
    seconds: float,
    failed: str,
    *,
    hint: str = "",
    asks: bool = False,
    started: subprocess.Popen[str] | None = None,
) -> str:
    """Return what a program prints; ``started``: it runs already."""
    try:
        with started or _start(command, environ, asks=asks) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except:
                process.kill()
                raise
    except subprocess.TimeoutExpired:
        msg = f"{failed}: no answer within {seconds:g} s.{hint}"
        raise AccessError(msg) from None
    except OSError as error:
        msg = f"{failed}: {error.strerror or error}.{hint}"
        raise AccessError(msg) from None
    if process.returncode:
        why = " ".join((err or "").split())[:300] or f"it ended with {process.returncode}"
        msg = f"{failed}: {why}.{hint}"
        raise AccessError(msg)
    return out


def _private_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="kubectl-whatsapp-")  # only this user can enter it
    _folders.append(folder)
    return Path(folder)


_folders: Final[list[str]] = []


@atexit.register
def remove_files() -> None:
    """Remove the certificates and keys of this process."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def _write_files(part: Obj, folder: Path) -> None:
    """Replace data by files, for pykube-ng would write it where everyone can read it."""
    for key in FILES:
        data = part.pop(f"{key}-data", None)
        if data is None:
            continue
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError, TypeError):
            msg = f"{key}-data of the kubeconfig is not base64."
            raise AccessError(msg) from None
        path = folder / key
        path.touch(mode=0o600)
        path.write_bytes(content)
        part[key] = str(path)


Timeout = float | tuple[float, float | None]
"""Seconds for each step; of a pair the first for the connection, the second for each silence."""


class Client:
    """Requests to the API server. Several threads may use it at once."""

    def __init__(self, access: Access) -> None:
        """Prepare; nothing is sent yet. AccessError if a file of the kubeconfig is not there."""
        cluster, user = access.config["clusters"][0]["cluster"], access.config["users"][0]["user"]
        self._access = access
        self._headers = {"User-Agent": "kubectl-whatsapp", **dict(_impersonation(user))}
        self._lock = threading.Lock()
        self._http: Any = None
        try:
            credential = dict(_authorization(user))
            certificate = {"certificate": user.get("client-certificate") or "", "key": user.get("client-key") or ""}
            reader = Reader(cluster, self._headers | credential, **certificate)
        except OSError as error:
            msg = f"The kubeconfig cannot be used: {_unusable(cluster, user) or error}."
            raise AccessError(msg) from None
        self._reader = None if needs_proxy(cluster) else reader
        self.server_date = ""
        """The Date header of the last answer: the API server's clock, by which other times are compared."""

    def _session(self) -> Any:
        """The client library's session, and the server's address. It takes a tenth of a second to load, and is made when it is needed."""
        with self._lock:
            if self._http is None:
                self._http = self._made()
            return self._http.session

    def _made(self) -> Any:
        import pykube  # noqa: PLC0415

        cluster = self._access.config["clusters"][0]["cluster"]
        http = pykube.HTTPClient(pykube.KubeConfig(self._access.config))
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
        with answer:
            yield from answer.iter_lines(decode_unicode=True, chunk_size=1)

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
        if method == "GET" and not stream and self._reader is not None:
            answer: Any = self._read(self._reader, path, timeout if isinstance(timeout, float | int) else timeout[0], query)
        else:
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


def _unusable(cluster: Obj, user: Obj) -> str:
    """Which file of a kubeconfig does not exist; empty if all do."""
    named = (part.get(key) for part in (cluster, user) for key in FILES)
    return next((f"{path}: the file does not exist" for path in named if path and not Path(path).exists()), "")


def _connection_trouble(error: Exception) -> str:
    """The innermost cause of a failed connection, which alone says something to a person."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    said = " ".join(str(inner).split())[:200] or type(inner).__name__
    return f"the API server cannot be reached ({said})"
