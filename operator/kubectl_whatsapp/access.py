"""Access to the API server: kubectl's own configuration, and exec credentials.

pykube-ng's last release does not read a merged KUBECONFIG, does not support exec plugins of ``client.authentication.k8s.io/v1``, and
writes client keys to world-readable files in the temporary folder. Therefore kubectl itself merges and selects the configuration, and
this module runs an exec plugin, again when its credential has expired. Certificates and keys are kept in a private folder of this user,
which is removed when the process ends.
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kubectl_whatsapp import Obj
from kubectl_whatsapp.errors import AccessError

if TYPE_CHECKING:
    from kubectl_whatsapp.client import Client

KUBECTL_SECONDS: Final = 10.0
"""How long kubectl may take to print its configuration."""
CREDENTIAL_SECONDS: Final = 60.0
"""How long an exec plugin may take to print a credential: it may ask a person to log in."""
EXEC_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
"""The supported versions of exec credentials (kubernetes.io, "client-go credential plugins")."""
CHOOSE: Final = " See `kubectl config get-contexts`; choose with --context, or name a file with --kubeconfig or the variable KUBECONFIG."
FILES: Final = ("certificate-authority", "client-certificate", "client-key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """kubectl's own flags that select the API server; empty: kubectl's default."""

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
    """The requested namespace, else the context's."""
    context: str
    server: str
    user: str = ""
    """Its name in the kubeconfig."""
    asked_for: float = 0.0
    """Seconds that a credential plugin took: it may have asked a person to log in."""
    renew: Callable[[], Obj] | None = field(default=None, repr=False)
    """Returns the same config with a new credential; None if there can be no new one. AccessError."""

    def client(self) -> Client:
        """A client for the API server, shared by all threads. AccessError if a file that the kubeconfig names does not exist."""
        from kubectl_whatsapp.client import Client  # noqa: PLC0415  # --help and completion of commands need none

        for part in (self.config["clusters"][0]["cluster"], self.config["users"][0]["user"]):
            for path in (part.get(key) for key in FILES):
                if path and not Path(path).exists():
                    msg = f"The kubeconfig cannot be used: {path}: the file does not exist."
                    raise AccessError(msg)
        return Client(self.config, self.renew)

    def secrets(self) -> Iterator[str]:
        """Every credential in it, so that a report can be searched for them."""
        user = self.config["users"][0]["user"]
        yield from (str(user[key]) for key in ("token", "password") if user.get(key))


def find(options: Options, *, environ: Mapping[str, str] = os.environ) -> Access:
    """Find the API server as kubectl would, and get a credential. AccessError says why this is not possible."""
    command = _view(options, environ)
    started = _started.pop(tuple(command), None)
    from kubectl_whatsapp import client  # noqa: F401, PLC0415  # loaded while kubectl runs

    printed = _run(command, environ, KUBECTL_SECONDS, "kubectl cannot say where the API server is", hint=CHOOSE, started=started)
    try:
        config = json.loads(printed)
    except ValueError:
        msg = f"kubectl printed a configuration that cannot be read: {' '.join(command[1:])}"
        raise AccessError(msg) from None
    _make_absolute(config, options, environ)
    return access_of(config, options, environ=environ)


def _make_absolute(config: Obj, options: Options, environ: Mapping[str, str]) -> None:
    """Make the paths of a user absolute. They are relative to the folder of their kubeconfig, and kubectl prints them unchanged."""
    for entry in config.get("users") or ():
        user: Obj = entry.get("user") or {}
        plugin = user.get("exec") or {}
        # A command without a slash is searched for in PATH.
        places = ((user, "tokenFile"), *(((plugin, "command"),) if os.sep in str(plugin.get("command")) else ()))
        relative = [(part, key) for part, key in places if part.get(key) and not os.path.isabs(part[key])]
        folder = _folder_of_user(entry.get("name"), options, environ) if relative else None
        if folder is not None:
            for part, key in relative:
                part[key] = str(folder / part[key])


