"""One local control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler as plain processes on loopback, in one folder."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from localkube import kubeconfig
from localkube.errors import LocalKubeError
from localkube.files import only_one
from localkube.hollow.addresses import is_free
from localkube.kubeconfig import Access
from localkube.plane import certificates, processes
from localkube.plane.certificates import Certificates
from localkube.plane.processes import EarlyEndError, Process
from localkube.programs.binaries import Binaries, provide
from localkube.progress import to_stderr
from localkube.run import output

LOOPBACK = "127.0.0.1"
APISERVER = "kube-apiserver"
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"  # the first of the range is that of the Service "kubernetes"
ETCD_SOCKET, ETCD_PEER_SOCKET = "localhost:2379", "localhost:2380"  # file names; etcd wants them to look like addresses
FOLDERS = ("etcd", "certificates", "certificates.partial", "logs", "kubectl-cache")
FILES = ("*kubeconfig", "processes.json", "audit.log", "audit-policy.yaml", ".lock", ETCD_SOCKET, ETCD_PEER_SOCKET)
"""What a control plane makes in its folder."""
START_SECONDS = 60.0
VALID_SECONDS = 30 * 24 * 3600  # of a token
CALL_SECONDS = 60.0
"""The time-out of a single call in seconds; only a lost API server takes this long."""
KEPT_CONNECTIONS = 4
"""To the API server, as administrator: a TLS handshake costs both sides more than a call."""
PORT_TRIES = 5
GARBAGE = {"GOGC": "200"}
"""For its programs: less time for more memory. They collect garbage when they hold three times what was live, not twice.

An environment that says another number is obeyed.
"""
_Args = Mapping[str, Sequence[str]]

# Below the ports that Linux assigns to outgoing connections (from 32768), so that none is taken between choosing and using it.
PORT_RANGE = range(20000, 32000)

# EndpointSlices reject the loopback addresses of hollow pods; these would write Warning events forever.
CONTROLLERS_WITHOUT_ENDPOINTS = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"

# Every write with who, what and the answer; reads are not noted. Events and Leases too: who counts leaves them out.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]}, {"level": "None"}],
}


@dataclasses.dataclass(frozen=True)
class Write:
    """One write as the API server's audit log notes it."""

    user: str  # such as system:serviceaccount:NAMESPACE:NAME
    verb: str  # create, update, patch, delete, deletecollection
    resource: str  # plural, such as pods
    subresource: str  # such as status, else empty
    namespace: str
    name: str
    code: int  # HTTP status of the answer
    at: str  # RFC 3339 with microseconds, when the request arrived
    group: str = ""  # API group, empty for the core
    credential: str = ""  # of the caller, such as JTI=..., the id of the token of a ServiceAccount


