"""How the end-to-end environment reads nodes and pods, and the programs and shells by which it strikes them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from localkube.charts import Helm
from localkube.errors import LocalKubeError
from localkube.files import EXECUTABLE, write
from localkube.offline.cluster import CONTROL_PLANE
from localkube.plane.operators import REPOSITORY
from localkube.scenarios.cluster import is_ready
from localkube.scenarios.environment import Environment
from localkube.scenarios.hollow.environment import HollowEnvironment
from localkube.scenarios.kind.environment import KindEnvironment, crowded, has_started, is_whole
from localkube.scenarios.kind.install import DATABASE_SECRET, Installation, postgres
from localkube.scenarios.kind.nodes import KindNodes, NodeShell, run

WORKERS = ("w1", "w2", "w3")
SINCE = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def pod(name: str, node: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {"nodeName": node}, "status": status}


@pytest.mark.parametrize(
    ("nodes", "held", "moved"),
    [
        (("w1", "w2", "w3"), {"uid-p0"}, None),
        (("w1", "w1", "w3"), {"uid-p0"}, "p1"),  # a standby is moved rather than a holder
        (("w1", "w1", "w3"), {"uid-p0", "uid-p1"}, "p0"),
        (("w1", "w2"), {"uid-p0"}, None),  # fewer pods than workers is even enough
        (("w2", "w2"), set(), "p0"),
    ],
)
def test_a_pod_is_moved_only_where_two_share_a_node_and_another_has_none(nodes: tuple[str, ...], held: set[str], moved: str | None) -> None:
    found = crowded([pod(f"p{number}", node) for number, node in enumerate(nodes)], WORKERS, held)
    assert (found and found["metadata"]["name"]) == moved


def node(ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {"spec": spec, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def test_a_node_is_whole_when_it_is_ready_and_takes_pods() -> None:
    assert is_whole(node())
    assert is_whole(node(taints=[{"key": CONTROL_PLANE, "effect": "NoSchedule"}]))
    assert not is_whole(node("Unknown"))
    assert not is_whole(node(unschedulable=True))
    assert not is_whole(node(taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]))


def test_a_pod_that_is_about_to_go_is_not_ready() -> None:
    there = pod("p", "w1", conditions=[{"type": "Ready", "status": "True"}])
    assert is_ready(there)
    there["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert not is_ready(there)


@pytest.mark.parametrize(
    ("states", "started"),
    [
        ([{"running": {"startedAt": "2026-01-01T12:00:00Z"}}], True),
        ([{"running": {"startedAt": "2026-01-01T11:59:59Z"}}], False),  # what the API server said before the node was lost
        ([{"waiting": {}}], False),
        ([], False),
    ],
)
def test_a_pod_on_a_restarted_node_runs_when_its_kubelet_has_said_so_since(states: list[dict[str, Any]], started: bool) -> None:
    assert has_started(pod("p", "w1", containerStatuses=[{"state": state} for state in states]), SINCE) is started


@pytest.mark.parametrize("backend", [KindEnvironment, HollowEnvironment])
async def test_putting_right_has_all_nodes_take_pods_again_and_two_shards(
    backend: type[Environment], capsys: pytest.CaptureFixture[str]
) -> None:
    did: list[Any] = []

    async def patch(path: str, body: dict[str, Any], *, kind: str) -> None:
        did.append((path.rpartition("/")[2], body["spec"]))

    async def back() -> None:
        did.append("back")

    async def workers() -> list[str]:
        return ["w1", "w2"]

    async def settle(late: tuple[str, ...]) -> tuple[str, ...]:
        return late

    environment: Any = backend.__new__(cast("Any", backend))
    environment.clusters, environment.api = ("acme",), SimpleNamespace(patch=patch)
    environment.bring_back, environment.workers, environment.settle = back, workers, settle
    environment.state = lambda: "a pod is missing"
    await environment.put_right()
    free = {"unschedulable": None}
    assert did == ["back", ("w1", free), ("w2", free), ("acme", {"shards": 2})]
    assert capsys.readouterr().err == "acme is still not as wanted: a pod is missing\n"
    did.clear()
    await environment.cordon(yes=True)
    assert did == [("w1", {"unschedulable": True}), ("w2", {"unschedulable": True})]


# ------------------------------------------------------------ what is applied


def test_the_example_is_applied_as_it_stands_but_for_a_short_restart_and_the_database(tmp_path: Path) -> None:
    on = Installation(REPOSITORY, tmp_path, kubectl=tmp_path, helm=tmp_path, folder=tmp_path / "helm", tag="1")
    written = yaml.safe_load((REPOSITORY / "examples" / "cluster.yaml").read_text(encoding="utf-8"))
    applied = on.example("acme", database=True)
    assert applied["spec"].pop("database") == {"secretRef": {"name": DATABASE_SECRET}}
    applied["spec"]["client"]["simulator"]["restartSeconds"] = written["spec"]["client"]["simulator"]["restartSeconds"]
    assert applied == written


async def test_helm_is_given_the_chart_and_the_images_of_this_version(tmp_path: Path) -> None:
    helm = write(tmp_path / "helm", f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat > {tmp_path}/values\n', mode=EXECUTABLE)
    on = Installation(REPOSITORY, tmp_path, kubectl=tmp_path, helm=helm, folder=tmp_path / "kept", tag="1")
    await on.install({"logLevel": "DEBUG"})
    chart, where = REPOSITORY / "charts" / "whatsapp-operator", "--namespace whatsapp-operator-system --create-namespace"
    words = f"upgrade --install whatsapp-operator {chart} {where} --wait --timeout 180s -f -\n"
    assert (tmp_path / "words").read_text(encoding="utf-8") == words
    values = yaml.safe_load((tmp_path / "values").read_text(encoding="utf-8"))
    assert values == on.given
    assert (values["logLevel"], values["image"]) == ("DEBUG", {"repository": "whatsapp-operator/operator", "tag": "1"})
    assert values["simulator"] == {"image": {"repository": "whatsapp-operator/wabiz-sim", "tag": "1"}}


def test_postgresql_runs_where_no_fault_strikes_and_its_password_is_in_the_secret_only() -> None:
    secret, *others = yaml.safe_load_all(postgres("postgres:15", "hidden"))
    assert secret["stringData"]["WA_DB_PASSWORD"] == "hidden"
    assert "hidden" not in str(others)
    assert CONTROL_PLANE in others[-1]["spec"]["template"]["spec"]["nodeSelector"]


# ------------------------------------------------------------ programs and shells


async def test_a_program_holds_up_nothing_else_and_is_named_when_it_fails(tmp_path: Path) -> None:
    reading = asyncio.create_task(run("sh", "-c", f"cat; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done", given="yes"))
    asyncio.get_running_loop().call_soon((tmp_path / "go").touch)
    assert await reading == "yes"
    with pytest.raises(LocalKubeError, match=r"'sh -c echo no >&2; exit 3' failed: no"):
        await run("sh", "-c", "echo no >&2; exit 3")


async def test_what_cannot_be_shown_is_nothing(tmp_path: Path) -> None:
    on = Installation(REPOSITORY, tmp_path, kubectl=Path("false"), helm=tmp_path, folder=tmp_path / "helm", tag="1")
    assert await on.shown("pods") == ""
    with pytest.raises(LocalKubeError, match=r"'false --kubeconfig=.* get pods' failed"):
        await on.kubectl("get", "pods")


def test_helm_that_does_not_end_is_a_sentence_and_not_the_end_of_the_run(tmp_path: Path) -> None:
    helm = write(tmp_path / "helm", "#!/bin/sh\nexec sleep 60\n", mode=EXECUTABLE)
    with pytest.raises(LocalKubeError, match=r"'helm test second --timeout 180s' did not end within 0\.2 s"):
        Helm(helm, tmp_path).run("test", "second", "--timeout", "180s", timeout=0.2)


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NodeShell]:
    """A shell in a node that is this machine: a script plays `docker exec -i NAME bash` and writes down how often it was called."""
    write(tmp_path / "docker", f'#!/bin/sh\necho once >> {tmp_path}/opened\nshift 3\nexec "$@"\n', mode=EXECUTABLE)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    async with aclosing(NodeShell("node")) as made:
        yield made


async def test_commands_share_one_shell_and_are_answered_one_by_one(shell: NodeShell, tmp_path: Path) -> None:
    assert await shell.run("echo a; echo b") == "a\nb\n"
    assert await shell.run("printf c") == "c"
    assert await asyncio.gather(*(shell.run(f"echo {number}") for number in range(5))) == [f"{number}\n" for number in range(5)]
    assert (tmp_path / "opened").read_text(encoding="utf-8") == "once\n"


async def test_a_command_that_fails_says_so_and_the_shell_goes_on(shell: NodeShell) -> None:
    with pytest.raises(LocalKubeError, match="'ls /nowhere' in node node failed"):
        await shell.run("ls /nowhere")
    assert await shell.run("cd /; pwd") == "/\n"


async def test_a_shell_that_hangs_or_has_ended_is_opened_again(shell: NodeShell, tmp_path: Path) -> None:
    with pytest.raises(LocalKubeError, match=r"no answer within 0\.2 s"):
        await shell.run("sleep 60", timeout=0.2)
    assert await shell.run("echo again") == "again\n"
    with pytest.raises(LocalKubeError, match="the shell has ended"):
        await shell.run("kill -9 $$")
    assert await shell.run("echo and again") == "and again\n"
    assert (tmp_path / "opened").read_text(encoding="utf-8") == "once\n" * 3


async def test_nodes_come_back_however_the_block_ends(shell: NodeShell) -> None:
    back: list[str] = []

    async def bring(name: str) -> None:
        back.append(name)

    async def nothing() -> None:
        pass

    async def break_off() -> None:
        async with KindNodes(("node",), routes=nothing) as nodes:
            nodes._away["node"] = bring
            msg = "broken off"
            raise LocalKubeError(msg)

    with pytest.raises(LocalKubeError):
        await break_off()
    assert back == ["node"]