def _folder_of_user(name: object, options: Options, environ: Mapping[str, str]) -> Path | None:
    """The folder of the first kubeconfig that has this user; None if there is none."""
    import yaml  # noqa: PLC0415  # few kubeconfigs have relative paths

    default = str(Path(environ.get("HOME") or "/") / ".kube" / "config")
    paths = [options.kubeconfig] if options.kubeconfig else (environ.get("KUBECONFIG") or default).split(os.pathsep)
    for path in paths:
        with suppress(OSError, LookupError, ValueError, TypeError, AttributeError, yaml.YAMLError):  # kubectl has reported it already
            users = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["users"]
            if name in {one.get("name") for one in users}:
                return Path(path).absolute().parent
    return None


def _view(options: Options, environ: Mapping[str, str]) -> list[str]:
    kubectl = environ.get("KUBECTL") or shutil.which("kubectl", path=environ.get("PATH"))
    if kubectl is None:
        msg = "kubectl is not in PATH. This plugin gets its configuration from it: install kubectl, or name it in the variable KUBECTL."
        raise AccessError(msg)
    return [kubectl, *options.as_flags(), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]


_started: Final[dict[tuple[str, ...], subprocess.Popen[str]]] = {}
"""A kubectl process that was started and not used yet, by its command line."""


@contextmanager
def kubectl_started(words: Sequence[str]) -> Iterator[None]:
    """Run kubectl, with the flags among these words of a command line, while the rest of this program loads.

    This only saves time: ``find`` starts kubectl again if it needs other flags. At the end, an unused kubectl is killed.
    """
    with suppress(AccessError, OSError):  # ``find`` will report it
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
    """Return the access for a kubeconfig with one context (``kubectl config view --raw --minify --flatten``)."""
    try:
        context = config["contexts"][0]
        cluster: Obj = dict(config["clusters"][0]["cluster"])
        user: Obj = dict((config.get("users") or [{"user": {}}])[0].get("user") or {})
        server = str(cluster["server"])
    except (KeyError, IndexError, TypeError):
        msg = "The kubeconfig names no cluster. See `kubectl config get-contexts`, then choose one with --context."
        raise AccessError(msg) from None
    name = str(context.get("name") or "default")

    def resolved() -> Obj:
        return _resolved(name, dict(cluster), dict(user), environ)

    begun = time.monotonic()
    found = resolved()
    asked_for = time.monotonic() - begun
    namespace = options.namespace or (context.get("context") or {}).get("namespace") or "default"
    named = (context.get("context") or {}).get("user") or ""
    renew = resolved if user.keys() & {"exec", "tokenFile"} else None
    return Access(config=found, namespace=namespace, context=name, server=server, user=named, asked_for=asked_for, renew=renew)


def _resolved(name: str, cluster: Obj, user: Obj, environ: Mapping[str, str]) -> Obj:
    """Return a kubeconfig without data and without an exec plugin. AccessError if there is no credential."""
    if plugin := user.pop("exec", None):
        user |= credential(plugin, cluster, environ=environ)
    if "auth-provider" in user:
        msg = "The kubeconfig uses auth-provider, which kubectl itself no longer supports. Use a credential plugin (users[].user.exec)."
        raise AccessError(msg)
    if path := user.pop("tokenFile", None):
        user["token"] = _read(path)
    folder = _private_folder()
    for part in (cluster, user):
        _write_files(part, folder)
    return {
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": name,
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        msg = f"The token in {path}, which the kubeconfig names, cannot be read: {error.strerror}."
        raise AccessError(msg) from None


def credential(plugin: Obj, cluster: Obj, *, environ: Mapping[str, str] = os.environ) -> Obj:
    """Run an exec plugin and return its credential as fields of a kubeconfig's user. AccessError says why there is none."""
    version, command = plugin.get("apiVersion"), str(plugin.get("command") or "")
    if version not in EXEC_VERSIONS:
        msg = f"The credential plugin {command or '?'} uses version {version}; only {' and '.join(EXEC_VERSIONS)} are supported."
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
        called, found, CREDENTIAL_SECONDS, f"The credential plugin {command} returned no credential", hint=hint, asks=is_interactive
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
    """Return what a program prints; ``started``: its process, if it is already running."""
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
        why = " ".join((err or "").split())[:300] or f"it exited with {process.returncode}"
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
    """Replace data by files, because pykube-ng would write it to world-readable ones."""
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
