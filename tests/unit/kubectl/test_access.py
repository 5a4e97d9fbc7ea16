"""The way to the API server: kubectl's configuration, exec credentials, keys on disk, requests."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import queue
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from kubectl_whatsapp import access, plain
from kubectl_whatsapp.access import Options, access_of, find
from kubectl_whatsapp.client import Client
from kubectl_whatsapp.errors import AccessError, RequestError

from .clusters import a_cluster, kubeconfig, serving

Obj = dict[str, Any]
CLUSTER = "/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters/acme"
KEY = base64.b64encode(b"a private key").decode()


def program(folder: Path, name: str, code: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{code}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def kubectl(folder: Path, config: Obj) -> dict[str, str]:
    """A kubectl that prints this configuration, and notes how it was called."""
    code = f"print(json.dumps(json.loads({json.dumps(config)!r}))); open({str(folder / 'called')!r}, 'w').write(' '.join(sys.argv[1:]))"
    return {"KUBECTL": str(program(folder, "kubectl", code)), "PATH": os.environ["PATH"]}


def test_kubectl_itself_merges_and_picks_the_configuration(tmp_path: Path) -> None:
    environ = kubectl(tmp_path, kubeconfig("https://api.example:6443"))
    found = find(Options(context="here", kubeconfig="/a:/b"), environ=environ)

    assert (found.server, found.namespace, found.context) == ("https://api.example:6443", "shop", "here")
    called = (tmp_path / "called").read_text(encoding="utf-8")
    assert called == "--context=here --kubeconfig=/a:/b config view --raw --minify --flatten -o json"
    assert find(Options(namespace="other"), environ=environ).namespace == "other"


def test_kubectl_is_found_in_the_path(tmp_path: Path) -> None:
    kubectl(tmp_path, kubeconfig("https://one:1"))
    assert find(Options(), environ={"PATH": str(tmp_path)}).server == "https://one:1"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "sys.stderr.write('error: context was not found'); sys.exit(1)",
            "kubectl cannot say where the API server is: error: context was not",
        ),
        ("print('no json')", "kubectl printed a configuration that cannot be read"),
        ("print('{}')", "The kubeconfig names no cluster."),
    ],
)
def test_a_kubectl_that_fails(tmp_path: Path, code: str, sentence: str) -> None:
    with pytest.raises(AccessError, match=sentence):
        find(Options(), environ={"KUBECTL": str(program(tmp_path, "kubectl", code))})


def test_kubectl_is_started_before_it_is_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(sys.argv[1:3]) + '\\n'); print({json.dumps(kubeconfig('https://one:1'))!r})"
    )
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, "kubectl", code)))
    with access.kubectl_started(["status", "acme", "--context", "b", "--kubeconfig=/k"]):
        assert find(Options(context="b", kubeconfig="/k")).server == "https://one:1"
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "--context=b --kubeconfig=/k\n"

    with access.kubectl_started(["status", "--context=other", "acme"]):
        assert find(Options()).server == "https://one:1", "with other flags it is started again"


def test_a_kubectl_that_nobody_needed_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECTL", str(program(tmp_path, "kubectl", "time.sleep(600)")))
    with access.kubectl_started(["status", "acme"]):
        (process,) = access._started.values()
    assert process.returncode == -signal.SIGKILL
    monkeypatch.setenv("KUBECTL", str(tmp_path / "none"))
    with access.kubectl_started(["status", "acme"]), pytest.raises(AccessError, match="No such file"):
        find(Options())


def test_a_kubectl_that_hangs_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KUBECTL_SECONDS", 0.2)
    with pytest.raises(AccessError, match=r"no answer within 0.2 s"):
        find(Options(), environ={"KUBECTL": str(program(tmp_path, "kubectl", "time.sleep(60)"))})
    with pytest.raises(AccessError, match="install kubectl, or name it in the variable KUBECTL"):
        find(Options(), environ={"PATH": str(tmp_path / "nothing")})


def test_keys_lie_where_only_this_user_can_read_them_and_are_gone_afterwards(tmp_path: Path) -> None:
    config = kubeconfig("https://api:1", **{"client-certificate-data": KEY, "client-key-data": KEY})
    code = (
        "import json, os, stat, sys\n"
        "from kubectl_whatsapp.access import Options, access_of\n"
        f"found = access_of(json.loads({json.dumps(config)!r}), Options())\n"
        "user = found.config['users'][0]['user']\n"
        "print(json.dumps([[p, stat.S_IMODE(os.stat(p).st_mode), stat.S_IMODE(os.stat(os.path.dirname(p)).st_mode), open(p).read()]\n"
        "                  for p in (user['client-key'], user['client-certificate'])]))\n"
        "assert 'private' not in repr(found)\n"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(access.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    files = json.loads(done.stdout)

    assert [(mode, folder, content) for _, mode, folder, content in files] == [(0o600, 0o700, "a private key")] * 2
    assert [path for path, *_ in files if Path(path).exists()] == []
    assert [path for path, *_ in files if not path.startswith(str(tmp_path))] == []


def exec_config(command: Path, **more: Any) -> Obj:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(command), "interactiveMode": "IfAvailable", **more}
    return kubeconfig("https://api:1", exec=plugin)


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"])
def test_an_exec_plugin_gives_a_token(tmp_path: Path, version: str) -> None:
    code = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "print(json.dumps({'status': {'token': ' '.join([sys.argv[1], os.environ['PROFILE'], info['apiVersion'], info['kind'],"
        " str(info['spec']['interactive']), info['spec']['cluster']['server']])}}))"
    )
    more = {"apiVersion": version, "args": ["get"], "env": [{"name": "PROFILE", "value": "blue"}], "provideClusterInfo": True}
    found = access_of(exec_config(program(tmp_path, "login", code), **more), Options(), environ={})

    assert found.config["users"][0]["user"] == {"token": f"get blue {version} ExecCredential False https://api:1"}


def test_an_exec_plugin_gives_a_certificate(tmp_path: Path) -> None:
    code = "print(json.dumps({'status': {'clientCertificateData': 'CERT', 'clientKeyData': 'KEY'}}))"
    user = access_of(exec_config(program(tmp_path, "login", code)), Options(), environ={}).config["users"][0]["user"]

    assert Path(user["client-key"]).read_text(encoding="utf-8") == "KEY"
    assert stat.S_IMODE(os.stat(user["client-key"]).st_mode) == 0o600


@pytest.mark.parametrize(
    ("code", "more", "sentence"),
    [
        (
            "sys.stderr.write('not logged in'); sys.exit(3)",
            {"installHint": "Install it."},
            "returned no credential: not logged in. Install it.",
        ),
        ("sys.exit(3)", {}, "it exited with 3"),
        ("print('no json')", {}, "printed no ExecCredential with a status"),
        ("print(json.dumps({'status': {}}))", {}, "neither a token nor a certificate with its key"),
        ("print(json.dumps({'status': {'clientKeyData': 'KEY'}}))", {}, "neither a token nor a certificate with its key"),
        ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "uses version client.authentication.k8s.io/v1alpha1"),
    ],
)
def test_an_exec_plugin_that_fails(tmp_path: Path, code: str, more: Obj, sentence: str) -> None:
    with pytest.raises(AccessError, match=sentence):
        access_of(exec_config(program(tmp_path, "login", code), **more), Options(), environ={})


def test_an_exec_plugin_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"No such file or directory\. Install it\."):
        access_of(exec_config(tmp_path / "none", installHint="Install it."), Options(), environ={})


@pytest.mark.parametrize("how", ["KUBECONFIG", "--kubeconfig", "home"])
def test_a_relative_path_counts_from_the_folder_of_its_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    # kubectl itself takes it so, and prints it as it stands.
    home = tmp_path / ".kube"
    home.mkdir()
    program(home, "login", "print(json.dumps({'status': {'token': 'from the plugin'}}))")
    (home / "token").write_text("from the file", encoding="utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program(elsewhere, "login", "print(json.dumps({'status': {'token': 'from the wrong folder'}}))")
    (elsewhere / "token").write_text("from the wrong folder", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "other").write_text("users: [{name: other}]", encoding="utf-8")
    for name, text in (("broken", "{"), ("empty", "{}"), ("none", "")):
        (elsewhere / name).write_text(text, encoding="utf-8")

    plugin = exec_config(Path("login"))
    plugin["users"][0]["user"]["exec"]["command"] = "./login"
    for config, token in ((plugin, "from the plugin"), (kubeconfig("https://api:1", tokenFile="token"), "from the file")):
        (home / "config").write_text(json.dumps(config), encoding="utf-8")
        environ = {**kubectl(tmp_path, config), "HOME": str(tmp_path)}
        if how == "KUBECONFIG":
            environ["KUBECONFIG"] = ":".join(
                [*(f"{elsewhere}/{name}" for name in ("absent", "none", "broken", "empty", "other")), f"{home}/config"]
            )
        options = Options(kubeconfig=f"{home}/config" if how == "--kubeconfig" else "")
        assert find(options, environ=environ).config["users"][0]["user"] == {"token": token}


def test_a_token_in_a_file_and_what_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n", encoding="utf-8")
    found = access_of(kubeconfig("https://api:1", tokenFile=str(tmp_path / "token")), Options())
    assert found.config["users"][0]["user"] == {"token": "from a file"}

    with pytest.raises(AccessError, match="cannot be read: No such file"):
        access_of(kubeconfig("https://api:1", tokenFile=str(tmp_path / "none")), Options())
    with pytest.raises(AccessError, match="auth-provider"):
        access_of(kubeconfig("https://api:1", **{"auth-provider": {"name": "oidc"}}), Options())
    with pytest.raises(AccessError, match="client-key-data of the kubeconfig is not base64"):
        access_of(kubeconfig("https://api:1", **{"client-key-data": "~"}), Options())
    with pytest.raises(AccessError, match="several groups"):
        access_of(kubeconfig("https://api:1", **{"as": "eve", "as-groups": ["a", "b"]}), Options()).client()
    with pytest.raises(AccessError, match="/no/such/file: the file does not exist"):
        access_of(kubeconfig("https://api:1", **{"client-certificate": "/no/such/file", "client-key": "/no/such/file"}), Options()).client()


def client_of(url: str, **user: Any) -> Client:
    return access_of(kubeconfig(url, **user), Options()).client()


def test_a_request_carries_the_credential_and_who_is_acted_as(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        client = client_of(server.url, token="t0", **{"as": "eve", "as-groups": ["ops"]})
        found = client.get("/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters/acme", timeout=30, limit="1")
        (headers,), (asked,) = server.headers, server.asked

    assert found["kind"] == "WhatsAppCluster"
    assert asked[2] == {"limit": ["1"]}
    assert (headers["Authorization"], headers["Impersonate-User"], headers["Impersonate-Group"]) == ("Bearer t0", "eve", "ops")
    assert client.server_date == "Mon, 04 Jan 2027 12:00:00 GMT"


def test_all_that_a_kubeconfig_says_of_who_is_acted_as_is_sent(tmp_path: Path) -> None:
    more = {"as": "eve", "as-uid": "u-1", "as-user-extra": {"example.com/Scope": ["read"], "team": ["red"]}}
    with serving(a_cluster(), tmp_path) as server:
        client_of(server.url, **more).get(CLUSTER, timeout=30)
        (headers,) = server.headers

    assert headers["Impersonate-Uid"] == "u-1"
    # What no name of a header can hold is escaped (kubernetes.io, "User impersonation").
    assert headers["Impersonate-Extra-example.com%2FScope"] == "read"
    assert headers["Impersonate-Extra-team"] == "red"
    with pytest.raises(AccessError, match="several values"):
        client_of("https://api:1", **{"as": "eve", "as-user-extra": {"team": ["a", "b"]}})


def test_a_netrc_does_not_replace_the_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password other", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with serving(a_cluster(), tmp_path) as server:
        client_of(server.url, token="t0").get("/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters/acme", timeout=30)

    assert server.headers[0]["Authorization"] == "Bearer t0"


def test_tls_is_checked_unless_the_kubeconfig_says_otherwise(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    path = "/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters/acme"
    known = base64.b64encode(authority.cert_pem.bytes()).decode()
    with serving(a_cluster(), tmp_path) as server:
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        for more, is_trusted in (({}, False), ({"certificate-authority-data": known}, True), ({"insecure-skip-tls-verify": True}, True)):
            config = kubeconfig(url)
            config["clusters"][0]["cluster"] |= more
            client = access_of(config, Options()).client()
            if is_trusted:
                assert client.get(path, timeout=30)["kind"] == "WhatsAppCluster"
            else:
                with pytest.raises(RequestError, match="certificate verify failed"):
                    client.get(path, timeout=30)


def test_the_certificate_may_have_another_name_than_the_address(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(context)
    more = {"certificate-authority-data": base64.b64encode(authority.cert_pem.bytes()).decode()}
    with serving(a_cluster(), tmp_path) as server:
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        for name, is_trusted in (("api.example", True), ("other.example", False)):
            config = kubeconfig(server.url.replace("http:", "https:"))
            config["clusters"][0]["cluster"] |= {**more, "tls-server-name": name}
            client = access_of(config, Options()).client()
            if is_trusted:
                assert client.get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"
            else:
                with pytest.raises(RequestError, match="certificate verify failed"):
                    client.get(CLUSTER, timeout=30)


def test_a_connection_is_used_again_and_replaced_if_the_server_has_ended_it(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        client = client_of(f"{server.url}/")
        for _ in range(2):
            assert client.get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"
        ports = server.ports
        assert (len(ports), len(set(ports))) == (2, 1)
        server.ends_connections = True
        client.get(CLUSTER, timeout=30)
        server.ends_connections = False
        assert client.get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"
    assert [path for _, path, *_ in server.asked] == [CLUSTER] * 4


def test_a_read_without_an_answer_is_sent_again_over_another_connection(tmp_path: Path) -> None:
    """Of several API servers behind a load balancer one may hang."""
    with serving(a_cluster(), tmp_path) as server:
        respond = server.respond

        def hang_once(method: str, path: str, body: str) -> tuple[int, bytes, str]:
            if len(server.asked) == 1:
                server.closing.wait(60)
            return respond(method, path, body)

        server.respond = hang_once  # type: ignore[method-assign]
        began = time.monotonic()
        assert client_of(server.url).get(CLUSTER, timeout=60)["kind"] == "WhatsAppCluster"
        assert time.monotonic() - began < 30
        assert len(set(server.ports)) == len(server.asked) > 1


class Ends(queue.SimpleQueue[Any]):
    """Notes that an end is awaited without a limit: nothing is sent again from then on."""

    is_patient = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is None:
            self.is_patient.set()
        return super().get(block, timeout)


def test_a_read_whose_answer_has_begun_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer over a slow connection would take three times as long."""
    monkeypatch.setattr(queue, "SimpleQueue", Ends)
    monkeypatch.setattr(plain, "SLOW", 10.0)
    Ends.is_patient.clear()
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        reader = plain.Reader({"server": f"http://127.0.0.1:{listening.getsockname()[1]}"}, {})

        def answer_slowly() -> None:
            taken.append(listening.accept()[0])
            taken[0].recv(65536)
            taken[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
            Ends.is_patient.wait(60)
            listening.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    taken.append(listening.accept()[0])
            taken[0].sendall(b"}")

        server = threading.Thread(target=answer_slowly)
        server.start()
        assert reader.get("/", {}, timeout=60).content == b"{}"
        server.join(60)
        reader.close()
    for one in taken:
        one.close()
    assert len(taken) == 1


GONE = ConnectionRefusedError("gone")


@pytest.mark.parametrize(
    ("ends", "error"),
    [
        ([None, GONE, 200], None),
        ([None, GONE, GONE], None),
        ([None, None, None], None),
        ([GONE], ConnectionRefusedError),
        ([ValueError("no answer of an API server")], ValueError),
        ([None, TimeoutError()], TimeoutError),
    ],
    ids=["the third one answers", "the first one is slow", "all are slow", "it is gone", "it answers nonsense", "time is up"],
)
def test_a_sending_that_fails_says_nothing_for_those_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, ends: list[int | Exception | None], error: type[Exception] | None
) -> None:
    """``ends``: how each sending ends; None: with an answer that comes when all have been sent."""
    left, all_sent = [*ends], threading.Event()

    def send(*_: object) -> SimpleNamespace:
        end = left.pop(0)
        if not left:
            all_sent.set()
        if isinstance(end, Exception):
            raise end
        if end is None:
            all_sent.wait(60)
        return SimpleNamespace()

    monkeypatch.setattr(plain, "SLOW", 0.05)
    monkeypatch.setattr(plain, "Answer", SimpleNamespace)
    monkeypatch.setattr(plain.Reader, "_get", send)
    reader = plain.Reader({"server": "http://127.0.0.1:9"}, {})
    with pytest.raises(error) if error else nullcontext():
        reader.get("/", {}, timeout=60)
    assert left == []


