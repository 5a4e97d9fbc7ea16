"""The observer sees what it must see, and says so when it cannot."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd
from outside.client import UPSTREAM_PORT
from outside.observer import NotSeenError, Observer, ObserverError
from waiting import LONG

pytestmark = pytest.mark.integration

NAMESPACE = "observed"
LABELS = {"multiconnect.dev/cluster": "acme"}


@pytest.fixture(scope="module")
def observed(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds" / "whatsappclusters.yaml"))
    await_crd(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    yield control_plane
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def make(plane: ControlPlane, kind: str, name: str, labels: dict[str, str], *, api: str = "v1", **spec: Any) -> None:
    obj = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": LABELS | labels}, "spec": spec}
    plane.kubectl("-n", NAMESPACE, "create", "-f", "-", input=json.dumps(obj))


NEVER: dict[str, Any] = {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "none"}]}


def test_two_pods_behind_one_shard_are_seen_and_an_exact_history_is_kept(observed: ControlPlane) -> None:
    shard = {"multiconnect.dev/shard": "0"}
    claim = shard | {"multiconnect.dev/epoch": "999999-x"}
    with Observer(observed.admin_kubeconfig, NAMESPACE) as seen:
        make(observed, "Pod", "acme-coreapp-0", claim, **NEVER)
        ports = [{"name": "messaging", "port": 6250}]
        make(observed, "Service", "acme-shard-0", shard, ports=ports, selector=LABELS | claim)
        commit = seen.wait_until(lambda it: it.commits, LONG)[0]
        assert (commit.cluster, commit.shard, commit.epoch, commit.n) == ("acme", 0, "999999-x", 999999)
        assert seen.holders(NAMESPACE, "acme") == {0: "acme-coreapp-0"}
        assert seen.verify() == ()
        make(observed, "Pod", "acme-coreapp-1", claim, **NEVER)
        seen.wait_until(lambda it: it.violations, LONG)
        # Only for an instant: it is in the history all the same.
        observed.kubectl("-n", NAMESPACE, "delete", "pod", "acme-coreapp-1", "--wait=false", "--grace-period=0", "--force")
        assert {violation.law for violation in seen.verify()} == {"one holder", "epoch on one pod"}
        assert seen.gaps == ()
        with pytest.raises(NotSeenError, match="a miracle was not seen"):
            seen.wait_until(lambda it: it.condition(NAMESPACE, "acme", "Ready"), 0.2, "a miracle")


def test_a_watch_that_died_is_no_silence(observed: ControlPlane) -> None:
    observer = Observer(observed.admin_kubeconfig, NAMESPACE)

    def observe() -> None:
        with observer as seen:
            observer.report_death("the watch of Pod objects failed for 10 s")
            with pytest.raises(ObserverError, match="no longer sees"):
                seen.wait_until(lambda _: True, 1)
            with pytest.raises(ObserverError, match="no longer sees"):
                seen.verify()

    with pytest.raises(ObserverError, match="the watch of Pod objects failed"):
        observe()


def test_a_relist_is_a_gap_that_proves_nothing(observed: ControlPlane) -> None:
    with Observer(observed.admin_kubeconfig, NAMESPACE) as seen:
        next(watch for watch in seen._watches if watch.kind == "Service")._relist()
        with pytest.raises(ObserverError, match="relisted Service objects"):
            seen.verify()


# ------------------------------------------------------------ what a fresh observer finds


def test_what_is_broken_already_is_counted_by_a_fresh_observer(observed: ControlPlane) -> None:
    shard = {"multiconnect.dev/shard": "1"}
    claim = shard | {"multiconnect.dev/epoch": "999998-x"}
    names = [f"early-{number}" for number in (0, 1)]
    for name in names:
        make(observed, "Pod", name, claim, **NEVER)
    try:
        with Observer(observed.admin_kubeconfig, NAMESPACE) as seen:
            assert {violation.law for violation in seen.violations} == {"epoch on one pod"}
            assert {violation.law for violation in seen.verify()} == {"epoch on one pod"}
    finally:
        observed.kubectl("-n", NAMESPACE, "delete", "pods", *names, "--grace-period=0", "--force")


# ------------------------------------------------------------ pods that go before the client gave up their shards


class FakeClient:
    """The client's state at 127.0.0.x, as the simulator shows it."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.calls: list[dict[str, Any]] = []

    def set_shards(self, shards: int) -> None:
        """What the operator would have done by POST."""
        self.calls.append({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "shards": shards, "restarted": True})
        self.shards = shards

    @contextmanager
    def listening(self, ip: str) -> Iterator[None]:
        """Answer ``GET /control/counters``."""
        client = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                calls = list(client.calls)
                body = json.dumps({"shards": client.shards, "restarts": len(calls), "set_shards_calls": calls}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        with ThreadingHTTPServer((ip, UPSTREAM_PORT), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@pytest.mark.parametrize(
    ("asks", "order", "expected"),
    [
        (True, ("pods", "client"), {"enough pods"}),
        (True, ("client", "pods"), set()),
        (False, ("pods", "client"), {"enough pods"}),
        (False, ("client", "pods"), set()),
    ],
)
def test_an_operator_that_takes_pods_away_before_set_shards_is_counted(
    observed: ControlPlane, asks: bool, order: tuple[str, str], expected: set[str]
) -> None:
    """Four shards and a spare become two and a spare, by a hostile writer that does both things by hand."""
    kubectl, client, ip, generations = observed.kubectl, FakeClient(4), "127.0.77.1", itertools.count(1)

    def status(kind: str, name: str, **values: Any) -> None:
        kubectl("-n", NAMESPACE, "patch", kind, name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": values}))

    def change(kind: str, name: str, **values: Any) -> None:
        kubectl("-n", NAMESPACE, "patch", kind, name, "--type=merge", "-p", json.dumps({"spec": values}))

    def report() -> None:
        """Have the client asked again; without asking, have the operator write its status again."""
        reports = len(seen.client_reports(NAMESPACE, "few"))
        if asks:
            seen.wait_until(lambda it: len(it.client_reports(NAMESPACE, "few")) > reports + 1, LONG, "a report")
        else:
            status("whatsappcluster", "few", shards=client.shards, observedGeneration=next(generations))

    mine = {"multiconnect.dev/cluster": "few"}
    with client.listening(ip), Observer(observed.admin_kubeconfig, NAMESPACE, ask_client=asks) as seen:
        make(observed, "WhatsAppCluster", "few", mine, api="multiconnect.dev/v1alpha1", shards=4, spares=1, client={"type": "Simulator"})
        pods = {"metadata": {"labels": mine}, "spec": NEVER}
        sizes = {"replicas": 5, "serviceName": "few", "selector": {"matchLabels": mine}, "template": pods}
        make(observed, "StatefulSet", "few-coreapp", mine, api="apps/v1", **sizes)
        make(observed, "Pod", "few-simulator-0", mine | {"app.kubernetes.io/component": "simulator"}, **NEVER)
        status("pod", "few-simulator-0", podIP=ip, podIPs=[{"ip": ip}], phase="Running")
        try:
            report()
            change("whatsappcluster", "few", shards=2)
            for step in order:
                if step == "client":
                    client.set_shards(2)
                else:
                    change("statefulset", "few-coreapp", replicas=3)
                    seen.wait_until(lambda it: (it.find("StatefulSet", NAMESPACE, "few-coreapp") or {})["spec"]["replicas"] == 3, LONG)
                report()
            found = seen.verify()
            assert {violation.law for violation in found} == expected, found
            assert seen.shrinks == ((4 if expected else 2) if asks else None,)
        finally:
            kubectl("-n", NAMESPACE, "delete", "whatsappcluster/few", "statefulset/few-coreapp", "--cascade=foreground")
            kubectl("-n", NAMESPACE, "delete", "pod", "few-simulator-0", "--grace-period=0", "--force")