class ControlPlane:
    """A control plane that runs, or ran, in ``folder``. Made by ``start``."""

    def __init__(self, folder: Path, *, binaries: Binaries, leashed: bool) -> None:
        self.folder = folder
        self.admin_kubeconfig = folder / "kubeconfig"  # with all rights
        self.processes: list[Process] = []  # in the order in which they were started
        self._binaries = binaries
        self._leashed = leashed
        self._apiserver_args: Sequence[str] = ()
        """With which the API server runs."""
        self._client: httpx.Client | None = None
        self._reading, self._read = threading.Lock(), 0
        self._writes: list[Write] = []
        """What the audit log held of them up to its byte ``_read``."""

    # ---- start, stop

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        binaries: Binaries | None = None,
        audit_log: bool = False,
        detached: bool = False,
        apiserver_args: Sequence[str] = (),
        controller_manager_args: Sequence[str] = (),
        timeout: float = START_SECONDS,
    ) -> ControlPlane:
        """Start a control plane in ``folder``; return when it is ready: default ServiceAccount there, scheduler healthy.

        ``binaries``: the programs; found, fetched or built when not given.
        ``audit_log``: note every write, for ``writes()``. ``detached``: outlive this Python process; else all processes end with it.
        ``timeout``: seconds until ready, not counting fetching or building. Data left in ``folder`` by an earlier run is used again.
        Raises LocalKubeError: what failed, with the last log lines of the program that died; nothing is left running then.
        """
        folder = folder.absolute()
        binaries = binaries or provide(os.environ)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "logs").mkdir(exist_ok=True)
        with only_one(folder / ".lock", f"another command is starting a control plane in {folder}: wait for it or use another folder"):
            running = [process for process in processes.load(folder / "processes.json") if process.alive()]
            if running:
                names = ", ".join(f"{process.name} (pid {process.pid})" for process in running)
                raise LocalKubeError(f"a control plane already runs in {folder}: {names}; end it first")
            started = cls(folder, binaries=binaries, leashed=not detached)
            if audit_log:
                (folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY), encoding="utf-8")
                files = [f"--audit-policy-file={folder / 'audit-policy.yaml'}", f"--audit-log-path={folder / 'audit.log'}"]
                apiserver_args = [*files, *apiserver_args]
            more = {"kube-apiserver": apiserver_args, "kube-controller-manager": controller_manager_args}
            try:
                started._start(more, time.monotonic() + timeout)
            except BaseException:
                started.stop()
                raise
        return started

    def stop(self) -> None:
        """End the processes of this control plane, and only those. Data, logs and the kubeconfig stay in the folder."""
        try:
            end(self.processes)
        finally:
            self._forget_client()

    # ---- what a user of it needs

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return kubeconfig.read(self.admin_kubeconfig).server

    def kubectl(self, *args: str, input: str | None = None, timeout: float = 60.0) -> str:  # noqa: A002 - subprocess calls it so
        """Standard output of kubectl as admin; ``input`` goes to its standard input. LocalKubeError with what kubectl said if it fails."""
        # GOGC: it ends before collecting its garbage is worth the time.
        env = {**os.environ, "KUBECONFIG": str(self.admin_kubeconfig), "KUBECACHEDIR": str(self.folder / "kubectl-cache"), "GOGC": "off"}
        return output([str(self._binaries["kubectl"]), *args], text=input or "", env=env, timeout=timeout)

    def call(self, method: str, path: str, body: Any = None, *, content: str = "application/json") -> Any:
        """The object that the API server answers an administrator. LocalKubeError if it rejects the call, or if there is no answer.

        Costs far less than a kubectl. ``content``: the type of ``body``, such as application/merge-patch+json.
        """
        try:
            answer = self._admin().request(method, path, json=body, headers={"Content-Type": content}, timeout=CALL_SECONDS)
        except httpx.HTTPError as error:
            raise LocalKubeError(f"{method} {path}: no answer: {error}") from error
        if not answer.is_success:
            raise LocalKubeError(f"{method} {path}: {answer.status_code} {' '.join(answer.text.split())[:500]}")
        return answer.json()

    def service_account_kubeconfig(self, namespace: str, name: str, path: Path) -> Path:
        """Write a kubeconfig with a token of an existing ServiceAccount to ``path``. LocalKubeError if there is no such account."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": VALID_SECONDS}}
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        try:
            token = self.call("POST", where, body)["status"]["token"]
        except LocalKubeError as error:
            raise LocalKubeError(f"the API server gives no token for the ServiceAccount {namespace}/{name}: {error}") from error
        admin = kubeconfig.read(self.admin_kubeconfig)
        return Access(admin.server, admin.authority, token=token).write(path, namespace=namespace)

    def writes(self) -> list[Write]:
        """Every write so far, oldest first, from the audit log.

        LocalKubeError if it was started without one, or if the API server began it again, as it does after 100 MB.
        """
        with self._reading:  # each line once: tests ask again and again
            try:
                with (self.folder / "audit.log").open("rb") as log:
                    if log.seek(0, os.SEEK_END) < self._read:
                        raise LocalKubeError(
                            f"the API server of {self.folder} began its audit log again: what was written in between is not known"
                        )
                    log.seek(self._read)
                    new, end, _ = log.read().rpartition(b"\n")  # a last line may be half written
            except FileNotFoundError:
                raise LocalKubeError(f"{self.folder} keeps no audit log: start the control plane with audit_log=True") from None
            self._writes += [_write(json.loads(line)) for line in new.splitlines()]
            self._read += len(new + end)
            return [*self._writes]

    @property
    def apiserver(self) -> Process:
        """The process of the API server: paused, its connections stay open and nothing answers. LocalKubeError if it does not run."""
        for process in self.processes:
            if process.name == "kube-apiserver" and process.alive():
                return process
        raise LocalKubeError(f"the kube-apiserver of {self.folder} does not run")

    def start_another_apiserver(
        self, *, made: Certificates | None = None, timeout: float = START_SECONDS
    ) -> tuple[Process, tuple[str, int]]:
        """Start one more API server over the same etcd; return it and its address when it is ready. It ends with the control plane.

        ``made``: whose certificate it shows; that of the first one if not given.
        """
        address, name = (LOOPBACK, free_ports(1)[0]), f"{APISERVER}-{len(self.processes)}"
        pair = [f"--tls-cert-file={made.certificate('server')}", f"--tls-private-key-file={made.key('server')}"] if made else []
        # Of a flag that is given twice the last counts.
        self._run(name, [*self._apiserver_args, f"--secure-port={address[1]}", *pair], program=APISERVER)
        url = f"https://{LOOPBACK}:{address[1]}"
        access = kubeconfig.read(self.admin_kubeconfig)
        authority = made.authority.read_text(encoding="utf-8") if made else access.authority
        with dataclasses.replace(access, server=url, authority=authority).client(connections=1) as client:
            processes.wait_until(lambda: _answers(client, "/readyz"), self.processes[-1:], "to be ready", time.monotonic() + timeout)
        return self.processes[-1], address

    def end_another_apiserver(self, server: Process) -> None:
        """End an API server that `start_another_apiserver` has started, also one that is paused."""
        processes.stop([server], grace=3.0)
        self.processes.remove(server)
        processes.save(self.folder / "processes.json", self.processes)

    # ---- how it is started

    def _start(self, more: _Args, deadline: float) -> None:
        made = certificates.make(self.folder / "certificates", service_ip=SERVICE_IP)
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                self._start_on(free_ports(3, self._last_port()), made, more, deadline)
                return
            except EarlyEndError as error:
                if "address already in use" not in str(error) or tries_left == 0:
                    raise
                processes.stop(self.processes, grace=1.0)
                self.processes.clear()
                processes.save(self.folder / "processes.json", [])

    def _start_on(self, ports: list[int], made: Certificates, more: _Args, deadline: float) -> None:
        server = f"https://{LOOPBACK}:{ports[0]}"
        for client in certificates.CLIENTS:
            path = self.admin_kubeconfig if client == "admin" else self.folder / f"{client}.kubeconfig"
            pair = made.certificate(client).read_text(), made.key(client).read_text()
            Access(server, made.authority.read_text(), *pair).write(path)
        self._forget_client()
        args = _arguments(self.folder, ports, made)
        self._apiserver_args = [*args[APISERVER], *more.get(APISERVER, ())]

        begun = time.monotonic()

        def run(name: str) -> None:
            self._run(name, [*args[name], *more.get(name, ())])

        def until(done: Callable[[], bool], name: str, what: str) -> None:
            watched = sorted(self.processes, key=lambda process: process.name == name)  # its log is quoted that stands last
            processes.wait_until(done, watched, f"{what}, in {self.folder}", deadline)

        (self.folder / ETCD_SOCKET).unlink(missing_ok=True)  # left by an etcd that was killed
        run("etcd")
        until((self.folder / ETCD_SOCKET).exists, "etcd", "to open its socket")  # found closed, it would be tried again only after a second
        run("kube-apiserver")
        until(lambda: self._answers("/livez"), "kube-apiserver", "to answer")
        to_stderr(f"etcd and kube-apiserver answer after {time.monotonic() - begun:.1f} s")
        run("kube-controller-manager")
        run("kube-scheduler")
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until(lambda: self._answers(account), "kube-controller-manager", "to make the default ServiceAccount")
        until(lambda: self._answers("/readyz"), "kube-apiserver", "to be ready")
        until(lambda: _healthy(ports[2]), "kube-scheduler", "to be healthy")
        to_stderr(f"kube-controller-manager and kube-scheduler work after {time.monotonic() - begun:.1f} s")

    def _run(self, name: str, args: Sequence[str], *, program: str = "") -> None:
        log = self.folder / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        env = {**GARBAGE, **os.environ}
        self.processes.append(
            processes.start(name, [self._binaries[program or name], *args], folder=self.folder, log=log, env=env, leashed=self._leashed)
        )
        processes.save(self.folder / "processes.json", self.processes)

    def _last_port(self) -> int | None:
        """The API server's port from an earlier run in this folder, if it is free, so that existing kubeconfigs keep working."""
        try:
            last = int(self.server.rpartition(":")[2])
        except (LocalKubeError, ValueError):
            return None
        return last if is_free(LOOPBACK, last) else None

    def _admin(self) -> httpx.Client:
        if self._client is None:
            self._client = kubeconfig.read(self.admin_kubeconfig).client(connections=KEPT_CONNECTIONS)
        return self._client

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _answers(self, path: str) -> bool:
        return _answers(self._admin(), path)


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.HTTPError:
        return False


