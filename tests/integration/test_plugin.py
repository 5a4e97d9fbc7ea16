"""``kubectl whatsapp`` on a real API server: in health, in outages, and with just the rights that its help names."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import pykube  # noqa: F401  # first in this thread: while another one loads it, pytest changes what is done with its warnings
import pytest
import yaml

from kubectl_whatsapp.__main__ import main
from kubectl_whatsapp.access import Options, access_of
from kubectl_whatsapp.dashboard import board
from kubectl_whatsapp.rights import NEEDED, Right, Where
from localkube.kubeconfig import read
from localkube.plane.operators import NAMESPACE
from localkube.programs.binaries import Binaries
from outside.wire import Wire
from unit.kubectl.test_view import documented

from .environment import LONG, ROOT, Environment, Harness

pytestmark = pytest.mark.integration

Obj = dict[str, Any]
FORBIDDEN = "is forbidden"
"""What the API server says of every missing right."""
AN_OPERATOR: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "an-operator",
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": "whatsapp-operator", "app.kubernetes.io/component": "operator"},
    },
    "spec": {"schedulerName": "none", "containers": [{"name": "operator", "image": "none"}]},
}
"""A pod that stands for the operator, which runs as a process here. It is never scheduled."""
PLACES = {Where.OPERATOR: NAMESPACE, Where.NODE_LEASES: "kube-node-lease"}
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("--shards", "4"),
    "switchover": ("0", "--to", "nobody"),
    "logs": ("shard-0",),
    "why": ("0",),
}
"""What is given to a command to find out whether it can."""
PATIENT = "30"
"""Seconds for reading where no time is measured: the machine may be busy."""

SLOW_SECONDS = 20.0
"""By so much everything is held up to and from a slow API server: no answer comes sooner, and no command may wait for it."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Obj:
        found: Obj = json.loads(self.out)
        return found