@pytest.mark.parametrize("unanswered", [0, 1, 2, 3])
def test_a_change_is_sent_once_over_a_connection_that_could_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unanswered: int
) -> None:
    """An API server that hangs finishes no TLS handshake; nothing has been sent by then."""
    tries, connect = itertools.count(), plain._Connection.connect

    def handshake(connection: plain._Connection) -> None:
        if next(tries) < unanswered:
            raise TimeoutError
        connect(connection)

    monkeypatch.setattr(plain._Connection, "connect", handshake)
    with serving(a_cluster(), tmp_path) as server:
        client = client_of(server.url)
        if unanswered < plain.MOST_SENT:
            client.patch(CLUSTER, {"metadata": {}}, timeout=60)
        else:
            with pytest.raises(RequestError, match=r"no answer within 60.0 s"):
                client.patch(CLUSTER, {"metadata": {}}, timeout=60)
        sent = [(method, path) for method, path, *_ in server.asked]
    assert sent == [("PATCH", CLUSTER)] * (unanswered < plain.MOST_SENT)


def test_a_compressed_answer_is_read(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        server.compresses = True
        assert client_of(server.url).get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"
    assert server.headers[0]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:10] + b"\xff" * 20, lambda data: data[1:]])
def test_a_damaged_compressed_answer_is_no_bug_of_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda data: damage(compress(data)))
    with serving(a_cluster(), tmp_path) as server:
        server.compresses = True
        with pytest.raises(RequestError, match="cannot be reached"):
            client_of(server.url).get(CLUSTER, timeout=30)
        with pytest.raises(RequestError, match="cannot be reached"):
            client_of(server.url).patch(CLUSTER, {"metadata": {}}, timeout=30)