def end(running: Iterable[Process]) -> None:
    """End the processes of a control plane; data, logs and the kubeconfig stay."""
    # the ones that talk to the API server first: otherwise they log its loss and the API server waits for their watches
    for names, grace in (("kube-scheduler", "kube-controller-manager"), 1.0), ((APISERVER,), 3.0), (("etcd",), 3.0):
        processes.stop([process for process in running if process.name.startswith(names)], grace=grace)


def _arguments(folder: Path, ports: list[int], made: Certificates) -> _Args:
    """The command line of each program; ``ports``: of API server, controller manager and scheduler."""
    pair = [f"--tls-cert-file={made.certificate('server')}", f"--tls-private-key-file={made.key('server')}"]

    def component(name: str, port: int) -> list[str]:
        kubeconfig_file = folder / f"{name}.kubeconfig"
        bind = [f"--bind-address={LOOPBACK}", f"--secure-port={port}", *pair, "--profiling=false"]
        return [f"--kubeconfig={kubeconfig_file}", "--leader-elect=false", *bind]

    # Unix sockets next to the data (the program's working folder): no port to lose, and no other user of the machine can open them.
    client, peer = f"unix://{ETCD_SOCKET}", f"unix://{ETCD_PEER_SOCKET}"
    return {
        "etcd": [
            f"--data-dir={folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # ms: there is no other member to lose an election to, so it may be over soon; but each heartbeat wakes it, idle or not.
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--log-level=error",
        ],
        "kube-apiserver": [
            f"--etcd-servers={client}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            "--endpoint-reconciler-type=none",  # the endpoints of the Service "kubernetes" may not be a loopback address
            f"--secure-port={ports[0]}",
            f"--cert-dir={made.folder}",
            *pair,
            f"--client-ca-file={made.authority}",
            "--authorization-mode=Node,RBAC",
            f"--service-account-key-file={made.certificate('service-account')}",
            f"--service-account-signing-key-file={made.key('service-account')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--profiling=false",
        ],
        "kube-controller-manager": [
            *component("kube-controller-manager", ports[1]),
            "--use-service-account-credentials",
            "--kube-api-qps=500",  # with the default of 20 a second, the accounts of its 35 controllers alone take 4 s
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={made.key('service-account')}",
            f"--root-ca-file={made.authority}",
            f"--controllers={CONTROLLERS_WITHOUT_ENDPOINTS}",
        ],
        "kube-scheduler": component("kube-scheduler", ports[2]),
    }


