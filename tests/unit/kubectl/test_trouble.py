"""What the plugin says when things go wrong: nothing untrue, no traceback, and what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_whatsapp import checks
from kubectl_whatsapp.__main__ import main
from kubectl_whatsapp.commands import observe
from kubectl_whatsapp.model import Level
from kubectl_whatsapp.reading import cluster_path
from kubectl_whatsapp.view import view

from .clusters import TARGET, Server, a_cluster, serving
from .test_commands import run

Obj = dict[str, Any]
ROOT = Path(__file__).parents[3]
UNKNOWN = 3


# --- writes whose outcome is not known ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 504])
@pytest.mark.parametrize("args", [["pause"], ["resume"], ["switchover", "0"]])
def test_a_write_without_a_clear_answer_is_not_taken_for_no_change(
    server: Server, capsys: pytest.CaptureFixture[str], args: list[str], status: int
) -> None:
    server.rejects = status, {"message": "etcdserver: request timed out"}
    code, out, err = run(capsys, args[0], "acme", *args[1:])

    assert (code, out) == (UNKNOWN, "")
    assert "it is not known whether acme was changed (etcdserver: request timed out)" in err


def test_a_deletion_without_a_clear_answer_is_not_taken_for_none(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.rejects = 504, {"message": "timed out"}
    code, _, err = run(capsys, "game-day", "acme", "--yes-in-production")
    assert code == UNKNOWN
    assert "it is not known whether acme-coreapp-0 was deleted (timed out). See `kubectl whatsapp status acme`." in err

    server.rejects = 409, {"message": "another uid"}
    code, _, err = run(capsys, "game-day", "acme", "--yes-in-production")
    assert (code, "nothing was deleted: another uid" in err) == (4, True)


def test_a_switchover_that_nobody_carries_out_stays_requested_and_says_so(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on_write = lambda one, _: setattr(one, "cluster", one.cluster.annotated(switchover="0"))
    code, _, err = run(capsys, "switchover", "acme", "0", "--timeout", "0.3")
    assert code == 5
    assert "The request remains" in err
    assert "kubectl annotate whatsappcluster acme -n shop multiconnect.dev/switchover-" in err


# --- names --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "../secrets/acme-admin", "acme?watch=1", "acme#", "-x-", "ACME", "a b", "é"])
def test_what_can_be_no_name_is_asked_for_nowhere(server: Server, capsys: pytest.CaptureFixture[str], name: str) -> None:
    for args in (["status", "--", name], ["status", "acme", "-n", name], ["logs", "acme", "--", name], ["status", "acme", "--lease", name]):
        at = args.index("--") if "--" in args else len(args)
        code = main([*args[:at], "--request-timeout", "30", *args[at:]])
        assert (code, f"{name} cannot be the name of a" in capsys.readouterr().err) == (2, True), args
    assert server.asked == []


def test_a_cluster_that_is_not_there(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "status", "nope")
    assert (code, "kubectl get whatsappclusters --all-namespaces" in out) == (3, True)
    code, _, err = run(capsys, "game-day", "nope", "--yes-in-production")
    assert (code, "There is no WhatsAppCluster nope in namespace shop." in err) == (4, True)
    code, out, _ = run(capsys, "report", "nope", "-f", str(tmp_path / "r.tar.gz"))
    assert "There is no WhatsAppCluster nope in namespace shop." in out
    code, _, err = run(capsys, "game-day", "acme", "--shard", "banana", "--yes-in-production")
    assert (code, "banana is not a shard" in err) == (2, True)
    assert [method for method, *_ in server.asked if method != "GET"] == []


@pytest.mark.parametrize("how", [["--until", "Ready"], ["--until", "UpToDate"], ["--watch"], ["-o", "json", "--watch"]])
def test_a_cluster_that_is_not_there_is_not_waited_for(server: Server, capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    """As with kubectl wait: the name may be wrong."""
    code, out, err = run(capsys, "status", "nope", *how)

    assert (code, err) == (4, "kubectl whatsapp: there is no WhatsAppCluster nope in namespace shop to wait for.\n")
    assert "kubectl get whatsappclusters --all-namespaces" in out


@pytest.mark.parametrize("how", [["--until", "Ready"], ["--until", "Ready", "--watch"]])
def test_a_cluster_that_goes_is_waited_for_no_longer(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.setattr(observe, "REFRESH", 0.0)
    server.cluster = a_cluster().says("Ready", "False", "Unserved")
    goes_after(server, 2)
    code, _, err = run(capsys, "status", "acme", *how)

    assert (code, err) == (4, "kubectl whatsapp: WhatsAppCluster acme in namespace shop was deleted while the command waited for it.\n")


def goes_after(server: Server, reads: int) -> None:
    """The cluster is deleted after so many readings of it."""
    respond, path = server.respond, cluster_path(TARGET)

    def answer(method: str, asked: str, body: str) -> tuple[int, bytes, str]:
        if [one for _, one, *_ in server.asked].count(path) > reads:
            server.cluster = server.cluster.missing("cluster")
        return respond(method, asked, body)

    server.respond = answer  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize("how", [["--until", "Ready"], ["--watch"]])
def test_a_cluster_that_may_not_be_read_is_not_waited_for(server: Server, capsys: pytest.CaptureFixture[str], how: list[str]) -> None:
    server.cluster = a_cluster().without("cluster", why="whatsappclusters is forbidden")
    code, _, err = run(capsys, "status", "acme", *how)

    assert (code, err) == (4, "kubectl whatsapp: WhatsAppCluster shop/acme could not be read: whatsappclusters is forbidden\n")


def test_a_cluster_that_cannot_be_read_now_is_waited_for(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.delays["cluster"] = 60.0
    code = main(["status", "acme", "--until", "Ready", "--timeout", "0", "--request-timeout", "0.2"])
    assert (code, "acme is not Ready after 0 s." in capsys.readouterr().err) == (5, True)


def test_a_server_that_knows_no_whatsappclusters_says_so(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRD is not installed: then the API server answers with a text and no Status."""
    respond = server.respond
    unknown = (404, b"404 page not found\n", "text/plain")
    monkeypatch.setattr(server, "respond", lambda *asked: unknown if "whatsappclusters" in asked[1] else respond(*asked))
    sentence = "the server does not know this resource (404 page not found): is the CustomResourceDefinition installed?"

    for args, expected in (
        (["status", "acme"], 3),
        (["status", "acme", "--until", "Ready"], 4),
        (["why", "acme"], 3),
        (["pause", "acme"], 4),
    ):
        code, out, err = run(capsys, *args)
        assert (code, sentence in " ".join((out + err).split())) == (expected, True), (args, out, err)
        assert "There is no WhatsAppCluster" not in out