def test_a_server_below_a_path_and_a_name_with_a_blank(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        server.texts["/k8s/clusters/c-1/x%20y"] = "found"
        assert client_of(f"{server.url}/k8s/clusters/c-1").text("/x y", timeout=30) == "found"


def test_a_redirect_is_followed(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        server.redirects["/there"] = CLUSTER
        assert client_of(server.url).get("/there", timeout=30)["kind"] == "WhatsAppCluster"


def test_a_log_is_read_as_utf_8_though_the_api_server_names_no_encoding(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        server.texts["/log"] = "grün ✓\n"
        assert client_of(server.url).text("/log", timeout=30) == "grün ✓\n"
        assert list(client_of(server.url).lines("/log", timeout=30)) == ["grün ✓"]


def test_with_a_proxy_in_the_environment_the_client_library_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(a_cluster(), tmp_path) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        client = client_of("http://api.invalid:6443")
        with pytest.raises(RequestError, match="not found"):
            client.get("/x", timeout=30)
    assert proxy.asked[0][1] == "/x"


def test_a_proxy_of_the_kubeconfig_is_used(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as proxy:
        config = kubeconfig("http://api.invalid:6443")
        config["clusters"][0]["cluster"]["proxy-url"] = proxy.url
        with pytest.raises(RequestError):
            access_of(config, Options()).client().get("/x", timeout=30)
        assert proxy.asked[0][1] == "/x"


def test_writes_say_who_writes_and_a_dry_run_stores_nothing(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        client = client_of(server.url)
        client.patch("/p", {"spec": {}}, timeout=30, dry_run=True)
        client.delete("/q", uid="u", timeout=30)
        patch, delete = server.asked

    assert patch == ("PATCH", "/p", {"dryRun": ["All"], "fieldManager": ["kubectl-whatsapp"]}, '{"spec": {}}')
    assert server.headers[0]["Content-Type"] == "application/merge-patch+json"
    assert delete == ("DELETE", "/q", {}, '{"preconditions": {"uid": "u"}}')


def counting_login(folder: Path) -> Path:
    """A credential plugin whose tokens are t1, t2 and so on."""
    code = (
        f"asked = {str(folder / 'asked')!r}\n"
        "open(asked, 'a').write('.')\n"
        "print(json.dumps({'status': {'token': f't{os.path.getsize(asked)}'}}))"
    )
    return program(folder, "login", code)


def test_a_credential_that_has_expired_is_asked_for_again(tmp_path: Path) -> None:
    config = exec_config(counting_login(tmp_path))
    with serving(a_cluster(), tmp_path) as server:
        config["clusters"][0]["cluster"]["server"] = server.url
        server.texts["/log"] = "one"
        server.token = "t2"
        read = access_of(config, Options()).client()
        assert read.get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"
        server.token = "t4"
        written = access_of(config, Options()).client()
        assert written.patch(CLUSTER, {}, timeout=30)["kind"] == "WhatsAppCluster"
        server.token = "t6"
        followed = access_of(config, Options()).client()
        assert list(followed.lines("/log", timeout=30)) == ["one"]

    assert (tmp_path / "asked").stat().st_size == 6


def test_a_token_whose_file_was_renewed_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old", encoding="utf-8")
    with serving(a_cluster(), tmp_path) as server:
        server.token = "new"
        client = client_of(server.url, tokenFile=str(tmp_path / "token"))
        (tmp_path / "token").write_text("new", encoding="utf-8")
        assert client.get(CLUSTER, timeout=30)["kind"] == "WhatsAppCluster"


def test_many_threads_ask_for_one_new_credential(tmp_path: Path) -> None:
    config = exec_config(counting_login(tmp_path))
    with serving(a_cluster(), tmp_path) as server, ThreadPoolExecutor(8) as pool:
        config["clusters"][0]["cluster"]["server"] = server.url
        server.token = "t2"
        client = access_of(config, Options()).client()
        kinds = [*pool.map(lambda _: client.get(CLUSTER, timeout=30)["kind"], range(16))]

    assert kinds == ["WhatsAppCluster"] * 16
    assert (tmp_path / "asked").stat().st_size == 2


def test_a_credential_that_stays_rejected_is_not_asked_for_with_each_request(tmp_path: Path) -> None:
    config = exec_config(counting_login(tmp_path))
    with serving(a_cluster(), tmp_path) as server:
        config["clusters"][0]["cluster"]["server"] = server.url
        server.token = "none of them"
        client = access_of(config, Options()).client()
        for _ in range(3):
            with pytest.raises(RequestError, match="log in again"):
                client.get(CLUSTER, timeout=30)
        assert (tmp_path / "asked").stat().st_size == 2

        program(tmp_path, "login", "print(json.dumps({'status': {'token': 't1'}}))")
        client = access_of(config, Options()).client()
        program(tmp_path, "login", "sys.exit('the session has ended')")
        with pytest.raises(RequestError, match="returned no credential: the session has ended") as raised:
            client.get(CLUSTER, timeout=30)
        assert raised.value.status == 401


def test_errors_say_what_the_api_server_says(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        server.rejects = (
            422,
            {"kind": "Status", "message": "spec.shards: \x1b[31m3 is wrong", "details": {"causes": [{"field": "spec.shards"}]}},
        )
        with pytest.raises(RequestError) as raised:
            client_of(server.url).patch("/p", {}, timeout=30)
        server.rejects = 401, {"message": "Unauthorized"}
        with pytest.raises(RequestError, match="log in again"):
            client_of(server.url).patch("/p", {}, timeout=30)
        server.texts["/broken"] = "no json"
        with pytest.raises(RequestError, match="not a JSON object"):
            client_of(server.url).get("/broken", timeout=30)
        assert client_of(server.url).text("/broken", timeout=30) == "no json"
        assert list(client_of(server.url).lines("/broken", timeout=30)) == ["no json"]

    assert (raised.value.status, raised.value.details["details"]["causes"]) == (422, [{"field": "spec.shards"}])
    assert "\x1b" not in str(raised.value), "no control characters reach the terminal"


def test_an_api_server_that_is_away_or_silent(tmp_path: Path) -> None:
    slow = serving(a_cluster(), tmp_path, delays={"cluster": 1.0})
    with slow as server, pytest.raises(RequestError, match=r"no answer within 0\.1 s"):
        client_of(server.url).get("/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters/acme", timeout=0.1)
    with pytest.raises(RequestError, match=r"the API server cannot be reached \(.*[Rr]efused"):
        client_of(server.url).get("/x", timeout=30)
