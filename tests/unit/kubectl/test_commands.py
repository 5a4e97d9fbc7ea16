"""The commands as a person runs them, against a small API server."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kubectl_whatsapp
from kubectl_whatsapp import rights
from kubectl_whatsapp.__main__ import MODULES, main
from kubectl_whatsapp.client import Client
from kubectl_whatsapp.commands import collect
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.rights import NEEDED, Where
from whatsapp_operator.core import manifests

from .clusters import UID, Cluster, Server, a_cluster, named, serving
from .test_redact import BASE64, CANARY, JWT
from .test_view import documented

Obj = dict[str, Any]
ROOT = Path(__file__).parents[3]
LOG = "/api/v1/namespaces/shop/pods/acme-coreapp-0/log"


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main([*args, "--request-timeout", "30"] if args and "--help" not in args and args[0] in NEEDED else args)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


# --- help and errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", NEEDED)
def test_the_help_of_each_command_ends_with_its_rights(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, command, "--help")
    words = " ".join(out.split())

    assert code == 0
    assert words.endswith(rights.sentence(command))
    for right in NEEDED[command]:
        assert right.name in rights.sentence(command)


def test_each_command_is_in_the_table_of_rights_and_in_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys)[1]
    assert re.findall(r"^  ([a-z][a-z-]+)  ", out, re.MULTILINE) == [*NEEDED]
    assert "..." not in out.partition("Commands:")[2], "what a command does is shown whole"


@pytest.mark.parametrize(("option", "least"), [("--request-timeout", "0.1"), ("--timeout", "0")])
@pytest.mark.parametrize("given", ["nan", "inf", "-1", "1e9", "soon", ""])
def test_what_is_no_time_is_asked_for_before_anything_is_changed(
    server: Server, capsys: pytest.CaptureFixture[str], option: str, least: str, given: str
) -> None:
    for args in (["status", "acme"], ["switchover", "acme", "0"], ["game-day", "acme", "--yes-in-production"]):
        code = main([*args, f"{option}={given}"])
        assert (code, f"{given} is not a number of seconds from {least} to 86400." in capsys.readouterr().err) == (2, True), args
    assert server.asked == []


@pytest.mark.parametrize(("kind", "args"), [("Change", ("pause", "acme")), ("Report", ("report", "acme", "-f", "{folder}/x.tar.gz"))])
def test_the_shape_of_what_a_command_did_is_documented(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, args: tuple[str, ...]
) -> None:
    found = json.loads(run(capsys, *(one.format(folder=tmp_path) for one in args), "-o", "json")[1])
    assert (found.pop("apiVersion"), found.pop("kind")) == ("kubectl-whatsapp/v1", kind)
    assert found.keys() == documented(kind)


def test_a_shard_that_is_not_there_is_no_success(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "why", "acme", "shard-9")
    assert (code, "There is no shard 9; shards go from 0 to 1." in out) == (4, True)
    assert run(capsys, "why", "acme", "1")[0] == 0


def test_only_commands_that_write_have_more_than_get_list_and_watch() -> None:
    writing = {command for command, needed in NEEDED.items() if {one.verb for one in needed} - {"get", "list", "watch"}}
    assert writing == {"plan", "switchover", "reshard-now", "pause", "resume", "game-day"}
    assert {one.where for one in NEEDED["status"]} == set(Where)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["plan", "nope", "--shards", "4"], "WhatsAppCluster shop/nope: it does not exist."),
        (["pause", "nope"], "nothing was changed"),
        (["switchover", "nope", "0"], "WhatsAppCluster shop/nope could not be read"),
        (["switchover", "acme", "7"], "acme has no shard 7; it has 0, 1."),
        (["reshard-now", "acme"], "nothing waits for a window: the client has 2 shards, as the spec says."),
        (["logs", "acme", "9"], "acme has no shard 9; it has 0, 1."),
        (["logs", "acme", "acme-coreapp-7"], "the log of acme-coreapp-7 could not be read: not found"),
        (["logs", "acme", "operator"], "the log of op-a could not be read: not found"),
    ],
)
def test_errors_are_sentences(server: Server, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str) -> None:
    server.rejects = 404, {"message": "not found"}
    code, out, err = run(capsys, *args)

    assert code == 4
    assert err.startswith("kubectl whatsapp: ")
    assert sentence in err
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["status"], "Missing argument 'CLUSTER'"),
        (["nothing"], "No such command 'nothing'"),
        (["status", "acme", "-o", "xml"], "Invalid value for '--output' / '-o': 'xml' is not one of"),
    ],
)
def test_a_wrong_argument_shows_how_a_command_is_used(capsys: pytest.CaptureFixture[str], args: list[str], sentence: str) -> None:
    code = main(args)
    printed = capsys.readouterr()

    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("usage: kubectl whatsapp ")
    assert f"\nkubectl whatsapp: {sentence}" in printed.err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["switchover", "acme", "x"], "x is not a shard; give its number, such as 0 or shard-0."),
        (
            ["game-day", "acme", "--shard", "x", "--yes-in-production"],
            "nothing was deleted: x is not a shard; give its number, such as 0 or shard-0.",
        ),
        (["why", "acme", "x"], "x is not a shard; give its number, such as 3 or shard-3."),
        (["plan", "acme"], "give --shards, --spares or both."),
    ],
)
def test_an_argument_that_means_nothing_ends_as_a_wrong_one(
    server: Server, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str
) -> None:
    assert run(capsys, *args) == (2, "", f"kubectl whatsapp: {sentence}\n")


def test_without_a_cluster_in_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    code, _, err = run(capsys, "status", "acme")
    assert code == 4
    assert "kubectl cannot say where the API server is" in err or "names no cluster" in err
    assert "`kubectl config get-contexts`" in err


# --- reading ---------------------------------------------------------------------------------------------------------------


def test_status_ends_with_the_level_of_the_verdict(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for cluster, code in ((a_cluster(), 0), (a_cluster().unready("acme-coreapp-2"), 1), (a_cluster().without_pod("acme-coreapp-0"), 2)):
        server.cluster = cluster
        assert run(capsys, "status", "acme")[0] == code
    assert run(capsys, "status", "nope")[0] == 3
    assert run(capsys, "check", "acme")[0] == 2


@pytest.mark.parametrize(
    ("args", "kind"), [(["status"], "Status"), (["why"], "Why"), (["check"], "Check"), (["plan", "--shards", "4"], "Plan")]
)
def test_json_has_its_shape_and_kind(server: Server, capsys: pytest.CaptureFixture[str], args: list[str], kind: str) -> None:
    command, *more = args
    found = json.loads(run(capsys, command, "acme", *more, "-o", "json")[1])

    assert (found["apiVersion"], found["kind"], found["namespace"], found["name"]) == ("kubectl-whatsapp/v1", kind, "shop", "acme")


def test_reading_commands_write_nothing(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for args in (["status"], ["why", "0"], ["check"], ["report", "-f", str(tmp_path / "r.tar.gz")]):
        run(capsys, args[0], "acme", *args[1:])
    assert {method for method, *_ in server.asked} == {"GET"}


def test_status_until_ends_when_it_is_so_or_in_time(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "status", "acme", "--until", "Ready")[0] == 0
    server.cluster = a_cluster().says("Ready", "False", "Unserved")
    code, _, err = run(capsys, "status", "acme", "--until", "Ready", "--timeout", "0")
    assert (code, err) == (5, "kubectl whatsapp: acme is not Ready after 0 s.\n")


def test_why_names_the_rule_and_check_short_only_what_is_amiss(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.cluster = a_cluster().without_pod("acme-coreapp-0")
    out = run(capsys, "why", "acme", "shard-0")[1]
    assert out.startswith("shop/acme: FailingOver decides. Shard 0: acme-coreapp-0 failed (PodDeleted)")
    assert "PodDeleted holds (certain)" in out
    out = run(capsys, "check", "acme", "--short")[1]
    assert "failed  cluster: 1 of 2 shards is not served" in out
    assert "ok " not in out


@pytest.mark.parametrize("status", [404, 500])
def test_a_shard_is_followed_to_its_next_holder_although_the_last_one_is_gone(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Its pod is deleted, or its node is lost, a moment before the status names the next holder."""
    monkeypatch.setattr(collect, "PAUSE", 0.01)
    answers, respond = [(200, b"one\n", "text/plain"), (status, b"{}", "application/json"), (200, b"two\n", "text/plain")], server.respond

    def answer(method: str, path: str, body: str) -> tuple[int, bytes, str]:
        if not path.endswith("/log"):
            return respond(method, path, body)
        found = answers.pop(0)
        if found[0] == status:
            moves(server, {})
        if not answers:
            server.cluster = replace(server.cluster, found={})
        return found

    monkeypatch.setattr(server, "respond", answer)
    code, out, err = run(capsys, "logs", "acme", "0", "--follow")

    assert (out, answers) == ("one\ntwo\n", [])
    assert err.startswith("--- acme-coreapp-0\n--- acme-coreapp-2\n"), err
    assert (code, "could not be read" in err) == (4, True), "the cluster is gone"