def free_ports(count: int, first: int | None = None) -> list[int]:
    """So many free ports of loopback; ``first`` is the first of them if given."""
    chosen = [] if first is None else [first]
    chosen += [port for port in random.sample(PORT_RANGE, 50) if port != first and is_free(LOOPBACK, port)]
    if len(chosen) < count:
        raise LocalKubeError(f"no free ports between {PORT_RANGE.start} and {PORT_RANGE.stop} on {LOOPBACK}: end what uses them")
    return chosen[:count]


def _healthy(port: int) -> bool:
    """Whether a component says ok on its health page, which needs no rights and holds no secret (so no certificate is checked)."""
    try:
        return httpx.get(f"https://{LOOPBACK}:{port}/healthz", verify=False, timeout=2.0, trust_env=False).is_success  # noqa: S501
    except httpx.HTTPError:
        return False


def _write(event: Mapping[str, Any]) -> Write:
    what = event.get("objectRef", {})
    extra = event["user"].get("extra") or {}
    return Write(
        **{name: what.get(name, "") for name in ("resource", "subresource", "namespace", "name")},
        group=what.get("apiGroup", ""),
        user=event["user"].get("username", ""),
        verb=event["verb"],
        code=event.get("responseStatus", {}).get("code", 0),
        at=event["requestReceivedTimestamp"],
        credential=next(iter(extra.get("authentication.kubernetes.io/credential-id") or ()), ""),
    )