def test_a_switchover_that_may_no_longer_be_watched_stays_requested_and_says_so(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The right to read is taken away meanwhile."""
    server.on_write = lambda one, _: setattr(one, "cluster", replace(one.cluster, unread={"cluster": "whatsappclusters is forbidden"}))
    code, _, err = run(capsys, "switchover", "acme", "0")
    assert (code, "The request remains" in err, "is forbidden" in err) == (4, True, True)


# --- an operator that is elsewhere ---------------------------------------------------------------------------------------------


def test_a_lease_that_is_not_there_is_named() -> None:
    found = view(a_cluster().missing("lease").read())
    assert found.verdict.level is Level.CRITICAL
    assert "no operator leads (there is no Lease whatsapp-operator-system/whatsapp-operator)" in found.verdict.sentence
    assert "kubectl get leases --all-namespaces --field-selector metadata.name=whatsapp-operator" in found.next_steps


def test_pods_of_the_operator_that_cannot_be_read_are_not_taken_for_none() -> None:
    found = checks.check(a_cluster().without("operators", why="pods is forbidden").read())
    (replicas,) = (one for one in found.checks if one.name == "operator replicas")
    assert (replicas.level, replicas.sentence) == (Level.UNKNOWN, "the operator's pods could not be read (pods is forbidden).")


def test_the_log_of_an_operator_that_is_no_pod_here(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "logs", "acme", "operator")
    assert code == 4
    assert "If the operator is not a pod in whatsapp-operator-system, see --operator-namespace and --lease." in err


# --- the process ---------------------------------------------------------------------------------------------------------------


def start(kubeconfig: Path, *args: str, stdout: int = subprocess.PIPE, **env: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig), **env}
    command = [sys.executable, "-m", "kubectl_whatsapp", *args, "--request-timeout", "30"]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environ)


@pytest.mark.slow
def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server, Path("/dev/full").open("w") as full:
        process = start(server.kubeconfig, "status", "acme", stdout=full.fileno())
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (4, "kubectl whatsapp: the command ended early: No space left on device.\n")


@pytest.mark.slow
def test_what_nobody_foresaw_is_a_sentence_and_no_verdict(tmp_path: Path) -> None:
    broken = a_cluster().status(conditions=17)
    with serving(broken, tmp_path) as server:
        process = start(server.kubeconfig, "status", "acme")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 4, "1 would mean that a person should act"
        assert err.startswith("kubectl whatsapp: this is a bug in the plugin (TypeError: ")
        assert "Traceback" not in err
        process = start(server.kubeconfig, "status", "acme", KUBECTL_WHATSAPP_TRACEBACK="1")
        assert "Traceback" in process.communicate(timeout=60)[1]


@pytest.mark.slow
def test_a_closed_terminal_leaves_no_keys_behind(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        process = start(server.kubeconfig, "status", "acme", "--watch", TMPDIR=str(tmp_path))
        assert process.stdout is not None
        assert process.stdout.readline().startswith("shop/acme: ")
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGHUP, "")
    assert list(tmp_path.glob("kubectl-whatsapp-*")) == []


@pytest.mark.slow
def test_a_pipe_that_closes_early_gives_no_verdict(tmp_path: Path) -> None:
    with serving(a_cluster(32, 4), tmp_path) as server:
        process = start(server.kubeconfig, "status", "acme", "--watch")
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            code, err = process.wait(timeout=60), process.stderr.read()
    assert (code, err) == (141, "")


@pytest.mark.slow
def test_without_standard_output_it_ends_as_ever(tmp_path: Path) -> None:
    with serving(a_cluster(), tmp_path) as server:
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(server.kubeconfig)}
        command = f"{sys.executable} -m kubectl_whatsapp status acme --request-timeout 30 >&- 2>&-"
        assert subprocess.run(["sh", "-c", command], env=environ, timeout=60, check=False).returncode == 0


def test_json_of_an_absent_cluster_can_be_read(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", "nope", "-o", "json")
    assert (code, json.loads(out)["verdict"]["level"]) == (3, "unknown")
