"""How the Kubernetes client finds its server and its credentials, from a kubeconfig or in a pod."""

from __future__ import annotations

import shutil
import ssl
import traceback
from typing import TYPE_CHECKING

import aiohttp
import kopf
import pytest
import yaml
from aiohttp import web
from lightkube import KubeConfig
from lightkube.config.models import Cluster, User

from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.client import LightKube
from whatsapp_operator.shell.kube.errors import Rejected, Unavailable
from whatsapp_operator.shell.kube.kinds import POD
from whatsapp_operator.shell.watch import handlers
from whatsapp_operator.shell.watch.health import WatchHealth

from .kube_server import A_POD, TOKEN, a_server, tls_files

if TYPE_CHECKING:
    from pathlib import Path


# --------------------------------------------------------------------------------------------------------- configuration


def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    cases: list[tuple[object, str]] = [
        ("{", "from {path}: ParserError; outside of a cluster name a kubeconfig."),
        ("[]", "from {path}: AttributeError; outside of a cluster name a kubeconfig."),
        ({"clusters": []}, ": 'contexts' is missing in {path}."),
        (
            {"clusters": [], "contexts": [], "users": []},
            "from {path}: No current context set and no default provided; outside of a cluster name a kubeconfig.",
        ),
        (
            {"clusters": [], "contexts": [{"name": "a", "context": {"cluster": "x"}}], "current-context": "a"},
            ": 'x' is missing in {path}.",
        ),
        (
            {"clusters": [], "contexts": [], "current-context": "a"},
            "from {path}: Context 'a' not found; outside of a cluster name a kubeconfig.",
        ),
    ]
    for content, said in cases:
        path = tmp_path / "kubeconfig"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        with pytest.raises(Rejected) as caught:
            LightKube.from_kubeconfig(path)
        text = str(caught.value).removeprefix("read how to reach the API server").strip()
        assert text == said.format(path=f"kubeconfig {path}")
    with pytest.raises(Rejected, match="not found"):
        LightKube.from_kubeconfig(tmp_path / "missing")


