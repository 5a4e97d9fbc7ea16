"""Kubeconfig files: written for users of the local API server, read with errors that name the file, and plain HTTPS calls with them."""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from localkube.errors import LocalKubeError
from localkube.files import PRIVATE, write


@dataclass(frozen=True)
class Access:
    """What opens an API server: its URL, its authority and either a client certificate with key or a token (all PEM or plain text)."""

    server: str
    authority: str
    certificate: str = ""
    key: str = ""
    token: str = ""

    def __repr__(self) -> str:
        """Show only the address: keys and tokens must not appear in a log."""
        return f"Access({self.server!r})"

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def tls(self) -> ssl.SSLContext:
        """How to speak TLS with the server, as this user."""
        context = ssl.create_default_context(cadata=self.authority)
        if self.certificate:
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:  # ssl loads client certificates from files only
                pem.write(self.certificate + self.key)
                pem.flush()
                context.load_cert_chain(pem.name)
        return context

    def client(self, *, connections: int = 0) -> httpx.Client:
        """A client for plain HTTPS calls of at most 5 s. ``connections``: how many to keep for later calls; default: none."""
        limits = httpx.Limits(max_keepalive_connections=connections)
        return httpx.Client(base_url=self.server, headers=self.headers, verify=self.tls(), limits=limits, trust_env=False)

    def write(self, path: Path, *, namespace: str = "default") -> Path:
        """Write it as a kubeconfig that carries everything in itself, readable by the owner only, in one step. Returns ``path``."""
        user: dict[str, str] = {"token": self.token}
        if not self.token:
            user = {"client-certificate-data": _encoded(self.certificate), "client-key-data": _encoded(self.key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": self.server, "certificate-authority-data": _encoded(self.authority)}}],
            "users": [{"name": "local", "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local", "namespace": namespace}}],
            "current-context": "local",
        }
        return write(path, yaml.safe_dump(config, sort_keys=False), mode=PRIVATE)


def read(path: Path) -> Access:
    """The access that the current context of a kubeconfig gives, which has everything in itself, as `Access.write` and kind write it.

    LocalKubeError, naming the file and what is wrong, if it gives none.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config, "context", config["current-context"])
        cluster, user = [_named(config, kind, context[kind]) for kind in ("cluster", "user")]
        return Access(
            server=cluster["server"],
            authority=_decoded(cluster["certificate-authority-data"]),
            certificate=_decoded(user.get("client-certificate-data", "")),
            key=_decoded(user.get("client-key-data", "")),
            token=user.get("token", ""),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration, ValueError) as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        msg = f"the kubeconfig {path} leads to no cluster and user ({why}): write it again, or correct it"
        raise LocalKubeError(msg) from error


def _named(config: Any, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry[kind] for entry in config[f"{kind}s"] if entry["name"] == name)
    return found


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("ascii")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
