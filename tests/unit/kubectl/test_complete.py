"""What is proposed for the word that is being typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import typer

from kubectl_whatsapp import cli, complete, rights
from kubectl_whatsapp.__main__ import main

from .clusters import a_cluster, serving

ROOT = Path(__file__).parents[3]


def ask(options: dict[str, str], kind: str, cluster: str) -> Iterable[str]:
    of = f"{options.get('namespace', 'shop')}/{cluster}"
    return {"cluster": ["acme", "other"], "shard": ["shard-0", "shard-1"], "pod": [f"{of}-coreapp-0"]}[kind]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], [*rights.NEEDED]),
        ([""], [*rights.NEEDED]),
        (["re"], ["reshard-now", "resume", "report"]),
        (["status", ""], ["acme", "other"]),
        (["status", "a"], ["acme"]),
        (["status", "-n", "x", "a"], ["acme"]),
        (["status", "--watch", "a"], ["acme"]),
        (["status", "acme", ""], []),
        (["why", "acme", ""], ["shard-0", "shard-1"]),
        (["switchover", "--namespace=x", "acme", "shard-1"], ["shard-1"]),
        (["switchover", "acme", "shard-1", "--to", ""], ["shop/acme-coreapp-0"]),
        (["switchover", "acme", "0", "-n", "x", "--to="], ["--to=x/acme-coreapp-0"]),
        (["status", "acme", "-o", "j"], ["json"]),
        (["status", "acme", "--output=y"], ["--output=yaml"]),
        (["plan", "acme", "--shards", "1"], ["1", "16"]),
        (["plan", "acme", "--spares", ""], []),
        (["status", "acme", "--reason", "x"], []),
        (["status", "--un"], ["--until"]),
        (["dashboard", "--p"], ["--port"]),
        (["dashboard", "--port", "8080", "a"], ["acme"]),
        (["dashboard", "-A", "a"], ["acme"]),
        (["dashboard", "--all"], ["--all-namespaces"]),
        (["logs", "acme", ""], ["operator", "shard-0", "shard-1"]),
        (["logs", "acme", "op"], ["operator"]),
        (["status", "acme", "--until", ""], ["Ready", "UpToDate"]),
    ],
)
def test_the_proposals(words: list[str], found: list[str]) -> None:
    assert complete.proposals(words, ask) == found


def test_options_with_a_value_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""
    for command in rights.NEEDED:
        assert main([command, "--help"]) == 0
        shown += capsys.readouterr().out
    assert [name for name in complete.WITH_VALUE if f"{name} " not in shown and f"{name}, " not in shown] == []


def test_every_option_of_every_command_is_proposed() -> None:
    assert main(["--help"]) == 0, "this loads every command"
    found = [
        (command, option, not parameter.is_flag)
        for command, one in typer.main.get_command(cli.app).commands.items()  # type: ignore[attr-defined]
        for parameter in one.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
    ]

    assert len(found) > 50
    assert [(command, option) for command, option, _ in found if option not in complete.proposals([command, "-"], ask)] == []
    assert [option for _, option, takes_value in found if (option in complete.WITH_VALUE) != takes_value] == []


@pytest.mark.parametrize(
    ("words", "directive"),
    [
        (["report", "acme", "-f", ""], ":0"),
        (["status", "--kubeconfig", "x"], ":0"),
        (["status", "--kubeconfig", "x", ""], ":4"),
        ([], ":4"),
    ],
)
def test_files_are_proposed_for_a_file_alone(words: list[str], directive: str) -> None:
    assert complete.directive(words) == directive


def kubectl_complete(kubeconfig: Path, *words: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(kubeconfig)}
    done = subprocess.run([sys.executable, "-m", "kubectl_whatsapp.complete", *words], capture_output=True, text=True, check=True, env=env)
    return done.stdout.splitlines()


def soon(expected: list[str], kubeconfig: Path, *words: str) -> None:
    """A completion gives up after a second, which may be too short on a busy machine."""
    deadline = time.monotonic() + 60
    while (found := kubectl_complete(kubeconfig, *words)) != expected:
        assert time.monotonic() < deadline, found


@pytest.mark.slow
def test_names_come_from_the_api_server_and_nothing_after_trouble(tmp_path: Path) -> None:
    cluster = a_cluster()
    listed = '{"items": [' + json.dumps(cluster.found["cluster"]) + "]}"
    path = "/apis/multiconnect.dev/v1alpha1/namespaces/shop/whatsappclusters"
    with serving(cluster, tmp_path, texts={path: listed}) as server:
        soon(["acme", ":4"], server.kubeconfig, "status", "")
        soon(["shard-1", ":4"], server.kubeconfig, "why", "acme", "shard-1")
        soon(
            [
                *(f"acme-coreapp-{n}" for n in range(3)),
                ":4",
            ],
            server.kubeconfig,
            "switchover",
            "acme",
            "0",
            "--to",
            "",
        )
    assert kubectl_complete(server.kubeconfig, "status", "") == [":4"]
    assert kubectl_complete(tmp_path / "none", "status", "") == [":4"]
