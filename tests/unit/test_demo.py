"""The demo without a cluster: what the screen says, what the end says, which messages count, and how it ends what it started."""

import io
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from localkube.demo import command as demo
from localkube.demo import probe as probe_module
from localkube.demo import stage as demo_stage
from localkube.demo.cluster import Cluster, sentence
from localkube.demo.probe import Probe, Sent, through_next
from localkube.demo.screen import Screen, Step, clock, summary
from localkube.demo.stage import Stage
from localkube.errors import LocalKubeError
from localkube.plane import processes
from localkube.plane.processes import Spawner
from outside.ledger import GatewayLog, Ledger, Senders, settle
from wabiz_sim.gatewaylog import Entry, Kind, Totals

REPOSITORY = Path(__file__).resolve().parents[2]
OLD, NEW = "uid-old", "uid-new"


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

    for text in ("the first", "50 ms", "the second", "1.3 s", "the third", "messages: 7 sent"):
        assert text in out.getvalue()


def test_the_summary_sets_measured_beside_vendor() -> None:
    console, out = plain()
    console.print(summary([Step("a", "killed [x]", "35 s", "until delivered", seconds=0.0404), Step("b", "never began", "45-60 s")]))
    lines = [line.split("  ") for line in out.getvalue().splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]

    assert ["killed [x]", "40 ms", "35 s", "until delivered"] in cells
    assert ["never began", "-", "45-60 s"] in cells


@pytest.mark.parametrize(("seconds", "said"), [(0.0404, "40 ms"), (0.9996, "1000 ms"), (1.0, "1.0 s"), (61.27, "61.3 s")])
def test_times_are_said_as_people_read_them(seconds: float, said: str) -> None:
    assert clock(seconds) == said


# ---- which messages measure a failover


def row(at: float, by: str) -> dict[str, Any]:
    return {"id": f"m-{at}", "at": at, "by": by}


def test_messages_of_the_old_holder_do_not_end_a_failover() -> None:
    rows = [row(99.0, NEW), row(100.02, OLD), row(100.05, NEW), row(100.3, OLD)]

    assert through_next(rows, begun_wall=100.0, old=OLD, may_resume=False) == [row(100.05, NEW)]


def test_a_container_that_is_back_counts_when_it_may_resume() -> None:
    rows = [row(100.02, OLD), row(100.25, OLD)]

    assert through_next(rows, begun_wall=100.0, old=OLD, may_resume=True) == [row(100.25, OLD)]


