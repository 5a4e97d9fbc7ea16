"""The demo without a cluster: what the screen says, what the end says, which messages count, and how it ends what it started."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from localkube.errors import LocalKubeError, sentence
from localkube.files import write_json
from localkube.kubeconfig import Access
from localkube.plane import certificates, processes
from localkube.scenarios import harness as demo_harness
from localkube.scenarios.demo import command as demo
from localkube.scenarios.demo.screen import Screen, Step
from localkube.scenarios.harness import Harness, remove
from localkube.scenarios.hollow.environment import SingleCluster
from localkube.scenarios.hollow.probe import Probe
from outside.ledger import Ledger
from outside.traffic import Message
from wabiz_sim.gatewaylog import Totals
from wabiz_sim.sharding import shard_of
from whatsapp_operator import __version__

REPOSITORY = Path(__file__).resolve().parents[3]


def screen_of(console: Console, steps: list[Step]) -> Screen:
    return Screen(console, steps, below=lambda: "messages: 7 sent")


def plain() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=140), out


# ---- the screen


def test_without_a_terminal_there_are_plain_lines_only() -> None:
    console, out = plain()
    step = Step("pod-deleted", "the pod is deleted", "35 s", "until delivered")

    with screen_of(console, [step]) as screen, screen.running(step):
        step.seconds, step.note = 0.0712, "a -> b"

    assert out.getvalue().splitlines() == ["... the pod is deleted", "    71 ms until delivered (vendor: 35 s); a -> b"]
    assert step.state == "done"


def test_a_step_that_fails_is_said_and_the_error_goes_on() -> None:
    console, out = plain()
    step = Step("grow", "shards 2 -> 4")

    with pytest.raises(LocalKubeError, match="never"), screen_of(console, [step]) as screen, screen.running(step):
        raise LocalKubeError("never")

    assert step.state == "failed"
    assert "failed after" in out.getvalue()


def test_on_a_terminal_one_table_shows_all_steps() -> None:
    out = io.StringIO()
    console = Console(file=out, width=140, force_terminal=True)
    done, now, later = Step("a", "the first"), Step("b", "the second"), Step("c", "the third")
    done.seconds = 0.05

    with screen_of(console, [done, now, later]) as screen, screen.running(now):
        assert now.state == "running"
        now.seconds = 1.26

    for text in ("the first", "50 ms", "the second", "1.26 s", "the third", "messages: 7 sent"):
        assert text in out.getvalue()


# ---- the messages that measure


def probe(folder: Path) -> Probe:
    """Of an API server that nothing here asks."""
    authority = certificates.make(folder / "made", service_ip="10.0.0.1").authority.read_text()
    access = Access("https://127.0.0.1:1", authority, token="t")
    return Probe(access.write(folder / "kubeconfig"), "acme", lambda: cast("Any", None))


async def test_a_probe_sends_to_all_shards_in_turn_and_not_at_all_at_a_rate_of_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []

    async def send(_: Probe, message: Message) -> None:
        sent.append(message)

    monkeypatch.setattr(Probe, "deliver", send)
    one = probe(tmp_path)
    one.shards = 2
    with one.pace(2000.0, spread=4):
        sending = asyncio.create_task(one._send_all())
        while len(sent) < 8:
            await asyncio.sleep(0)
    with one.pace(0.0):
        await asyncio.sleep(0)
        before = len(sent)
        one.burst(1, 60.0)
        while len(sent) < before + 2:
            await asyncio.sleep(0.001)
    one.stop()
    await sending

    assert [shard_of(message.to, 4) for message in sent[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert {shard_of(message.to, 2) for message in sent[before:]} == {1}
    assert len({message.to for message in sent}) == len(sent), "each message has a recipient of its own"


async def test_no_more_messages_wait_than_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def send(_: Probe, __: Message) -> None:
        await waiting.wait()

    monkeypatch.setattr(Probe, "deliver", send)
    one = probe(tmp_path)
    one.shards = 32
    for _ in range(5):
        one._begin(3)
    assert len(one._open) == 2
    waiting.set()
    await asyncio.gather(*one._open)
    one._begin(3)
    assert len(one._open) == 1


# ---- the end


def a_demo() -> demo.Demo:
    console, _ = plain()
    environment: Any = None
    return demo.Demo(environment, REPOSITORY / "examples" / "cluster.yaml", console)


def ledger(**more: Any) -> Ledger:
    return Ledger(**{"sent": 9, "delivered": 9, "inbound_injected": 3, "inbound_arrived": 3, **more})


NONE = {"seen_from_outside": 0, "whatsapp_servers": 0, "resolutions": 0}


@pytest.mark.parametrize(
    ("counts", "holders", "said"),
    [
        ({}, NONE, None),
        ({"inbound_again": 2}, NONE, None),
        ({"delivered": 8, "lost": 1}, NONE, "1 messages were lost"),
        ({"delivered": 7, "rejected": 1, "open": 1}, NONE, "never taken; 1 messages are still open"),
        ({"strangers": 1}, NONE, "1 messages were taken under ids that no sender of this run used"),
        ({"totals": Totals(doubled=2)}, NONE, "2 messages were doubled"),
        ({"inbound_arrived": 2, "inbound_lost": 1}, NONE, "1 inbound messages were lost"),
        ({}, NONE | {"whatsapp_servers": 1, "resolutions": 2}, "two active holders 3 times"),
    ],
)
def test_a_broken_promise_is_a_complaint(counts: dict[str, Any], holders: dict[str, int], said: str | None) -> None:
    played = a_demo()
    played.ledger, played.two_holders = ledger(**counts), holders
    complaint = played.complaint()

    assert complaint is None if said is None else said in (complaint or "")


def test_a_demo_that_broke_off_is_a_complaint_and_still_has_figures(tmp_path: Path) -> None:
    played = a_demo()
    played.steps[0].seconds = 4.00001
    write_json(tmp_path / "demo.json", played.figures())
    figures = json.loads((tmp_path / "demo.json").read_text())

    assert played.complaint() == "the demo did not come to its end"
    assert [step["name"] for step in figures["steps"]] == [
        "apply",
        "pod-deleted",
        "container-killed",
        "leader-killed",
        "grow",
        "shrink",
    ]
    assert figures["steps"][0]["seconds"] == 4.0001
    assert (figures["steps"][1]["seconds"], figures["messages"], figures["two_holders"]) == (None, None, None)
    assert figures["restart_seconds"] == played.restart < 45


def test_the_invitation_leads_to_the_plugin(tmp_path: Path) -> None:
    """In a folder whose name a shell would take apart."""
    folder = tmp_path / "a demo"
    folder.mkdir()
    lines = [line.strip() for line in demo._invitation(folder)]
    exports = "; ".join(line for line in lines if line.startswith("export "))
    assert any(line.startswith("kubectl whatsapp status acme;") for line in lines)
    script = f'{exports}; command -v kubectl && kubectl-whatsapp --version && echo "$KUBECONFIG"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [f"kubectl-whatsapp {__version__}", str(folder / "kubeconfig")]
    remove(folder)
    assert not folder.exists(), "what was written for it is removed with the demo"


def test_errors_of_ours_are_their_own_sentence() -> None:
    assert sentence(LocalKubeError("port 1 is taken")) == "port 1 is taken"
    assert sentence(OSError("disk")) == "OSError: disk"
    assert sentence(PermissionError(13, "Permission denied", "/build")) == "the system reports: Permission denied (/build)"


# ---- the environment


@pytest.fixture
def left_over(tmp_path: Path) -> Any:
    """A folder in which a process still runs, as ``--keep`` leaves it."""
    folder = tmp_path / "demo"
    (folder / "operators").mkdir(parents=True)
    process = processes.start("operator-0", [sys.executable, "-c", "import time; time.sleep(60)"], folder=folder, log=folder / "log")
    processes.save(folder / "operators.json", [process])
    yield folder, process
    processes.stop([process], grace=0.0)


def test_a_second_demo_in_the_folder_is_refused_and_ends_nothing(left_over: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, process = left_over

    assert demo.main(["--dir", str(folder)], root=REPOSITORY) == 1
    assert capsys.readouterr().err.strip() == f"hack/demo: a demo runs in {folder} already: end it with 'hack/demo --down'"
    with pytest.raises(LocalKubeError, match=r"one runs already .*operator-0"):
        Harness(folder).up()
    assert process.alive()


def test_down_ends_what_runs_and_removes_it(left_over: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, process = left_over

    assert demo.main(["--down", "--dir", str(folder)], root=REPOSITORY) == 0
    assert not process.alive()
    assert not (folder / "operators.json").exists()
    assert "ended 1 processes" in capsys.readouterr().err
    assert demo.main(["--down", "--dir", str(folder)], root=REPOSITORY) == 0
    assert "nothing runs" in capsys.readouterr().err


def test_a_folder_is_removed_with_what_runs_in_it_and_other_files_are_left(tmp_path: Path) -> None:
    assert remove(tmp_path / "nothing") == []
    process = processes.start("etcd", ["/bin/sleep", "60"], folder=tmp_path, log=tmp_path / "log")
    processes.save(tmp_path / "processes.json", [process])
    (tmp_path / "mine.txt").write_text("keep")

    assert [one.pid for one in remove(tmp_path)] == [process.pid]

    assert not process.alive()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "log"}


def test_a_process_that_ended_is_the_reason_that_is_given(tmp_path: Path) -> None:
    process = processes.start("operator-9", [sys.executable, "-c", "print('no way')"], folder=tmp_path, log=tmp_path / "log")
    deadline = time.monotonic() + 60
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)

    with pytest.raises(LocalKubeError, match=r"(?s)operator-9 exited with status 0.*no way"):
        Harness(tmp_path).wait_for_operator(process, timeout=5.0)


async def test_a_cluster_that_does_not_settle_is_said_with_what_is_wrong() -> None:
    async def settle(clusters: tuple[str, ...], _: float) -> list[str]:
        return [one for one in clusters if one == "acme"]

    environment: Any = SingleCluster.__new__(SingleCluster)
    environment.settle, environment.fault = settle, lambda: "kube-apiserver was ended by signal 9"

    await environment.settled("other")
    with pytest.raises(LocalKubeError, match=r"acme did not become as wanted, with all spares, within 3 s. kube-apiserver was ended"):
        await environment.settled("acme", timeout=3.0)


async def test_a_resize_is_over_only_when_the_change_was_seen() -> None:
    """The observer is a moment behind, and until then the cluster is as was wanted before."""
    seen, settled = iter([2, 2, 4]), list[str]()

    async def nothing(*_: object) -> None:
        """The API server has it."""

    async def settle(clusters: tuple[str, ...], _: float) -> list[str]:
        assert not list(seen), "not before the change was seen"
        settled.extend(clusters)
        return []

    environment: Any = SingleCluster.__new__(SingleCluster)
    environment.set_shards, environment.settle, environment.status = nothing, settle, lambda _: {"shards": next(seen)}
    await environment.resize(["acme"], 4)
    assert settled == ["acme"]


def test_no_way_to_the_programs_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "missing"))

    assert demo.main(["--dir", str(tmp_path / "demo")], root=REPOSITORY) == 1
    assert capsys.readouterr().err.strip() == (
        f"hack/demo: KUBEBUILDER_ASSETS is {tmp_path / 'missing'}, which is no folder: unset it or correct it"
    )


def test_an_interrupt_during_the_set_up_ends_it_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)  # the signal ends it

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(demo_harness, "provide", interrupted)
    try:
        assert demo.main(["--dir", str(tmp_path / "demo")], root=REPOSITORY) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "interrupted; all that was started has been ended" in capsys.readouterr().err


def test_the_line_below_counts_what_flows() -> None:
    played: Any = a_demo()
    assert "as soon as" in played._flow()
    played.environment = SimpleNamespace(probes={"acme": SimpleNamespace(sent=["a", "b"], delivered=lambda: [(0.0, 1.0)])})
    assert played._flow().startswith("messages: 2 sent, 1 delivered, 1 wait")