@pytest.fixture(autouse=True)
def _kubectl(binaries: Binaries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECTL", str(binaries["kubectl"]))


def here(kubeconfig: Path, *args: str) -> Result:
    """Run a command in this process: for what no time is measured of."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*args, "--kubeconfig", str(kubeconfig), "--request-timeout", PATIENT])
    return Result(code, out.getvalue(), err.getvalue())


async def plugin(environment: Environment, *args: str) -> Result:
    """Run a command as admin."""
    return await asyncio.to_thread(here, environment.plane.admin_kubeconfig, *args, "-n", environment.namespace)


async def process(kubeconfig: Path, *args: str) -> tuple[Result, float]:
    """Run a command as a process of its own; also returns how long it took."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig)}
    begun = time.monotonic()
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kubectl_whatsapp", *args, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LONG):
        out, err = await started.communicate()
    return Result(started.returncode or 0, out.decode(), err.decode()), time.monotonic() - begun


async def until(ask: Callable[[], Result], is_so: Callable[[Result], bool], what: str) -> Result:
    """What a command says as soon as that is so; rights and Leases take effect a moment after they are changed."""
    deadline = time.monotonic() + LONG
    while not is_so(found := await asyncio.to_thread(ask)):
        assert time.monotonic() < deadline, f"not within {LONG:g} s: {what}; last:\n{found.text}"
        await asyncio.sleep(0.2)
    return found


# --- health ----------------------------------------------------------------------------------------------------------------


async def test_a_cluster_that_is_well_and_what_a_change_would_do(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    status, why = await plugin(environment, "status", "acme"), await plugin(environment, "why", "acme", "0", "-o", "json")

    assert status.code == 0, status.text
    assert f"{environment.namespace}/acme: All 2 shards are served; 1 spare could take over." in status.out
    assert "could not read" not in status.text
    assert (why.json()["rule"], why.json()["differs"], why.json()["unread"]) == ("UpToDate", "", {})
    assert (why.json()["shard"]["state"], why.json()["shard"]["holder"]) == ("Serving", environment.holder(0))
    checked = (await plugin(environment, "check", "acme", "-o", "json")).json()
    assert {one["name"] for one in checked["checks"] if one["level"] != "ok"} == {"operator replicas"}, "they are no pods here"

    before = environment.cluster()["metadata"]["generation"]
    good, bad = await plugin(environment, "plan", "acme", "--shards", "4"), await plugin(environment, "plan", "acme", "--shards", "3")
    assert (good.code, bad.code) == (0, 1)
    assert "Set Shards 2 -> 4: all Coreapps restart" in good.out
    assert 'Rejected: spec.shards: Unsupported value: 3: supported values: "1", "2", "4", "8", "16", "32"' in bad.out
    many = await plugin(environment, "plan", "acme", "--spares", "99")
    assert (many.code, "spec.spares" in many.out) == (1, True)
    stored = json.loads(await environment.kubectl("get", "wac", "acme", "-o", "json"))
    assert (stored["metadata"]["generation"], stored["spec"]["shards"]) == (before, 2), "a dry run stores nothing"


async def test_a_switchover_and_a_drill_are_what_the_observer_notes(environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    commits, origin = len(environment.seen.commits), environment.holder(0)
    moved = await plugin(environment, "switchover", "acme", "shard-0", "--reason", "an exercise", "-o", "json")
    commit = await environment.commit(0, commits)

    assert moved.code == 0, moved.text
    assert (moved.json()["from"], moved.json()["to"], moved.json()["epoch"]) == (origin, commit.holder, commit.epoch)
    assert moved.json().keys() - {"apiVersion", "kind"} <= documented("Switchover")
    assert environment.cluster()["metadata"]["annotations"]["multiconnect.dev/switchover-reason"] == "an exercise"
    await environment.at_rest()

    rejected = await plugin(environment, "switchover", "acme", "0", "--to", "nobody")
    assert rejected.code == 4
    assert "the operator rejected the switchover: Shard 0 was not moved: There is no Coreapp nobody." in rejected.err

    guarded = await plugin(environment, "game-day", "acme")
    assert (guarded.code, "has no label multiconnect.dev/test=true" in guarded.err) == (4, True)
    await environment.kubectl("label", "namespace", environment.namespace, "multiconnect.dev/test=true")
    commits, origin = len(environment.seen.commits), environment.holder(1)
    drill = await plugin(environment, "game-day", "acme", "--shard", "1", "-o", "json")
    assert drill.code == 0, drill.text
    assert (drill.json()["from"], drill.json()["to"]) == (origin, (await environment.commit(1, commits)).holder)
    assert drill.json().keys() - {"apiVersion", "kind"} <= documented("GameDay")
    assert drill.json()["evidence"] in {"PodDeleted", "ContainerTerminated", "ConnectionLost"}
    await environment.at_rest()
    assert (await plugin(environment, "status", "acme", "--until", "UpToDate", "--timeout", "60")).code == 0


async def test_pause_and_resume_hold_a_change_and_let_it_go(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    assert (await plugin(environment, "pause", "acme")).code == 0
    await environment.patch(spares=2)
    await environment.word("Reconciling", "Paused")
    assert "Planned changes are held" in (await plugin(environment, "status", "acme")).out
    assert (await plugin(environment, "why", "acme", "-o", "json")).json()["rule"] == "Paused"
    assert (await plugin(environment, "resume", "acme")).code == 0
    await environment.at_rest()


# --- outages ---------------------------------------------------------------------------------------------------------------


async def test_without_an_operator_and_without_the_holders_node(harness: Harness, environment: Environment) -> None:
    await environment.created(shards=2, spares=1)
    pod = next(one for one in environment.pods("coreapp") if one["metadata"]["name"] == environment.holder(0))
    node, kubeconfig = pod["spec"]["nodeName"], environment.plane.admin_kubeconfig
    await asyncio.to_thread(harness.end_replicas)
    try:
        dead, took = await process(kubeconfig, "status", "acme", "-n", environment.namespace, "--request-timeout", PATIENT)
        print(f"operator dead: {took:.2f} s")
        assert dead.code == 2, dead.text
        assert "All 2 shards are served, and no operator leads: the next failure would move no shard." in dead.out
        assert f"kubectl -n {NAMESPACE} get pods,leases" in dead.out

        async with environment.control() as control:
            await control.lose(node)
        try:
            gone = await until(
                lambda: here(kubeconfig, "status", "acme", "-n", environment.namespace),
                lambda found: "not served" in found.out,
                "a node that renews no Lease is named",
            )
            again, took = await process(kubeconfig, "status", "acme", "-n", environment.namespace, "--request-timeout", PATIENT)
            print(f"node gone and operator dead: {took:.2f} s")
            assert (gone.code, again.code) == (2, 2)
            assert f"node {node} " in again.out.splitlines()[0]
            assert "No operator leads, so no shard is moved." in again.out.splitlines()[0]
        finally:
            async with environment.control() as control:
                await control.back(node)
    finally:
        await asyncio.to_thread(harness.ensure_replicas)
    await environment.at_rest()


@asynccontextmanager
async def through_a_wire(environment: Environment, folder: Path) -> Any:
    """A wire to the API server, and a kubeconfig that leads through it."""
    access = read(environment.plane.admin_kubeconfig)
    url = urlsplit(access.server)
    async with Wire((url.hostname or "", url.port or 0)) as wire:
        path = replace(access, server=f"https://127.0.0.1:{wire.address[1]}").write(folder / "wired", namespace=environment.namespace)
        yield wire, path


async def test_an_api_server_that_is_slow_silent_or_gone(environment: Environment, tmp_path: Path) -> None:
    await environment.created(shards=2, spares=1)
    async with through_a_wire(environment, tmp_path) as (wire, kubeconfig):
        healthy, took = await process(kubeconfig, "status", "acme", "-o", "json", "--request-timeout", PATIENT)
        print(f"healthy: {took:.2f} s, reading {healthy.json()['seconds']} s")
        assert healthy.code == 0, healthy.text

        wire.delay = SLOW_SECONDS
        slow, took = await process(kubeconfig, "status", "acme", "-o", "json")
        print(f"slow: {took:.2f} s, reading {slow.json()['seconds']} s")
        wire.delay = 0.0
        wire.cut()
        silent, took = await process(kubeconfig, "status", "acme", "-o", "json")
        print(f"black hole: {took:.2f} s, reading {silent.json()['seconds']} s")
        for found in (slow, silent):
            assert found.code == 3
            assert found.json()["verdict"]["level"] == "unknown"
            assert "no answer within" in found.json()["verdict"]["sentence"]
            assert len(found.json()["unread"]) == 7
            assert found.json()["seconds"] < SLOW_SECONDS, "reading ends with its deadline, however slow the API server is"
        assert wire.held > 0, "the black hole was one"

        wire.heal()
        wire.cut(refuse=True)
        gone, _ = await process(kubeconfig, "status", "acme")
        assert gone.code == 3
        assert "the API server cannot be reached" in gone.out


async def test_of_two_api_servers_behind_a_load_balancer_one_hangs(environment: Environment, tmp_path: Path) -> None:
    """The other one answers. What only reads is sent again; what changes something is sent once, over a connection that could be opened."""
    await environment.created(shards=2, spares=1)
    async with through_a_wire(environment, tmp_path) as (wire, kubeconfig):
        with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel accepts connections for a process that is stopped
            for servers in ((wire.to, hung.getsockname()), (hung.getsockname(), wire.to)):
                wire.lead(*servers)
                for command in ("status", "why"):
                    found, took = await process(kubeconfig, command, "acme", "--request-timeout", PATIENT)
                    print(f"one of two hangs, {command}: {took:.2f} s")
                    assert "no answer" not in found.text
                    assert found.code == 0, found.text
                for command in ("pause", "resume"):
                    found, took = await process(kubeconfig, command, "acme")
                    print(f"one of two hangs, {command}: {took:.2f} s")
                    assert found.code == 0, found.text


async def test_kubectl_merges_kubeconfigs(environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await environment.created(shards=1, spares=0)
    config = yaml.safe_load(environment.plane.admin_kubeconfig.read_text(encoding="utf-8"))
    config["contexts"][0]["context"]["namespace"] = environment.namespace
    parts = {"a": {"users": config.pop("users"), "current-context": config.pop("current-context")}, "b": config}
    for name, part in parts.items():
        (tmp_path / name).write_text(yaml.safe_dump({**part, "apiVersion": "v1", "kind": "Config"}), encoding="utf-8")
    found, _ = await process(Path(f"{tmp_path / 'a'}:{tmp_path / 'b'}"), "status", "acme", "--request-timeout", PATIENT)

    assert found.code == 0, found.text


# --- rights ----------------------------------------------------------------------------------------------------------------


def role(right: Right, name: str, account: str, namespace: str) -> Iterator[Obj]:
    """A role with this one right, and its binding to a ServiceAccount of the namespace."""
    kind, where = ("ClusterRole", {}) if right.where is Where.EVERYWHERE else ("Role", {"namespace": PLACES.get(right.where, namespace)})
    group, meta = "rbac.authorization.k8s.io", {"name": name, **where}
    rule = {"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]}
    yield {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "rules": [rule]}
    yield {
        "apiVersion": f"{group}/v1",
        "kind": f"{kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


def path_of(binding: Obj) -> str:
    """Where the API server has a binding."""
    meta = binding["metadata"]
    where = f"namespaces/{meta['namespace']}/" if "namespace" in meta else ""
    return f"/apis/{binding['apiVersion']}/{where}{binding['kind'].lower()}s/{meta['name']}"


def refused(text: str, right: Right) -> bool:
    """Whether a text says that just this right is missing, in the API server's words."""
    resource = f'resource "{right.resource}" in API group "{right.group}"'
    return f"cannot {right.verb} {resource}" in text


async def test_each_command_can_with_the_rights_of_its_help_and_says_which_one_is_missing(
    harness: Harness, environment: Environment, tmp_path: Path, binaries: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECTL", str(asked_once(binaries["kubectl"], tmp_path)))
    await environment.created(shards=2, spares=1)
    await environment.kubectl("label", "namespace", environment.namespace, "multiconnect.dev/test=true")
    made: list[Obj] = [AN_OPERATOR]
    await cluster_wide(harness, "apply", objects=made)
    try:
        for command in NEEDED:
            if command != "reshard-now":
                await check_rights(harness, environment, command, tmp_path, made)
        # Last, for a change must wait meanwhile.
        window = {"name": "new-year", "schedule": "0 0 1 1 *", "durationMinutes": 5}
        await environment.patch(paused=True, shards=4, reshard={"windows": [window]})
        await environment.word("Reconciling", "Paused")
        await check_rights(harness, environment, "reshard-now", tmp_path, made)
    finally:
        await cluster_wide(harness, "delete", "--ignore-not-found", "--wait=false", objects=made)


def asked_once(kubectl: Path, folder: Path) -> Path:
    """A program that asks kubectl once for what is in each kubeconfig, and prints this again: the commands ask a hundred times."""
    path = folder / "kubectl"
    text = f'kept="${{1#--kubeconfig=}}.json"\n[ -e "$kept" ] || {kubectl} "$@" > "$kept"\ncat "$kept"\n'
    path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return path


async def cluster_wide(harness: Harness, *verb: str, objects: list[Obj]) -> None:
    """Give objects of several namespaces to kubectl."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    await asyncio.to_thread(harness.plane.kubectl, *verb, "-f", "-", input=listed)


async def check_rights(harness: Harness, environment: Environment, command: str, folder: Path, made: list[Obj]) -> None:
    """Try a command with its rights, then with fewer and fewer of them."""
    account = f"only-{command}"
    identity = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": environment.namespace}}
    roles = {
        right: [*role(right, f"{environment.namespace}-{command}-{number}", account, environment.namespace)]
        for number, right in enumerate(NEEDED[command])
    }
    made += [obj for objects in roles.values() for obj in objects]
    await cluster_wide(harness, "apply", objects=[identity, *(obj for objects in roles.values() for obj in objects)])
    kubeconfig = await asyncio.to_thread(
        harness.plane.service_account_kubeconfig, environment.namespace, account, folder / f"{account}.kubeconfig"
    )

    def ask() -> Result:
        return run_for_rights(kubeconfig, command, folder / f"{account}.tar.gz")

    await until(ask, lambda found: FORBIDDEN not in found.text, f"{command} can with just its rights")
    # The last one first, and none comes back: what is needed to get so far is taken away later.
    for right, (_, binding) in reversed(roles.items()):
        await asyncio.to_thread(harness.plane.call, "DELETE", path_of(binding))
        await until(ask, lambda found, right=right: refused(found.text, right), f"{command} names {right.name}")  # type: ignore[misc]


def page_for_rights(kubeconfig: Path) -> str:
    """What the live page shows of the cluster, as soon as it names a missing right, or everything is watched."""
    config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    found = access_of(config, Options())
    key = (found.namespace, "acme")
    with patch.object(board, "GRACE", 0.0):
        page = board.Board(
            found.client(), found.client(), board.Scope(namespace=key[0], name=key[1], operator_namespace=NAMESPACE), lambda: None
        )
        page.start()
        try:
            ends, quiet = time.monotonic() + LONG, 0
            while time.monotonic() < ends:
                views = page.views()
                text = json.dumps([page.clusters(views), page.cluster(key, views.get(key), 0)], ensure_ascii=False).replace('\\"', '"')
                quiet = quiet + 1 if views and "not read yet" not in text else 0
                if FORBIDDEN in text or quiet > 20:
                    return text
                time.sleep(0.1)
        finally:
            page.stop()
    return "the page was never complete"


def run_for_rights(kubeconfig: Path, command: str, archive: Path) -> Result:
    """What a command says; of a report also what is in it."""
    if command == "dashboard":
        return Result(0, page_for_rights(kubeconfig), "")
    more = ("--file", str(archive)) if command == "report" else COMMANDS.get(command, ())
    found = here(kubeconfig, command, "acme", *more, "--operator-namespace", NAMESPACE)
    if command == "logs":
        return replace(found, err=found.err + here(kubeconfig, command, "acme", "operator", "--operator-namespace", NAMESPACE).err)
    if command != "report" or not archive.exists():
        return found
    with tarfile.open(archive) as content:
        logs = [content.extractfile(one) for one in content.getmembers() if "/logs/" in one.name]
        return replace(found, out=found.out + "".join(one.read().decode() for one in logs if one is not None))
