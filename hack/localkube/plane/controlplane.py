"""One local control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler as plain processes on loopback, in one folder."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import http.client
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import yaml

from localkube.errors import LocalKubeError
from localkube.plane import certificates, kubeconfig, processes
from localkube.plane.certificates import Certificates
from localkube.plane.kubeconfig import Access, Caller
from localkube.plane.processes import Process, Spawner
from localkube.programs.binaries import Binaries, provide

LOOPBACK = "127.0.0.1"
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_IP = "10.96.0.1"  # the first of the range is that of the Service "kubernetes"
ETCD_SOCKET, ETCD_PEER_SOCKET = "localhost:2379", "localhost:2380"  # file names; etcd wants them to look like addresses
START_SECONDS = 60.0
PORT_TRIES = 5

# Below the ports that Linux hands out for outgoing connections (from 32768), so that nobody takes one between choosing and using it.
PORT_RANGE = range(20000, 32000)

# EndpointSlices refuse the loopback addresses of hollow pods; these would write Warning events for ever.
CONTROLLERS_WITHOUT_ENDPOINTS = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"

# Every write with who, what and the answer; reads are not noted. Events and Leases too: whoever counts leaves out what does not count.
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


class _PortTakenError(LocalKubeError):
    """A port of ours was taken; a start with automatic ports tries again with others."""


class ControlPlane:
    """A control plane that runs, or ran, in ``folder``. Made by ``start`` (runs it) or ``attach`` (finds one that runs)."""

    def __init__(self, folder: Path, *, binaries: Binaries | None, spawner: Spawner | None, running: list[Process]) -> None:
        self.folder = folder
        self._binaries = binaries
        self._spawner = spawner
        self._running = running
        self._caller: Caller | None = None

    # ---- start, find, stop

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        binaries: Binaries | None = None,
        port: int | None = None,
        hollow: bool = True,
        fast_nodes: bool = False,
        audit_log: bool = False,
        detached: bool = False,
        apiserver_args: Sequence[str] = (),
        controller_manager_args: Sequence[str] = (),
        timeout: float = START_SECONDS,
        report: Callable[[str], None] = lambda line: None,
    ) -> ControlPlane:
        """Start a control plane in ``folder``; return when it is ready: default ServiceAccount there, scheduler healthy.

        ``binaries``: the programs; found, fetched or built when not given. ``port``: of the API server; a free one if not given.
        ``hollow``: switch the endpoint controllers off. ``fast_nodes``: a silent node is NotReady after 7-8 s, not 47.
        ``audit_log``: note every write, for ``writes()``. ``detached``: outlive this Python process; else all processes end with it.
        ``timeout``: seconds until ready, not counting fetching or building. Data left in ``folder`` by an earlier run is used again.
        Raises LocalKubeError: what failed, with the last log lines of the program that died; nothing is left running then.
        """
        folder = folder.absolute()
        binaries = binaries or provide(os.environ, report=report)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "logs").mkdir(exist_ok=True)
        with _only_one(folder):
            running = [process for process in processes.load(folder / "processes.json") if process.alive()]
            if running:
                names = ", ".join(f"{process.name} (pid {process.pid})" for process in running)
                msg = f"a control plane already runs in {folder}: {names}; stop it with 'hack/cluster down --dir {folder}'"
                raise LocalKubeError(msg)
            started = cls(folder, binaries=binaries, spawner=Spawner(leashed=not detached), running=[])
            settings = _Settings(hollow, fast_nodes, audit_log, tuple(apiserver_args), tuple(controller_manager_args))
            try:
                started._start(settings, port, timeout, report)
            except BaseException:
                started.stop()
                raise
        return started

    @classmethod
    def attach(cls, folder: Path) -> ControlPlane:
        """The control plane that ``start`` left in ``folder``, running or not. LocalKubeError if there never was one."""
        folder = folder.absolute()
        if not (folder / "processes.json").exists():
            msg = f"there is no control plane in {folder}: start one with 'hack/cluster up --dir {folder}'"
            raise LocalKubeError(msg)
        return cls(folder, binaries=None, spawner=None, running=processes.load(folder / "processes.json"))

    def stop(self) -> None:
        """End the processes of this control plane, and only those. Data, logs and the kubeconfig stay in the folder."""
        # the ones that talk to the API server first: otherwise they log its loss and the API server waits for their watches
        order = ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"]
        by_name = {process.name: process for process in self._running}
        try:
            processes.stop([by_name[name] for name in order[:2] if name in by_name], grace=1.0)
            processes.stop([by_name[name] for name in order[2:3] if name in by_name], grace=3.0)
            processes.stop([by_name[name] for name in order[3:] if name in by_name], grace=3.0)
        finally:
            if self._spawner is not None:
                self._spawner.close()

    # ---- what a user of it needs

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig with all rights."""
        return self.folder / "kubeconfig"

    @property
    def processes(self) -> tuple[Process, ...]:
        """Its four processes, in the order in which they were started."""
        return tuple(self._running)

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return kubeconfig.read(self.admin_kubeconfig).server

    def ready(self) -> str | None:
        """None when everything runs and the API server says it is ready, else what is not."""
        for process in self._running:
            if not process.alive():
                return f"{process.name} {process.exit_text()}"
        try:
            status, text = self._admin().request("GET", "/readyz", timeout=2.0)
        except (OSError, http.client.HTTPException) as error:
            return f"the API server does not answer: {error}"
        return None if status == 200 else f"the API server is not ready: {' '.join(text.split())[:300]}"

    def kubectl(self, *args: str, input: str | None = None, timeout: float = 60.0) -> str:  # noqa: A002 - subprocess calls it so
        """Standard output of kubectl as admin; ``input`` goes to its standard input. LocalKubeError with what kubectl said if it fails."""
        self._binaries = self._binaries or provide(os.environ)
        argv = [str(self._binaries["kubectl"]), f"--cache-dir={self.folder / 'kubectl-cache'}", *args]
        env = {**os.environ, "KUBECONFIG": str(self.admin_kubeconfig)}
        try:
            done = subprocess.run(argv, input=input, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            msg = f"kubectl {' '.join(args)} did not end within {timeout:g} s"
            raise LocalKubeError(msg) from error
        if done.returncode != 0:
            msg = f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}"
            raise LocalKubeError(msg)
        return done.stdout

    def service_account_kubeconfig(self, namespace: str, name: str, path: Path, *, valid: timedelta = timedelta(days=30)) -> Path:
        """Write a kubeconfig with a token of an existing ServiceAccount to ``path``. LocalKubeError if there is no such account."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": int(valid.total_seconds())}}
        where = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        answer = self._call("POST", where, body, f"a token for the ServiceAccount {namespace}/{name}")
        admin = kubeconfig.read(self.admin_kubeconfig)
        return Access(admin.server, admin.authority, token=json.loads(answer)["status"]["token"]).write(path, namespace=namespace)

    def scrape_metrics(self) -> str:
        """The API server's metrics in Prometheus' text format."""
        return self._call("GET", "/metrics", None, "the metrics")

    def writes(self) -> list[Write]:
        """Every write so far, oldest first, from the audit log. LocalKubeError if it was started without one."""
        try:
            lines = self._audit_log.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            msg = f"{self.folder} keeps no audit log: start the control plane with audit_log=True"
            raise LocalKubeError(msg) from None
        return [_write(json.loads(line)) for line in lines if line.endswith("}")]  # a last line may be half written

    def pause_apiserver(self) -> None:
        """Stop the API server in its tracks (SIGSTOP): connections stay open and nothing answers."""
        self._signal_apiserver(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """Undo ``pause_apiserver``."""
        self._signal_apiserver(signal.SIGCONT)

    # ---- how it is started

    @property
    def _audit_log(self) -> Path:
        return self.folder / "audit.log"

    def _start(self, settings: _Settings, port: int | None, timeout: float, report: Callable[[str], None]) -> None:
        made = certificates.make(self.folder / "certificates", service_ip=SERVICE_IP)
        deadline = time.monotonic() + timeout
        if port is not None and not _free(port):
            msg = f"port {port} on {LOOPBACK} is taken by another program: end it or choose another port"
            raise LocalKubeError(msg)
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                self._start_on(_Ports.choose(port or self._last_port()), made, settings, deadline, report)
                return
            except _PortTakenError:
                self._end_all()
                if port is not None or tries_left == 0:
                    raise

    def _start_on(self, ports: _Ports, made: Certificates, settings: _Settings, deadline: float, report: Callable[[str], None]) -> None:
        server = f"https://{LOOPBACK}:{ports.apiserver}"
        authority = made.authority.read_text()
        for client in certificates.CLIENTS:
            path = self.admin_kubeconfig if client == "admin" else self.folder / f"{client}.kubeconfig"
            Access(server, authority, made.certificate(client).read_text(), made.key(client).read_text()).write(path)
        self._caller = None
        if settings.audit_log:
            (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY), encoding="utf-8")

        begun = time.monotonic()
        (self.folder / ETCD_SOCKET).unlink(missing_ok=True)  # left by an etcd that was killed
        self._run("etcd", _etcd_args(self.folder))
        # found closed, the socket would be tried again only after a second
        self._until((self.folder / ETCD_SOCKET).exists, "etcd", "to open its socket", deadline)
        self._run("kube-apiserver", _apiserver_args(self.folder, ports, made, settings))
        self._until(lambda: self._answers("/livez"), "kube-apiserver", "to answer", deadline)
        report(f"etcd and kube-apiserver answer after {time.monotonic() - begun:.1f} s")
        self._run("kube-controller-manager", _controller_manager_args(self.folder, ports, made, settings))
        self._run("kube-scheduler", _scheduler_args(self.folder, ports, made))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._until(lambda: self._answers(account), "kube-controller-manager", "to make the default ServiceAccount", deadline)
        self._until(lambda: self._answers("/readyz"), "kube-apiserver", "to be ready", deadline)
        self._until(lambda: _healthy(ports.scheduler), "kube-scheduler", "to be healthy", deadline)
        report(f"kube-controller-manager and kube-scheduler work after {time.monotonic() - begun:.1f} s")

    def _run(self, name: str, args: Sequence[str]) -> None:
        if self._binaries is None or self._spawner is None:
            msg = f"{self.folder} was attached to, not started here"
            raise LocalKubeError(msg)
        log = self.folder / "logs" / f"{name}.log"
        log.unlink(missing_ok=True)
        self._running.append(self._spawner.start(name, [self._binaries[name], *args], folder=self.folder, log=log))
        processes.save(self.folder / "processes.json", self._running)

    def _until(self, done: Callable[[], bool], name: str, what: str, deadline: float) -> None:
        """Wait for the program ``name``; LocalKubeError with log lines as soon as any program died, or at the deadline."""
        while not done():
            for process in self._running:
                if not process.alive():
                    lines = process.last_lines()
                    kind = _PortTakenError if "address already in use" in lines else LocalKubeError
                    msg = f"{process.name} {process.exit_text()} while the control plane started; the end of {process.log}:\n{lines}"
                    raise kind(msg)
            if time.monotonic() > deadline:
                slow = next(process for process in self._running if process.name == name)
                msg = f"waited in vain for {name} {what}, in {self.folder}; the end of {slow.log}:\n{slow.last_lines()}"
                raise LocalKubeError(msg)
            time.sleep(processes.POLL_SECONDS)

    def _end_all(self) -> None:
        processes.stop(self._running, grace=1.0)
        self._running.clear()
        processes.save(self.folder / "processes.json", [])

    def _last_port(self) -> int | None:
        """The API server's port of an earlier run in this folder, if it is free: kubeconfigs that were handed out go on working."""
        try:
            last = int(self.server.rpartition(":")[2])
        except (LocalKubeError, ValueError):
            return None
        return last if _free(last) else None

    def _admin(self) -> Caller:
        if self._caller is None:
            self._caller = Caller(kubeconfig.read(self.admin_kubeconfig))
        return self._caller

    def _answers(self, path: str) -> bool:
        try:
            return self._admin().request("GET", path, timeout=5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def _call(self, method: str, path: str, body: Any, what: str) -> str:
        """The answer's text. LocalKubeError naming ``what`` when there is none or it is a refusal."""
        try:
            status, text = self._admin().request(method, path, body, timeout=10.0)
        except (OSError, http.client.HTTPException) as error:
            msg = f"no answer about {what} from the API server in {self.folder}: {error}"
            raise LocalKubeError(msg) from error
        if status not in (200, 201):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = json.loads(text)["message"]
            msg = f"the API server refuses {what} ({status}): {text[:300]}"
            raise LocalKubeError(msg)
        return text

    def _signal_apiserver(self, number: signal.Signals) -> None:
        apiserver = next((process for process in self._running if process.name == "kube-apiserver"), None)
        if apiserver is None or not apiserver.signal(number):
            msg = f"the kube-apiserver of {self.folder} does not run"
            raise LocalKubeError(msg)


@dataclasses.dataclass(frozen=True)
class _Settings:
    hollow: bool
    fast_nodes: bool
    audit_log: bool
    apiserver_args: tuple[str, ...]
    controller_manager_args: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Ports:
    apiserver: int
    controller_manager: int
    scheduler: int

    @classmethod
    def choose(cls, apiserver: int | None) -> _Ports:
        """Free ports; ``apiserver`` is kept if given."""
        chosen: list[int] = [] if apiserver is None else [apiserver]
        for candidate in random.sample(PORT_RANGE, 200):
            if len(chosen) == 3:
                break
            if candidate not in chosen and _free(candidate):
                chosen.append(candidate)
        if len(chosen) < 3:
            msg = f"no free ports between {PORT_RANGE.start} and {PORT_RANGE.stop} on {LOOPBACK}: end what uses them"
            raise LocalKubeError(msg)
        return cls(*chosen)


def _etcd_args(folder: Path) -> list[str]:
    # Unix sockets beside the data (the program's working folder): no port to lose, and no other user of the machine can open them.
    client, peer = f"unix://{ETCD_SOCKET}", f"unix://{ETCD_PEER_SOCKET}"
    return [
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--heartbeat-interval=20",  # ms; there is nobody to lose an election to, so it may be over at once
        "--election-timeout=200",
        "--log-level=error",
    ]


def _apiserver_args(folder: Path, ports: _Ports, made: Certificates, settings: _Settings) -> list[str]:
    args = [
        f"--etcd-servers=unix://{ETCD_SOCKET}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",
        "--endpoint-reconciler-type=none",  # the endpoints of the Service "kubernetes" may not be a loopback address
        f"--secure-port={ports.apiserver}",
        f"--cert-dir={folder / 'certificates'}",
        f"--tls-cert-file={made.certificate('server')}",
        f"--tls-private-key-file={made.key('server')}",
        f"--client-ca-file={made.authority}",
        "--authorization-mode=Node,RBAC",
        f"--service-account-key-file={folder / 'certificates' / 'service-account.pub'}",
        f"--service-account-signing-key-file={made.key('service-account')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--profiling=false",
    ]
    if settings.audit_log:
        args += [f"--audit-policy-file={folder / 'audit-policy.yaml'}", f"--audit-log-path={folder / 'audit.log'}"]
    return [*args, *settings.apiserver_args]


def _controller_manager_args(folder: Path, ports: _Ports, made: Certificates, settings: _Settings) -> list[str]:
    args = [
        *_component_args("kube-controller-manager", folder, ports.controller_manager, made),
        "--use-service-account-credentials",
        "--kube-api-qps=500",  # with the default of 20 a second, the accounts of its 35 controllers alone take 4 s
        "--kube-api-burst=1000",
        f"--service-account-private-key-file={made.key('service-account')}",
        f"--root-ca-file={made.authority}",
    ]
    if settings.hollow:
        args.append(f"--controllers={CONTROLLERS_WITHOUT_ENDPOINTS}")
    if settings.fast_nodes:
        args += ["--node-monitor-period=1s", "--node-monitor-grace-period=12s"]
    return [*args, *settings.controller_manager_args]


def _scheduler_args(folder: Path, ports: _Ports, made: Certificates) -> list[str]:
    return _component_args("kube-scheduler", folder, ports.scheduler, made)


def _component_args(name: str, folder: Path, port: int, made: Certificates) -> list[str]:
    return [
        f"--kubeconfig={folder / f'{name}.kubeconfig'}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--tls-cert-file={made.certificate('server')}",
        f"--tls-private-key-file={made.key('server')}",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does: lingering connections do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _healthy(port: int) -> bool:
    """Whether a component says ok on its health page, which needs no rights and holds no secret (so no certificate is checked)."""
    unchecked = ssl._create_unverified_context()  # noqa: S323, SLF001
    connection = http.client.HTTPSConnection(LOOPBACK, port, timeout=2.0, context=unchecked)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[IO[str]]:
    """Two starts in one folder at the same time: the second is told so."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another command is starting a control plane in {folder}: wait for it or use another folder"
            raise LocalKubeError(msg) from None
        yield lock


def _write(event: Mapping[str, Any]) -> Write:
    what = event.get("objectRef", {})
    extra = event["user"].get("extra") or {}
    return Write(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        resource=what.get("resource", ""),
        subresource=what.get("subresource", ""),
        namespace=what.get("namespace", ""),
        name=what.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        at=event["requestReceivedTimestamp"],
        group=what.get("apiGroup", ""),
        credential=next(iter(extra.get("authentication.kubernetes.io/credential-id") or ()), ""),
    )


def remove(folder: Path) -> None:
    """Remove what ``start`` made in ``folder``, which must not run any more, and the folder itself if nothing else is in it."""
    for name in ("etcd", "certificates", "certificates.partial", "logs", "kubectl-cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = (
        "kubeconfig",
        "kube-controller-manager.kubeconfig",
        "kube-scheduler.kubeconfig",
        "processes.json",
        "audit.log",
        "audit-policy.yaml",
    )
    for name in (*files, ".lock", ETCD_SOCKET, ETCD_PEER_SOCKET):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