def test_a_log_that_breaks_off_is_followed_again(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node of the holder is lost, and with it the stream."""
    monkeypatch.setattr(collect, "PAUSE", 0.01)
    asked: list[str] = []

    def lines(_: object, path: str, **query: object) -> Iterator[str]:
        asked.append(str(query["tailLines"]))
        yield f"line {len(asked)}"
        if len(asked) == 1:
            raise RequestError("broken off")
        server.cluster = replace(server.cluster, found={})

    monkeypatch.setattr(Client, "lines", lines)
    code, out, _ = run(capsys, "logs", "acme", "0", "--follow")

    assert (code, out, asked) == (4, "line 1\nline 2\n", ["50", "0"])


def test_a_log_that_stays_away_ends_the_following(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "PAUSE", 0.01)
    monkeypatch.setattr(collect, "MOST_WITHOUT_LOG", 0.1)
    code, out, err = run(capsys, "logs", "acme", "0", "--follow")

    assert (code, out) == (4, "")
    assert "the log of acme-coreapp-0 could not be read: not found" in err


def test_the_log_of_a_holder(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.texts[LOG] = "one\ntwo\n"
    assert run(capsys, "logs", "acme", "shard-0", "--tail", "2")[:2] == (0, "one\ntwo\n")
    assert server.asked[-1][2] == {"tailLines": ["2"]}
    assert run(capsys, "logs", "acme", "acme-coreapp-0", "--follow")[:2] == (0, "one\ntwo\n")
    assert server.asked[-1][2]["follow"] == ["true"]


# --- report ----------------------------------------------------------------------------------------------------------------


def with_canaries(cluster: Cluster) -> Cluster:
    def put(found: dict[str, Obj]) -> None:
        pod = named(found["pods"], "acme-coreapp-0")
        pod["spec"]["containers"][0]["env"] = [{"name": "X", "value": CANARY}]
        pod["metadata"]["annotations"] = {"note": f"Bearer {CANARY}", "kubectl.kubernetes.io/last-applied-configuration": CANARY}
        found["events"] = {"items": [{"metadata": {"name": "e"}, "message": f"password={CANARY} {JWT}"}]}

    account = {"countryCode": "1", "phoneNumber": "6315550123", "secretRef": {"name": "account"}}
    return cluster.but(put).spec(account=account)


def test_a_report_has_everything_but_secrets(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server.cluster = with_canaries(a_cluster()).without("nodes", why="nodes is forbidden")
    server.texts[LOG] = f"got 200\ntoken: {CANARY}\nBearer canary-token-of-the-kubeconfig {BASE64} 6315550123\n"
    path = tmp_path / "ticket.tar.gz"
    code, out, _ = run(capsys, "report", "acme", "-f", str(path))

    assert code == 0
    assert f"{path}: " in out
    assert "could not read nodes (nodes is forbidden)" in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        texts = {one.name: (archive.extractfile(one) or sys.stdin.buffer).read().decode() for one in archive.getmembers()}
    assert {name.partition("/")[2] for name in texts} >= {"status.json", "why.json", "check.json", "unread.json", "objects/cluster.json"}
    assert texts["ticket/logs/pods/acme-coreapp-0.log"].startswith("got 200\n")
    assert "could not be read: not found" in texts["ticket/logs/operator/op-a.log"]
    everything = "\n".join(texts.values())
    for secret in (CANARY, JWT, BASE64, "canary-token-of-the-kubeconfig", "6315550123", "last-applied-configuration"):
        assert secret not in everything
    assert "acme-coreapp-0" in everything
    assert not [path for _, path, *_ in server.asked if "secrets" in path], "Secrets are never read"


def test_a_report_that_cannot_be_written(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "report", "acme", "-f", "/no/such/folder/r.tar.gz")
    assert (code, "cannot be written: No such file or directory." in err) == (4, True)


# --- changing --------------------------------------------------------------------------------------------------------------


def moves(server: Server, _: Obj) -> None:
    """The operator moves shard 0 at once."""
    entry = {"shard": 0, "state": "Serving", "holder": "acme-coreapp-2", "epoch": "200-next"}
    handover = {
        "shard": 0,
        "epoch": "200-next",
        "to": "acme-coreapp-2",
        "evidence": "PodDeleted",
        "commitMilliseconds": 40,
        "serveMilliseconds": 9,
    }
    server.cluster = server.cluster.status(shardMap=[entry], recentHandovers=[handover])


def test_a_switchover_waits_and_says_how_long_it_took(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on_write = moves
    code, out, _ = run(capsys, "switchover", "acme", "shard-0", "--to", "acme-coreapp-2", "--reason", "a drill")

    assert code == 0
    assert re.fullmatch(r"shard 0 moved from acme-coreapp-0 to acme-coreapp-2 in \d+\.\d\d s, commit 40 ms, serve 9 ms\.\n", out)
    body = json.loads(next(body for method, *_, body in server.asked if method == "PATCH"))["metadata"]
    assert body["annotations"][manifests.SWITCHOVER_ANNOTATION] == "0=acme-coreapp-2"
    assert body["annotations"]["multiconnect.dev/switchover-reason"] == "a drill"
    assert body["resourceVersion"] == "100"


def test_a_rejected_switchover_says_why(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    said = (("2027-01-04T11:00:00Z", "an old one"), ("2027-01-04T12:00:00Z", "Shard 0 was not moved: There is no Coreapp x."))

    def rejects(server: Server, _: Obj) -> None:
        events = [
            {"metadata": {"name": str(at)}, "reason": "SwitchoverRejected", "message": text, "lastTimestamp": at} for at, text in said
        ]
        server.cluster = server.cluster.but(lambda found: found.update(events={"items": events}))

    server.on_write = rejects
    code, _, err = run(capsys, "switchover", "acme", "0", "--to", "x")
    assert (code, err) == (4, "kubectl whatsapp: the operator rejected the switchover: Shard 0 was not moved: There is no Coreapp x.\n")


def test_a_rejection_that_came_again_is_the_newest_and_that_of_a_former_cluster_is_none(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(text: str, at: str, again: str = "", uid: str = UID) -> Obj:
        series = {"series": {"count": 2, "lastObservedTime": again}} if again else {}
        about = {"kind": "WhatsAppCluster", "name": "acme", "uid": uid}
        times = {"eventTime": at, "lastTimestamp": "2027-01-04T12:00:00Z"}
        return {
            "metadata": {"name": f"acme.{at}"},
            "reason": "SwitchoverRejected",
            "message": text,
            "involvedObject": about,
            **times,
            **series,
        }

    events = [
        said("It came between.", "2027-01-04T12:00:00.200000Z"),
        said("It came first and again.", "2027-01-04T12:00:00.100000Z", "2027-01-04T12:00:00.300000Z"),
        said("It is of another cluster.", "2027-01-04T12:00:00.400000Z", uid="uid-former"),
    ]
    server.on_write = lambda one, _: setattr(one, "cluster", one.cluster.but(lambda found: found.update(events={"items": events})))
    assert run(capsys, "switchover", "acme", "0")[2] == "kubectl whatsapp: the operator rejected the switchover: It came first and again.\n"


def test_a_shard_that_another_standby_took_was_not_moved_as_requested(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """A failover can come first; the operator then still carries out the request."""

    def fails_over(server: Server, _: Obj) -> None:
        moves(server, _)
        server.cluster = server.cluster.annotated(switchover="0=acme-coreapp-1")

    server.on_write = fails_over
    code, out, err = run(capsys, "switchover", "acme", "0", "--to", "acme-coreapp-1", "--timeout", "0.5")
    assert (code, out) == (5, "")
    assert "The request remains" in err


def test_a_switchover_that_does_not_come_ends_in_time(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.on_write = lambda one, _: setattr(one, "cluster", one.cluster.annotated(switchover="0"))
    code, _, err = run(capsys, "switchover", "acme", "0", "--timeout", "0.3")
    assert code == 5
    assert re.search(r"shard 0 has not moved after \d+ s; see `kubectl whatsapp status acme`\.", err)


def test_a_switchover_changes_nothing_that_is_so_or_that_another_asked_for(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "switchover", "acme", "0", "--to", "acme-coreapp-0")[:2] == (
        0,
        "shard 0 is already held by acme-coreapp-0; nothing was changed.\n",
    )
    found = json.loads(run(capsys, "switchover", "acme", "0", "--to", "acme-coreapp-0", "-o", "json")[1])
    assert (found["kind"], found["from"], found["to"], found["epoch"]) == ("Switchover", "acme-coreapp-0", "acme-coreapp-0", "10-first")
    server.cluster = a_cluster().annotated(switchover="1=acme-coreapp-2")
    code, _, err = run(capsys, "switchover", "acme", "0")
    assert code == 4
    assert "another switchover is requested (multiconnect.dev/switchover: 1=acme-coreapp-2)" in err
    assert [method for method, *_ in server.asked if method != "GET"] == []


def test_pause_resume_and_reshard_now(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "pause", "acme")[:2] == (0, "acme: planned changes are held; failovers continue.\n")
    assert run(capsys, "resume", "acme")[:2] == (0, "acme: planned changes continue.\n")
    server.cluster = a_cluster().spec(shards=4, reshard={"windows": [{"name": "night", "schedule": "0 3 * * *", "durationMinutes": 60}]})
    said = "acme: Set Shards to 4 need not wait for a window, as long as annotation multiconnect.dev/reshard-now stays.\n"
    assert run(capsys, "reshard-now", "acme")[:2] == (0, said)
    written = [json.loads(body)["metadata"]["annotations"] for method, *_, body in server.asked if method == "PATCH"]
    assert written == [{"multiconnect.dev/paused": "true"}, {"multiconnect.dev/paused": None}, {"multiconnect.dev/reshard-now": "4"}]

    # The annotation would stay, and open a window that is made later.
    server.asked.clear()
    server.cluster = a_cluster().spec(shards=4)
    code, _, err = run(capsys, "reshard-now", "acme")
    assert (code, "nothing waits for a window: spec.reshard.windows is empty" in err) == (4, True)
    assert [method for method, *_ in server.asked] == ["GET"]

    server.cluster = a_cluster().spec(paused=True)
    code, _, err = run(capsys, "resume", "acme")
    assert (code, "spec.paused is true in the resource itself" in err) == (4, True)


def test_plan_asks_the_api_server_and_stores_nothing(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "acme", "--shards", "4")
    (patch,) = (one for one in server.asked if one[0] == "PATCH")
    assert (code, patch[2]["dryRun"], json.loads(patch[3])) == (0, ["All"], {"spec": {"shards": 4}})
    assert "Set Shards 2 -> 4: all Coreapps restart" in out

    server.rejects = 422, {"message": "invalid", "details": {"causes": [{"field": "spec.shards", "message": "Unsupported value: 3"}]}}
    code, out, _ = run(capsys, "plan", "acme", "--shards", "3")
    assert code == 1
    assert "Rejected: spec.shards: Unsupported value: 3" in out

    server.rejects = 403, {"message": "whatsappclusters is forbidden"}
    code, out, _ = run(capsys, "plan", "acme", "--shards", "4")
    assert code == 1
    assert "Set Shards 2 -> 4" in out
    assert "could not read whether the API server would accept it (whatsappclusters is forbidden)" in out


# --- the drill -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        (a_cluster(), "could not read whether namespace shop is for tests"),
        (a_cluster(spares=0), "--yes"),
        (a_cluster().unready("acme-coreapp-2"), "no spare is left"),
        (a_cluster().without_pod("acme-coreapp-0"), "1 of 2 shards is not served"),
        (a_cluster().operator_dead(), "no operator leads"),
        (a_cluster().without("lease"), "it is not known that an operator leads"),
        (a_cluster().spec(failover={"mode": "Manual"}), "spec.failover.mode is Manual, so no shard would be moved"),
        (a_cluster().goes(), "acme is being deleted, so no shard would be moved"),
    ],
)
def test_a_drill_does_nothing_where_it_would_do_harm(
    server: Server, capsys: pytest.CaptureFixture[str], cluster: Cluster, sentence: str
) -> None:
    server.cluster = cluster
    yes = [] if sentence.startswith("could not read") else ["--yes-in-production"]
    code, _, err = run(capsys, "game-day", "acme", *yes)

    assert code == 4
    assert sentence in err or (sentence == "--yes" and "this would not be a drill" in err)
    assert [method for method, *_ in server.asked if method != "GET"] == []


def test_a_namespace_without_the_label_is_none_for_tests(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.texts["/api/v1/namespaces/shop"] = json.dumps({"metadata": {"labels": {"multiconnect.dev/test": "false"}}})
    assert "has no label multiconnect.dev/test=true" in run(capsys, "game-day", "acme")[2]

    server.texts["/api/v1/namespaces/shop"] = json.dumps({"metadata": {"labels": {"multiconnect.dev/test": "true"}}})
    server.on_write = moves
    code, out, _ = run(capsys, "game-day", "acme")
    assert code == 0
    assert out.startswith("shard 0 moved from acme-coreapp-0 to acme-coreapp-2 (PodDeleted) and was served ")
    (delete,) = (one for one in server.asked if one[0] == "DELETE")
    assert (delete[1], json.loads(delete[3])) == (
        "/api/v1/namespaces/shop/pods/acme-coreapp-0",
        {"preconditions": {"uid": "uid-acme-coreapp-0"}},
    )


# --- the process -----------------------------------------------------------------------------------------------------------


def start(kubeconfig: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig), **env}
    command = [sys.executable, "-m", "kubectl_whatsapp", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


@pytest.mark.slow
def test_a_process_in_an_outage_says_what_it_knows_and_ends(tmp_path: Path) -> None:
    with serving(a_cluster().without_pod("acme-coreapp-0"), tmp_path, delays={"nodes": 300.0, "nodeLeases": 300.0}) as server:
        begun = time.monotonic()
        out, err = (process := start(server.kubeconfig, "status", "acme", "--request-timeout", "8")).communicate(timeout=60)

    assert process.returncode == 2, err
    assert out.startswith("shop/acme: 1 of 2 shards is not served: shard 0: acme-coreapp-0 is gone.")
    assert "could not read nodes (no answer within" in out
    assert time.monotonic() - begun < 60, "it does not wait for threads that hang"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_without_a_traceback_and_removes_its_files(tmp_path: Path, number: int) -> None:
    with serving(a_cluster(), tmp_path) as server:
        process = start(server.kubeconfig, "status", "acme", "--watch", "--request-timeout", "30", TMPDIR=str(tmp_path))
        assert process.stdout is not None
        assert process.stdout.readline().startswith("shop/acme: ")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == ({signal.SIGTERM: 143, signal.SIGINT: 130}[signal.Signals(number)], "")
    assert list(tmp_path.glob("kubectl-whatsapp-*")) == []


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    with serving(a_cluster(32, 4), tmp_path) as server:
        process = start(server.kubeconfig, "status", "acme", "--watch", "-o", "json")
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert (process.wait(timeout=60) != 0, process.stderr.read()) == (True, "")
        process.stderr.close()


HEAVY = {"aiohttp", "asyncio", "cryptography", "httpx", "httpx2", "kopf", "lightkube", "msgspec", "pykube", "requests", "urllib3", "yaml"}
OWN = {f"kubectl_whatsapp.{name}" for name in ("checks", "dashboard", "planning", "redact", "render", "view", "why")}
NOT_LOADED: dict[tuple[str, ...], set[str]] = {
    ("--version",): {*HEAVY, "dataclasses", "rich", "ssl", "subprocess", "typer", "kubectl_whatsapp.cli"},
    ("--help",): {*HEAVY, *OWN, "http.client", "rich", "ssl", "whatsapp_operator"},
    ("status", "acme"): {*HEAVY, *OWN - {"kubectl_whatsapp.render", "kubectl_whatsapp.view"}, "rich.markdown", "whatsapp_operator"},
    ("status", "acme", "-o", "json"): {*HEAVY, "kubectl_whatsapp.render", "rich.console"},
    ("check", "acme"): {*HEAVY, *OWN - {f"kubectl_whatsapp.{name}" for name in ("checks", "render", "view")}, "whatsapp_operator"},
    ("logs", "acme", "shard-0"): {*HEAVY, *OWN, "rich.console", "whatsapp_operator"},
    ("pause", "acme"): {*HEAVY, *OWN - {"kubectl_whatsapp.render"}, "rich.markdown", "whatsapp_operator"},
    ("why", "acme"): HEAVY - {"msgspec"} | {"logging", "whatsapp_operator.shell.kube.nodes", "whatsapp_operator.shell.whatsapp.session"},
}
"""By command line: modules that it must not load, each of which takes a hundredth to a tenth of a second."""


@pytest.mark.slow
@pytest.mark.parametrize("args", NOT_LOADED, ids=" ".join)
def test_a_command_loads_only_what_it_needs(tmp_path: Path, args: tuple[str, ...]) -> None:
    code = "import sys; from kubectl_whatsapp.__main__ import main; main(sys.argv[1:]); print(sorted(sys.modules), file=sys.stderr)"
    patience = [] if args[0].startswith("-") else ["--request-timeout", "60"]
    with serving(a_cluster(), tmp_path) as server:
        server.texts[LOG] = "one"
        env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(server.kubeconfig)}
        done = subprocess.run([sys.executable, "-c", code, *args, *patience], capture_output=True, text=True, check=True, env=env)

    assert done.stdout
    assert "could not" not in done.stdout
    assert sorted(NOT_LOADED[args] & set(ast.literal_eval(done.stderr.splitlines()[-1]))) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("st",), ("status", "acme", "-o", "")])
def test_completion_of_what_needs_no_cluster_loads_no_client(words: tuple[str, ...]) -> None:
    code = "import sys; from kubectl_whatsapp.complete import main; main(); print(sorted(sys.modules), file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=env)

    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert done.stdout.endswith(":4\n")
    assert sorted((HEAVY | {"http.client", "kubectl_whatsapp.access", "rich", "typer"}) & loaded) == []


# --- the package -----------------------------------------------------------------------------------------------------------


def test_the_map_is_the_tree() -> None:
    root = Path(kubectl_whatsapp.__file__).parent
    modules = {".".join(path.relative_to(root).with_suffix("").parts) for path in root.rglob("*.py") if path.name != "__init__.py"}
    mapped = set(re.findall(r"^- ``([\w.]+)``", kubectl_whatsapp.__doc__ or "", flags=re.MULTILINE))

    assert modules == mapped


# --- the page --------------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "kubectl.md").read_text(encoding="utf-8")


def test_the_page_has_the_rights_of_each_command() -> None:
    rows = [f"| `{command}` | {rights.sentence(command).removeprefix('Rights (RBAC): ')} |" for command in NEEDED]
    block = PAGE.split("<!-- begin rights")[1].split("<!-- end rights")[0]
    assert "\n".join(["| command | rights |", "| --- | --- |", *rows]) in block


EXAMPLES: dict[str, Cluster] = {
    "status acme": a_cluster().without_node("node-0").operator_dead(),
    "why acme shard-0": a_cluster().without_pod("acme-coreapp-0"),
    "plan acme --shards 4": a_cluster(),
    "check acme --short": a_cluster().annotated(paused="true"),
}


@pytest.mark.parametrize("args", EXAMPLES)
def test_the_examples_of_the_page_are_what_is_printed(server: Server, capsys: pytest.CaptureFixture[str], args: str) -> None:
    server.cluster = EXAMPLES[args]
    shown = PAGE.split(f"$ kubectl whatsapp {args}\n")[1].split("```")[0]
    _, out, err = run(capsys, *args.split())

    assert err == ""
    assert out.startswith(shown), out


def test_each_command_is_in_the_table_of_modules() -> None:
    assert sorted(name for names in MODULES.values() for name in names) == sorted(NEEDED)