def test_certificates_that_cannot_be_read_are_reported_without_showing_them(tmp_path: Path) -> None:
    user = {"name": "u", "user": {"client-certificate-data": "YWJj", "client-key-data": "c2VjcmV0"}}
    cluster = {"name": "c", "cluster": {"server": "https://nowhere"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump({"clusters": [cluster], "users": [user], "contexts": [context], "current-context": "x"}))
    with pytest.raises(Rejected, match=r"read the TLS files for https://nowhere: SSLError") as caught:
        LightKube.from_kubeconfig(path)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_in_a_pod_the_service_account_and_the_address_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightkube.config import kubeconfig

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    original = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: original(tmp_path))
    with pytest.raises(Rejected, match=r"from the service account of this pod: .*No such file.*outside of a cluster name a kubeconfig"):
        LightKube.from_kubeconfig(None)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "namespace").write_text("operators")
    with pytest.raises(Rejected, match=r"'KUBERNETES_SERVICE_HOST' is missing in the environment of this pod"):
        LightKube.from_kubeconfig(None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    with pytest.raises(Rejected, match=r"read the TLS files for https://\[fd00::1\]:6443: FileNotFoundError"):
        LightKube.from_kubeconfig(None)
    assert kubeconfig.SERVICE_ACCOUNT == "/var/run/secrets/kubernetes.io/serviceaccount"


def test_the_watches_find_the_files_that_a_kubeconfig_names_next_to_itself(tmp_path: Path) -> None:
    tls_files(tmp_path)
    (tmp_path / "token").write_text("from-a-file\n")
    parts = {
        "clusters": [{"name": "c", "cluster": {"server": "https://[fd00::1]:6443", "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"tokenFile": "token", "client-certificate": "tls.crt", "client-key": "tls.key"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(parts))

    found = handlers.connection(tmp_path / "kubeconfig")

    assert (found.server, found.as_http_headers()) == ("https://[fd00::1]:6443", {"Authorization": "Bearer from-a-file"})
    assert len(found.as_ssl_context().get_ca_certs()) == 1


def test_the_watches_of_a_pod_use_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: original(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    tls_files(tmp_path)
    for name, content in {"token": "first", "namespace": "operators"}.items():
        (tmp_path / name).write_text(content)

    first = handlers.connection(None)
    (tmp_path / "token").write_text("rotated\n")
    second = handlers.connection(None)

    assert (first.server, len(first.as_ssl_context().get_ca_certs())) == ("https://[fd00::1]:6443", 1)
    assert [one.as_http_headers()["Authorization"] for one in (first, second)] == ["Bearer first", "Bearer rotated"]


async def test_a_token_that_was_rotated_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with a_server() as server:

        async def only_the_new(request: web.Request) -> web.StreamResponse:
            if request.headers["Authorization"] != "Bearer new":
                return web.json_response({"code": 401, "reason": "Unauthorized"}, status=401)
            return await server.ok(request)

        server.answer = only_the_new
        config = KubeConfig.from_one(cluster=Cluster(server=server.url), user=User(token_file=str(token))).get()
        assert config
        kube = LightKube(config)
        with pytest.raises(Rejected, match="401 Unauthorized"):
            await kube.get(POD, "ns", "a")
        token.write_text("new")
        await kube.create(A_POD)
        token.unlink()
        server.says({"code": 401, "reason": "Unauthorized"}, status=401)
        with pytest.raises(Unavailable, match="credentials of the kubeconfig or service account could not be read"):
            await kube.create(A_POD)
        await kube.close()


async def test_a_rotated_token_is_used_before_the_old_one_is_rejected(tmp_path: Path) -> None:
    """The API server takes an old token for up to a year, and notes each call with it as stale."""
    token, shown = tmp_path / "token", list[str]()
    async with a_server() as server:

        async def answer(request: web.Request) -> web.StreamResponse:
            shown.append(request.headers["Authorization"].removeprefix("Bearer "))
            return await server.ok(request)

        server.answer = answer
        config = KubeConfig.from_one(cluster=Cluster(server=server.url), user=User(token_file=str(token))).get()
        assert config
        kube = LightKube(config)
        for content in ("first", "", "second\n", "\n", ""):
            if content:
                (tmp_path / "new").write_text(content)
                (tmp_path / "new").rename(token)
            else:
                token.unlink()
            await kube.get(POD, "ns", "a")
            await kube.create(A_POD)
        await kube.close()
    assert shown == ["first"] * 4 + ["second"] * 6, "an empty file is one that is just being written"


async def test_an_authority_that_was_rotated_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet brings the file up to date a minute later than the API server has its new certificate."""
    old, new = tls_files(tmp_path / "old"), tls_files(tmp_path / "new")
    account = tmp_path / "account"
    account.mkdir()
    for name, content in {"token": TOKEN, "namespace": "operators"}.items():
        (account / name).write_text(content)
    shutil.copy(old / "ca.crt", account)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(old / "tls.crt", old / "tls.key")
    original = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: original(account))
    async with a_server(tls) as server:
        host, _, port = server.url.removeprefix("https://").rpartition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        kube = LightKube.from_kubeconfig(None)
        await kube.get(POD, "ns", "a")
        tls.load_cert_chain(new / "tls.crt", new / "tls.key")
        for transport in server.transports:
            transport.abort()
        for content in ("", "no certificate", (old / "ca.crt").read_text(), (old / "ca.crt").read_text()):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await kube.get(POD, "ns", "a")
            if content:
                (account / "ca.crt").write_text(content)
            else:
                (account / "ca.crt").unlink()
        shutil.copy(new / "ca.crt", account)
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await kube.get(POD, "ns", "a")
        await kube.get(POD, "ns", "a")
        await kube.close()


async def test_a_session_of_the_watches_ends_once_there_is_another_authority_than_it_trusts(tmp_path: Path) -> None:
    old, new = tls_files(tmp_path / "old"), tls_files(tmp_path / "new")
    authority = tmp_path / "ca.crt"
    shutil.copy(old / "ca.crt", authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(old / "tls.crt", old / "tls.key")
    async with a_server(tls) as server:
        info = kopf.ConnectionInfo(server=server.url, ca_path=str(authority))
        login = handlers.Login(lambda: info, health=WatchHealth(SystemClock()), names={})
        session = (await login.session()).aiohttp_session
        async with session.get(server.url) as answer:
            assert answer.ok
        tls.load_cert_chain(new / "tls.crt", new / "tls.key")
        for transport in server.transports:
            transport.abort()
        with pytest.raises(aiohttp.ClientSSLError, match="certificate verify failed"):  # Kopf tries again
            await session.get(server.url)
        (new / "ca.crt").rename(authority)
        with pytest.raises(handlers.AuthorityChanged):
            await session.get(server.url)
        async with (await login.session()).aiohttp_session.get(server.url) as answer:
            assert answer.ok
        await login.close()


async def test_the_watches_use_a_token_that_was_rotated_before_the_old_one_is_rejected(tmp_path: Path) -> None:
    """Of each rejected call the audit log of the API server has a line, and the watches make some each minute."""
    async with a_server() as server:
        tokens, shown = iter(("first", "first", "second", None, "third")), list[str]()

        def connection() -> kopf.ConnectionInfo:
            if (token := next(tokens)) is None:
                raise OSError
            return kopf.ConnectionInfo(server=server.url, token=token)

        async def answer(request: web.Request) -> web.StreamResponse:
            shown.append(request.headers["Authorization"].removeprefix("Bearer "))
            return await server.ok(request)

        server.answer = answer
        login = handlers.Login(connection, health=WatchHealth(SystemClock()), names={})
        session = (await login.session()).aiohttp_session
        for _ in range(4):
            async with session.get(server.url) as got:
                assert got.ok
        await login.close()
    assert shown == ["first", "second", "first", "third"], "what cannot be read is as it was when the session began"