class Books:
    """Stands in for a cluster: the WhatsApp servers' list of messages, and their log."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.senders = Senders()
        self.log = GatewayLog(self.upstream)

    async def upstream(self, path: str, body: object = None) -> dict[str, Any]:
        after = int(path.partition("after=")[2].partition("&")[0])
        rows = [one for one in self.rows if one["seq"] > after]
        if path.startswith("messages"):
            return {"messages": rows}
        frames = [Entry(kind=Kind.TAKEN, at=row["at"], uid=row["by"], message=row["id"], epoch="1-a", seq=row["seq"]) for row in rows]
        return {"database": "d", "frames": [frame.shown() for frame in frames]}


def probe_of(rows: list[dict[str, Any]]) -> Probe:
    cluster: Any = Books([{"seq": number, **one} for number, one in enumerate(rows, 1)])
    session: Any = None
    return Probe(cluster, "https://webapp", "token", session, "16315550000")


async def test_a_passage_is_measured_by_what_the_sender_knows() -> None:
    probe = probe_of([row(100.01, OLD), row(100.04, NEW), row(100.06, NEW), {"id": "somebody's", "at": 100.02, "by": NEW}])
    probe.sent = {"m-100.01": Sent(50.0, 50.02), "m-100.04": Sent(50.01, 50.07), "m-100.06": Sent(50.05, 50.065)}

    found = await probe.passage(begun=50.0, begun_wall=100.0, old=OLD, may_resume=False, timeout=1.0)

    assert found.first == pytest.approx(0.065)
    assert found.accepted == pytest.approx(0.04)
    assert (found.by, found.resumed) == (NEW, False)
    assert probe.longest(50.06) == pytest.approx(0.06)
    assert await probe.longest_gap() == pytest.approx(0.03)


async def test_a_passage_that_does_not_happen_ends_in_a_sentence() -> None:
    probe = probe_of([row(100.5, OLD)])
    probe.sent = {"m-100.5": Sent(50.5, 50.51)}

    with pytest.raises(LocalKubeError, match=r"no message came through another Coreapp within 0.05 s"):
        await probe.passage(begun=50.0, begun_wall=100.0, old=OLD, may_resume=False, timeout=0.05)


async def test_a_probe_counts_what_was_given_up_and_what_was_promised_and_is_unknown() -> None:
    probe = probe_of([row(1.0, OLD)])
    probe.sent = {"m-1.0": Sent(1.0, 1.1), "promised and gone": Sent(1.0, 1.1), "given up": Sent(1.0)}

    assert await probe.lost() == 2


@pytest.mark.parametrize(("told", "end"), [(True, "delivered"), (False, "told_refused")])
async def test_every_message_of_a_probe_is_in_the_ledger(told: bool, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "GIVE_UP_S", 0.1)
    rows: list[dict[str, Any]] = [{"id": "m", "at": 1.0, "by": OLD}] if told else []
    probe = probe_of(rows)
    probe.session = cast("Any", Answers(201 if told else 503))

    await probe._send("m")

    await probe.cluster.log.read()
    found = settle([probe.cluster.senders], probe.cluster.log, {})
    assert (found.sent, getattr(found, end)) == (1, 1)


class Answers:
    """A session whose every call is answered by one status."""

    def __init__(self, status: int) -> None:
        self.status = status

    @asynccontextmanager
    async def post(self, *_: object, **__: object) -> AsyncIterator["Answers"]:
        yield self

    async def read(self) -> None:
        pass


# ---- the end


def story() -> demo.Demo:
    console, _ = plain()
    stage: Any = None
    return demo.Demo(stage, REPOSITORY / "examples" / "cluster.yaml", console)


def ledger(**more: Any) -> Ledger:
    return Ledger(**{"sent": 9, "delivered": 9, "inbound_injected": 3, "inbound_arrived": 3, **more})


NONE = demo.TwoHolders(seen_from_outside=0, whatsapp_servers=0, resolutions=0)


@pytest.mark.parametrize(
    ("counts", "holders", "said"),
    [
        ({}, NONE, None),
        ({"inbound_again": 2}, NONE, None),
        ({"delivered": 8, "lost": 1}, NONE, "1 messages were lost"),
        ({"delivered": 7, "told_refused": 1, "open": 1}, NONE, "never taken; 1 messages are still open"),
        ({"strangers": 1}, NONE, "1 messages were taken under ids that nobody gave them"),
        ({"totals": Totals(doubled=2)}, NONE, "2 messages were doubled"),
        ({"inbound_arrived": 2, "inbound_lost": 1}, NONE, "1 inbound messages were lost"),
        ({}, demo.TwoHolders(seen_from_outside=0, whatsapp_servers=1, resolutions=2), "two active holders 3 times"),
    ],
)
def test_a_broken_promise_is_a_complaint(counts: dict[str, Any], holders: demo.TwoHolders, said: str | None) -> None:
    told = story()
    told.ledger, told.two_holders = ledger(**counts), holders
    complaint = told.complaint()

    assert complaint is None if said is None else said in (complaint or "")


def test_a_demo_that_broke_off_is_a_complaint_and_still_has_figures(tmp_path: Path) -> None:
    told = story()
    told.steps[0].seconds = 4.00001
    demo_stage.write_json(tmp_path / "demo.json", told.figures())
    figures = json.loads((tmp_path / "demo.json").read_text())

    assert told.complaint() == "the demo did not come to its end"
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
    assert figures["restart_seconds"] == told.restart < 45


def test_errors_of_ours_are_their_own_sentence() -> None:
    assert sentence(LocalKubeError("port 1 is taken")) == "port 1 is taken"
    assert sentence(OSError("disk")) == "OSError: disk"


# ---- the stage


@pytest.fixture
def left_over(tmp_path: Path) -> Any:
    """A folder in which a process still runs, as ``--keep`` leaves it."""
    folder = tmp_path / "demo"
    (folder / "operators").mkdir(parents=True)
    spawner = Spawner(leashed=True)
    process = spawner.start("operator-0", [sys.executable, "-c", "import time; time.sleep(60)"], folder=folder, log=folder / "log")
    processes.save(folder / "operators.json", [process])
    yield folder, process
    processes.stop([process], grace=0.0)
    spawner.close()


def test_a_second_demo_in_the_folder_is_refused_and_ends_nothing(left_over: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, process = left_over

    assert demo.main(["--dir", str(folder)], root=REPOSITORY) == 1
    assert capsys.readouterr().err.strip() == f"hack/demo: a demo runs in {folder} already: end it with 'hack/demo --down'"
    with pytest.raises(LocalKubeError, match=r"one runs already .*operator-0"):
        Stage(folder).up()
    assert process.alive()


def test_down_ends_what_runs_and_removes_it(left_over: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, process = left_over

    assert demo.main(["--down", "--dir", str(folder)], root=REPOSITORY) == 0
    assert not process.alive()
    assert not (folder / "operators.json").exists()
    assert "ended 1 processes" in capsys.readouterr().err
    assert demo.main(["--down", "--dir", str(folder)], root=REPOSITORY) == 0
    assert "nothing runs" in capsys.readouterr().err


def test_a_process_that_ended_is_the_reason_that_is_given(tmp_path: Path) -> None:
    spawner = Spawner(leashed=True)
    process = spawner.start("operator-9", [sys.executable, "-c", "print('no way')"], folder=tmp_path, log=tmp_path / "log")
    deadline = time.monotonic() + 10
    while process.alive() and time.monotonic() < deadline:
        time.sleep(0.01)

    with pytest.raises(LocalKubeError, match=r"(?s)operator-9 exited with status 0.*no way"):
        Stage(tmp_path).wait_for_operator(process, timeout=5.0)
    spawner.close()


async def test_what_is_waited_for_has_a_deadline() -> None:
    cluster: Any = Cluster.__new__(Cluster)
    cluster.stage = type("Dead", (), {"fault": staticmethod(lambda: "kube-apiserver was ended by signal 9")})()

    with pytest.raises(LocalKubeError, match=r"4 shards did not come true within 0.03 s. kube-apiserver was ended"):
        await cluster.seen(lambda: None, 0.03, "4 shards")
    assert await cluster.seen(lambda: "yes", 0.03, "it") == "yes"


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
    monkeypatch.setattr(demo_stage, "provide", interrupted)
    try:
        assert demo.main(["--dir", str(tmp_path / "demo")], root=REPOSITORY) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "interrupted; all that was started has been ended" in capsys.readouterr().err


def test_the_line_below_counts_what_flows() -> None:
    told: Any = story()
    assert "as soon as" in told._flow()
    one = type("M", (), {"delivered_at": 1.0})
    two = type("M", (), {"delivered_at": None})
    told._traffic = type("T", (), {"messages": {"a": one, "b": two}})
    assert told._flow().startswith("messages: 2 sent, 1 delivered, 1 wait")
