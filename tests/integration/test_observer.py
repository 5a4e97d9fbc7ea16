"""The observer sees what it must see, and says so when it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from localkube.outside.observer import NotSeenError, Observer, ObserverError
from localkube.plane.controlplane import ControlPlane
from localkube.plane.operators import REPOSITORY, await_crd

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


def make(plane: ControlPlane, kind: str, name: str, labels: dict[str, str], **spec: Any) -> None:
    obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": LABELS | labels}, "spec": spec}
    plane.kubectl("-n", NAMESPACE, "create", "-f", "-", input=json.dumps(obj))


def test_two_pods_behind_one_shard_are_seen_and_an_exact_history_is_kept(observed: ControlPlane) -> None:
    shard = {"multiconnect.dev/shard": "0"}
    claim = shard | {"multiconnect.dev/epoch": "999999-x"}
    never = {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": "none"}]}
    with Observer(observed.admin_kubeconfig, NAMESPACE) as seen:
        make(observed, "Pod", "acme-coreapp-0", claim, **never)
        ports = [{"name": "messaging", "port": 6250}]
        make(observed, "Service", "acme-shard-0", shard, ports=ports, selector=LABELS | claim)
        commit = seen.wait_until(lambda it: it.commits, 10)[0]
        assert (commit.cluster, commit.shard, commit.epoch, commit.n) == ("acme", 0, "999999-x", 999999)
        assert seen.holders(NAMESPACE, "acme") == {0: "acme-coreapp-0"}
        assert seen.verify() == ()
        make(observed, "Pod", "acme-coreapp-1", claim, **never)
        seen.wait_until(lambda it: it.violations, 10)
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
            observer.bury("the watch of Pod objects failed for 10 s")
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
