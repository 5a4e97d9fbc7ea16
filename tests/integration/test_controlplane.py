"""The local control plane is a real one: accounts, controllers, scheduler, audit log; and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from localkube import kubeconfig
from localkube.errors import LocalKubeError
from localkube.plane import processes
from localkube.plane.controlplane import ControlPlane
from localkube.programs.binaries import Binaries
from waiting import LONG, wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]

STATEFULSET = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "web", "namespace": "pods"},
    "spec": {
        "serviceName": "web",
        "replicas": 2,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "web", "image": "none"}],
                "nodeSelector": {"for": "pods"},
                "tolerations": [{"key": "for", "operator": "Exists"}],
            },
        },
    },
}
# The taint keeps other tests' pods away from it.
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "paper", "labels": {"for": "pods"}},
    "spec": {"taints": [{"key": "for", "value": "pods", "effect": "NoSchedule"}]},
}
NODE_STATUS = {
    "status": {
        "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "20"},
        "capacity": {"cpu": "4", "memory": "4Gi", "pods": "20"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Paper", "message": "", "lastHeartbeatTime": None}],
    }
}


def items(plane: ControlPlane, *args: str) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads(plane.kubectl("get", *args, "-o", "json"))["items"]
    return found


def test_a_new_namespace_gets_its_default_service_account(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "accounts")

    wait_until(lambda: items(control_plane, "serviceaccount", "-n", "accounts", "--field-selector=metadata.name=default"))


def test_a_statefulset_makes_pods_and_the_scheduler_binds_them(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "namespace", "pods")
    control_plane.kubectl("create", "-f", "-", input=json.dumps(NODE))
    try:
        control_plane.kubectl("patch", "node", "paper", "--subresource=status", "--type=merge", "-p", json.dumps(NODE_STATUS))
        control_plane.kubectl("create", "-f", "-", input=json.dumps(STATEFULSET))

        wait_until(lambda: [pod["spec"].get("nodeName") for pod in items(control_plane, "pods", "-n", "pods")] == ["paper", "paper"])
    finally:
        control_plane.kubectl("delete", "namespace", "pods", "--wait=false")
        control_plane.kubectl("delete", "pods", "--all", "-n", "pods", "--force", "--grace-period=0")
        control_plane.kubectl("delete", "node", "paper")


def test_a_service_account_kubeconfig_opens_the_api_as_that_account(control_plane: ControlPlane, tmp_path: Path) -> None:
    control_plane.kubectl("create", "namespace", "tokens")
    control_plane.kubectl("create", "serviceaccount", "someone", "-n", "tokens")

    path = control_plane.service_account_kubeconfig("tokens", "someone", tmp_path / "someone.kubeconfig")

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    client = kubeconfig.read(path).client()
    answer = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=review)
    assert answer.status_code == 201
    assert answer.json()["status"]["userInfo"]["username"] == "system:serviceaccount:tokens:someone"
    # RBAC holds: it may do nothing yet
    assert client.get("/api/v1/namespaces/tokens/pods").status_code == 403


def test_a_token_for_nobody_is_refused_in_one_sentence(control_plane: ControlPlane, tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match=r"gives no token for the ServiceAccount default/nobody: POST .*: 404 .*not found"):
        control_plane.service_account_kubeconfig("default", "nobody", tmp_path / "nobody.kubeconfig")


def test_writes_are_counted_by_user(control_plane: ControlPlane) -> None:
    control_plane.kubectl("create", "configmap", "counted", "-n", "default")
    control_plane.kubectl("get", "configmap", "counted", "-n", "default")
    control_plane.kubectl("delete", "configmap", "counted", "-n", "default")

    mine = [write for write in control_plane.writes() if write.resource == "configmaps" and "counted" in (write.name, "")]

    assert [(write.user, write.verb, write.code) for write in mine if write.user == "local-admin"] == [
        ("local-admin", "create", 201),
        ("local-admin", "delete", 200),
    ]


def test_a_paused_api_server_gives_no_answer_until_it_is_resumed(control_plane: ControlPlane) -> None:
    client = kubeconfig.read(control_plane.admin_kubeconfig).client()

    def status(within: float = LONG) -> int:
        return client.get("/readyz", timeout=within).status_code

    assert status() == 200

    control_plane.apiserver.pause()
    try:
        with pytest.raises(httpx.TimeoutException):
            status(2.0)
    finally:
        control_plane.apiserver.resume()

    wait_until(lambda: status() == 200)


def test_a_failing_kubectl_says_what_kubectl_said(control_plane: ControlPlane) -> None:
    with pytest.raises(LocalKubeError, match=r"'kubectl get configmap none' failed: .*\"none\" not found"):
        control_plane.kubectl("get", "configmap", "none")


def test_stop_leaves_no_process_and_a_new_start_finds_data_and_address(binaries: Binaries, tmp_path: Path) -> None:
    first = ControlPlane.start(tmp_path / "x", binaries=binaries)
    first.kubectl("create", "namespace", "kept")
    server = first.server
    with pytest.raises(LocalKubeError, match="a control plane already runs in"):
        ControlPlane.start(tmp_path / "x", binaries=binaries)

    first.stop()

    assert [process.alive() for process in first.processes] == [False] * 4
    assert not _processes_with(str(tmp_path))

    second = ControlPlane.start(tmp_path / "x", binaries=binaries)
    try:
        assert second.server == server
        assert second.kubectl("get", "namespace", "kept", "-o", "name") == "namespace/kept\n"
    finally:
        second.stop()


def test_everything_ends_when_its_python_process_is_killed(binaries: Binaries, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from localkube.plane.controlplane import ControlPlane; "
        "ControlPlane.start(pathlib.Path(sys.argv[1])); print('started', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "hack")}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], env=env, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        running = processes.load(tmp_path / "x" / "processes.json")
        assert [process.alive() for process in running] == [True] * 4

        parent.send_signal(signal.SIGKILL)

    wait_until(lambda: not any(process.alive() for process in running))


def test_a_program_that_refuses_its_flags_is_quoted(binaries: Binaries, tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match=r"kube-apiserver exited with status 1 while [\s\S]*unknown flag: --no-such-flag"):
        ControlPlane.start(tmp_path / "x", binaries=binaries, apiserver_args=["--no-such-flag"])

    assert not _processes_with(str(tmp_path))


def _processes_with(text: str) -> list[str]:
    """The command lines of running processes that contain ``text``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # ended meanwhile
            continue
        if any(text in word for word in words):
            found.append(" ".join(words))
    return found
