"""What tethers find out about real servers on loopback: broken, silent, slow, half-open, and nothing wrong at all."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from waiting import until
from whatsapp_operator.core.self_check import self_check

from .probe_peers import HOST, KEY, QUICK, REPORT, Peer, a_full_queue, a_peer, target, watching

PATIENT = replace(QUICK, deadline=30.0, connect_timeout=30.0)
"""For a hundred Coreapps that are well: on a busy machine each connection that is given up and made again makes it busier."""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_an_answering_coreapp_is_known_by_its_report_and_wakes_once() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a", path="/health?deep=1")
        await until(lambda: len(peer.asked) >= 5)

        report = watch.tethers.result_of("a").report
        assert report is not None
        assert (report.shard, report.epoch, report.shards) == (0, "1-abcde", 2)
        assert watch.woken == 1
        assert peer.made == 1
        assert {path for _, _, path in peer.asked} == {"/health?deep=1"}
        assert watch.tethers.result_of("a").broken_at is watch.tethers.result_of("a").unresponsive_since is None
        silence = watch.tethers.silence()
        assert (silence.targets, silence.unresponsive, silence.nodes) == (1, 0, frozenset())


async def test_a_coreapp_that_begins_to_stop_wakes_its_loop() -> None:
    """Its pod was probably deleted, and the watch that should say so may be on an API server that hangs."""
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.woken == 1)
        peer.body = lambda: {**REPORT, "stopping": True}
        await until(lambda: watch.woken == 2)


async def test_a_killed_coreapp_is_broken_at_once() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        # No probe and no pause between two connects could have shown it as soon.
        watch.hold("a", period=60.0)
        await until(lambda: watch.tethers.result_of("a").report)
        await asyncio.sleep(QUICK.retry * 2)
        peer.die()
        await until(lambda: watch.tethers.result_of("a").broken_at)

        assert watch.tethers.result_of("a").report is None
        assert watch.woken == 2, "by its first answer, and when its end is proven: an observation that begins before that is in the way"
        broken_at = watch.tethers.result_of("a").broken_at
        assert broken_at is not None
        assert abs(datetime.now(UTC) - broken_at) < timedelta(seconds=1)


async def test_what_was_refused_before_we_stood_still_proves_nothing_after_it() -> None:
    """The Coreapp restarted: it refused connections, and is back since. A process that stood still meanwhile must ask again first."""
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.die()
        await until(lambda: watch.tethers.result_of("a").broken_at)
        before = watch.tethers.result_of("a")
        time.sleep(1.2)  # noqa: ASYNC251  that is what is tested
        watch.tethers.silence()
        after = watch.tethers.result_of("a")
        assert before.ended_at is not None
        assert before.ended_at == before.broken_at
        assert after.ended_at is not None
        assert after.ended_at > before.ended_at, "it may have ended again meanwhile"
        assert watch.tethers.result_of("a").broken_at is None
        # A second refused connection counts at once.
        await until(lambda: watch.tethers.result_of("a").broken_at)
        await peer.listen()
        await until(lambda: watch.tethers.result_of("a").report)
        assert watch.tethers.result_of("a").broken_at is None
        assert watch.tethers.result_of("a").ended_at is not None, "it is back, and what was known before may not hold"


async def test_another_pod_that_answers_at_the_address_of_a_holder_does_not_speak_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """The node of the holder is lost, its pod still has its address, and the network has given that to another pod, of any cluster."""
    async with a_peer() as peer, watching(peer.port) as watch:
        peer.body = lambda: {**REPORT, "uid": "a"}
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.body = lambda: {**REPORT, "shard": 1, "uid": "b"}
        await until(lambda: watch.tethers.result_of("a").unresponsive_since and watch.tethers.result_of("a").report is None)

        assert watch.tethers.silence().unresponsive == 1
        assert not watch.tethers.result_of("a").never_responded
        assert watch.tethers.result_of("a").broken_at is None
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) >= asked + 5)
        assert watch.tethers.result_of("a").unresponsive_since
        assert sum("of pod a, which counts as silent" in record.message for record in caplog.records) == 1
        watch.tethers.take_report("a", json.dumps({**REPORT, "uid": "b"}).encode())
        assert watch.tethers.result_of("a").report is None
        peer.body = lambda: {**REPORT, "uid": "a"}
        await until(lambda: watch.tethers.result_of("a").report and not watch.tethers.result_of("a").unresponsive_since)


@pytest.mark.parametrize("status", ["404 Not Found", "503 Service Unavailable"])
async def test_an_error_is_an_answer_but_does_not_contradict_a_kubelet(status: str) -> None:
    """The Coreapp is broken, or it is gone and a proxy in its pod answers: the kubelet's word counts, and nothing is silent."""
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.status = status
        await until(lambda: watch.tethers.result_of("a").report is None)
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) >= asked + 5)

        result = watch.tethers.result_of("a")
        assert (result.report, result.broken_at, result.unresponsive_since) == (None, None, None)
        assert (watch.woken, peer.made) == (2, 1), "its loop is woken for that once, and the connection is kept"
        peer.status = "200 OK"
        await until(lambda: watch.tethers.result_of("a").report)


async def test_with_tcp_probes_an_error_says_nothing() -> None:
    """A kubelet that only connects does not count it as a failure either."""
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a", kind="TCP")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.status = "404 Not Found"
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) >= asked + 5)

        assert watch.tethers.result_of("a").report


@pytest.mark.parametrize("uid", [None, "", "a"])
async def test_a_report_without_a_uid_or_with_that_of_the_pod_is_taken(uid: str | None) -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        peer.body = lambda: {**REPORT, "uid": uid}
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)


async def test_a_dropped_connection_that_can_be_made_again_is_no_end() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a", period=60.0)
        await until(lambda: watch.tethers.result_of("a").report)
        await asyncio.sleep(QUICK.retry * 2)
        peer.reset()
        await until(lambda: peer.made == 2 and watch.tethers.result_of("a").report)

        assert watch.tethers.result_of("a").broken_at is None
        assert watch.woken == 2, "an observation may have come in between, and found no report"


async def test_a_dropped_connection_that_cannot_be_made_again_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unreachable(*_: object) -> None:
        raise OSError(errno.EHOSTUNREACH, "no route")

    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a", period=60.0)
        await until(lambda: watch.tethers.result_of("a").report)
        await asyncio.sleep(QUICK.retry * 2)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", unreachable)
        peer.reset()
        await until(lambda: watch.woken == 2)

        assert watch.tethers.result_of("a").report is None
        assert watch.tethers.result_of("a").broken_at is None
        await asyncio.sleep(QUICK.retry * 3)
        assert watch.woken == 2


async def test_a_fresh_tether_takes_two_refusals_and_a_return_is_seen() -> None:
    peer = Peer()
    await peer.listen()
    await peer.gone()
    # A minute between two connects: what one refusal would say is not said yet.
    async with watching(peer.port, replace(QUICK, retry=60.0)) as watch:
        watch.hold("a", period=60.0)
        await asyncio.sleep(0.2)
        assert watch.tethers.result_of("a").broken_at is None
    async with watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").broken_at)
        assert watch.tethers.result_of("a").unresponsive_since is None
        since = watch.tethers.result_of("a").broken_at
        await peer.listen()
        await until(lambda: watch.tethers.result_of("a").report)
        assert since is not None
        assert watch.tethers.result_of("a").broken_at is None
        await peer.gone()


async def test_a_refused_connection_counts_until_a_silence_has_lasted_and_then_the_next_one_does() -> None:
    """It tells what was so then: the process may be back, and only this one's network be gone."""
    peer = Peer()
    await peer.listen()
    async with watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        await peer.gone()
        await until(lambda: watch.tethers.result_of("a").broken_at)

        peer.hangs = True
        await peer.listen()
        await until(lambda: watch.tethers.result_of("a").broken_at is None)
        since = watch.tethers.result_of("a").unresponsive_since
        assert since is not None
        assert datetime.now(UTC) - since >= timedelta(seconds=0.6)

        await peer.gone()
        await until(lambda: watch.tethers.result_of("a").broken_at)
        assert watch.tethers.result_of("a").unresponsive_since is None


async def test_a_hung_coreapp_is_silent_since_half_a_round_before_the_probe_and_its_loop_is_woken_when_that_lasts() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.hangs = True
        before = datetime.now(UTC)
        woken = watch.woken
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)

        since = watch.tethers.result_of("a").unresponsive_since
        assert since is not None
        assert datetime.now(UTC) - since >= timedelta(seconds=QUICK.deadline)
        assert since - before > timedelta(seconds=-0.05), "no more than half of a period of 0.1 s before the probe"
        assert since - before < timedelta(seconds=0.15) + watch.late
        assert watch.woken == woken
        silence = watch.tethers.silence()
        assert (silence.targets, silence.unresponsive, silence.nodes) == (1, 1, frozenset({"node-a"}))
        assert watch.tethers.result_of("a").report is not None

        await until(lambda: watch.woken > woken)
        assert datetime.now(UTC) - since >= timedelta(seconds=0.6)
        assert watch.tethers.result_of("a").unresponsive_since == since
        assert watch.tethers.result_of("a").report is None
        assert watch.tethers.result_of("a").broken_at is None

        woken, peer.hangs = watch.woken, False
        await until(lambda: watch.tethers.result_of("a").unresponsive_since is None)
        assert watch.woken > woken
        assert watch.tethers.silence().unresponsive == 0
        await until(lambda: watch.tethers.result_of("a").report)


async def test_a_stopped_process_is_silent_and_answers_when_it_goes_on() -> None:
    code = (
        "import http.server,sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', '13'); self.end_headers()\n"
        "        self.wfile.write(b'{\"shards\": 2}')\n"
        "    def log_message(self, *_): pass\n"
        f"s = http.server.ThreadingHTTPServer(('{HOST}', 0), H)\n"
        "print(s.server_port, flush=True)\n"
        "s.serve_forever()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: ASYNC220  returns at once
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        async with watching(port) as watch:
            watch.hold("a")
            await until(lambda: watch.tethers.result_of("a").report)
            process.send_signal(signal.SIGSTOP)
            await until(lambda: watch.tethers.result_of("a").unresponsive_since)
            await until(lambda: watch.tethers.result_of("a").report is None)
            assert watch.tethers.result_of("a").broken_at is None
            process.send_signal(signal.SIGCONT)
            await until(lambda: watch.tethers.result_of("a").unresponsive_since is None and watch.tethers.result_of("a").report)
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("fresh_every", [1000, 2])
async def test_a_slow_coreapp_is_never_silent_for_long(fresh_every: int) -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, fresh_every=fresh_every)) as watch:
        watch.hold("a")
        peer.delay = 0.3
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)
        woken = watch.woken
        longest = timedelta()
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            since = watch.tethers.result_of("a").unresponsive_since
            longest = max(longest, datetime.now(UTC) - since) if since else longest
            await asyncio.sleep(0.005)

        assert timedelta(seconds=0.2) < longest < timedelta(seconds=0.55) + watch.late
        assert watch.woken > woken
        assert watch.tethers.result_of("a").report is not None


async def test_slow_answers_within_the_deadline_are_no_silence() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, deadline=1.0)) as watch:
        peer.delay = 0.5
        watch.hold("a")
        await until(lambda: len(peer.asked) >= 4)

        assert watch.tethers.result_of("a").unresponsive_since is None
        assert peer.made == 1
        assert watch.woken == 1


async def test_a_coreapp_is_reached_when_it_answered_refused_or_had_its_time() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        assert watch.tethers.not_reached() == 0
        watch.hold("a")
        assert watch.tethers.not_reached() == 1
        await until(lambda: watch.tethers.result_of("a").report)
        assert watch.tethers.not_reached() == 0
    await peer.gone()
    async with watching(peer.port) as watch:
        watch.hold("a")
        assert watch.tethers.not_reached() == 1
        await until(lambda: watch.tethers.result_of("a").broken_at)
        assert watch.tethers.not_reached() == 0
    async with a_full_queue() as port, watching(port) as watch:
        watch.hold("a")
        assert watch.tethers.not_reached() == 1
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)
        assert watch.tethers.not_reached() == 0
        watch.tethers.hold(KEY, {})
        assert watch.tethers.not_reached() == 0


async def test_a_black_hole_is_silent_and_counts_although_it_never_answered() -> None:
    async with a_full_queue() as port, watching(port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)

        await until(lambda: watch.woken)
        assert watch.tethers.result_of("a").broken_at is None
        assert watch.tethers.result_of("a").never_responded
        silence = watch.tethers.silence()
        assert (silence.targets, silence.unresponsive, silence.never_responded) == (1, 1, ()), "its kubelet does not call it ready"
        watch.hold("a", ready=True)
        assert watch.tethers.silence().never_responded == ("node-a",)


async def test_where_another_coreapp_answers_the_node_is_reached() -> None:
    """The pods of one cluster have a service mesh that lets their kubelets in and nobody else: that holds up no other cluster."""
    async with a_peer() as peer, watching(peer.port) as watch:
        mesh = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.2", peer.port)
        async with mesh:
            watch.tethers.hold(KEY, {"a": target(), "b": target(ip="127.0.0.2", ready=True)})
            await until(lambda: watch.tethers.result_of("a").report and watch.tethers.result_of("b").unresponsive_since)
            silence = watch.tethers.silence()

            assert (silence.unresponsive, silence.never_responded) == (1, ("node-a",))
            assert silence.answering == {"node-a"}
            assert self_check(silence, None, datetime.now(UTC)) is None
            watch.tethers.hold(KEY, {"a": target(node="node-b"), "b": target(ip="127.0.0.2", ready=True)})
            silence = watch.tethers.silence()
            assert (silence.never_responded, silence.answering) == (("node-a",), frozenset())
            assert self_check(silence, None, datetime.now(UTC)) is not None


async def test_each_kth_probe_goes_over_a_fresh_connection_which_is_no_drop() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, fresh_every=3)) as watch:
        watch.hold("a", period=0.05)
        await until(lambda: peer.made >= 5)

        assert watch.woken == 1
        assert watch.tethers.result_of("a").broken_at is None
        per_connection = [sum(number == one for one, _, _ in peer.asked) for number in range(2, 5)]
        assert per_connection == [3, 3, 3]
        await until(lambda: len(peer.open) == 1)


async def test_fresh_connections_that_hang_count_although_the_open_one_answers() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, fresh_every=4)) as watch:
        watch.hold("a", period=0.05)
        peer.ignores_newer_than = 1
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)
        since = watch.tethers.result_of("a").unresponsive_since
        await until(lambda: watch.tethers.result_of("a").report is None)

        assert watch.tethers.result_of("a").unresponsive_since == since
        assert 1 in peer.open
        peer.ignores_newer_than = None
        await until(lambda: watch.tethers.result_of("a").unresponsive_since is None)


async def test_a_port_that_refuses_while_the_open_connection_answers_is_noted_and_no_end() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, fresh_every=3)) as watch:
        watch.hold("a", period=0.05)
        await until(lambda: peer.asked)
        peer.stop_listening()
        tether = watch.tethers._tethers["a"]
        await until(lambda: tether.side_refused_at)
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) > asked + 5)

        assert watch.tethers.result_of("a").broken_at is watch.tethers.result_of("a").unresponsive_since is None
        assert watch.woken == 1
        # And when it hangs too, nobody is there any more.
        peer.hangs = True
        await until(lambda: watch.tethers.result_of("a").broken_at)
        assert watch.tethers.result_of("a").unresponsive_since is None


async def test_a_server_that_ends_each_connection_is_asked_in_its_time_and_broken_when_it_goes() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        peer.headers = "Connection: close\r\n"
        watch.hold("a", period=0.1)
        await until(lambda: len(peer.asked) >= 6)

        times = [at for _, at, _ in peer.asked]
        assert times[5] - times[1] > 0.3
        assert watch.woken == 1
        assert watch.tethers.result_of("a").report is not None
        peer.die()
        await until(lambda: watch.tethers.result_of("a").broken_at)
        assert watch.tethers.result_of("a").report is None


async def test_tcp_probes_count_a_connection_as_an_answer_and_take_events_too() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a", kind="TCP", period=0.05)
        await until(lambda: peer.made >= 4)

        await until(lambda: watch.tethers.result_of("a").report)
        assert watch.tethers.result_of("a").broken_at is watch.tethers.result_of("a").unresponsive_since is None
        assert watch.tethers.silence().targets == 1
        await until(lambda: len(peer.open) <= 2)
        peer.die()
        await until(lambda: watch.tethers.result_of("a").broken_at)


async def test_tcp_probes_do_not_notice_a_process_that_accepts_and_hangs() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        peer.hangs = True
        watch.hold("a", kind="TCP", period=0.05)
        await until(lambda: peer.made >= 8)

        assert (watch.tethers.result_of("a").unresponsive_since, watch.tethers.result_of("a").report) == (None, None)
        assert watch.tethers.silence().targets == 1


async def test_another_role_changes_the_pace_and_keeps_the_connection() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        began = time.monotonic()
        watch.hold("a", holds=False, period=0.02)
        await until(lambda: len(peer.asked) >= 4)
        # One at once, and one in each half second. A probe may be late on a busy machine, and then the next one is near.
        assert len(peer.asked) <= 2 + (time.monotonic() - began) / 0.5

        watch.hold("a", holds=True, period=0.02)
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) >= asked + 5)
        times = [at for _, at, _ in peer.asked[asked:]]
        assert min(later - sooner for sooner, later in pairwise(times)) < 0.4
        assert peer.made == 1


async def test_phases_are_spread_over_the_period() -> None:
    async with a_peer() as peer, watching(peer.port, PATIENT) as watch:
        uids = [f"pod-{i}" for i in range(100)]
        watch.hold(*uids, period=1.0)
        await until(lambda: len(peer.asked) >= 200)
        watch.late = watch.stood = timedelta()
        await until(lambda: len(peer.asked) >= 500)

        # In no tenth of a second more than 25, and none without any, but for what a busy machine brings together.
        times = [at for _, at, _ in peer.asked[200:500]]
        late, stood = (span / timedelta(seconds=1) for span in (watch.late, watch.stood))
        late *= 2  # a question is sent late, and received late
        assert all(later - sooner > 0.1 - late for sooner, later in zip(times, times[25:], strict=False))
        assert all(later - sooner < 0.1 + late + stood for sooner, later in pairwise(times))


async def test_another_address_makes_another_tether_and_a_pod_that_went_away_is_let_go() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        before = open_files()
        watch.hold("a", "b", "c")
        await until(lambda: len(peer.open) == 3)
        watch.hold("a", ip="127.0.0.2")
        await until(lambda: not peer.open)
        assert watch.tethers.result_of("a").report is None
        assert watch.tethers.result_of("b").report is None
        await until(lambda: watch.tethers.result_of("a").broken_at)
        watch.hold("a")
        assert watch.tethers.result_of("a").broken_at is None
        await until(lambda: watch.tethers.result_of("a").report)
        assert len(peer.open) == 1
        watch.hold()
        await until(lambda: not peer.open)
        await until(lambda: open_files() <= before)


async def test_a_hung_coreapp_does_not_collect_connections() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, most_side_connections=2)) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        before = open_files()
        peer.hangs = True
        made = peer.made
        await until(lambda: peer.made >= made + 6)
        # The open one and those next to it; the peer, hanging, keeps its ends of the others.
        assert sum((tether._wire is not None) + len(tether._side_connections) for tether in watch.tethers._tethers.values()) <= 3
        peer.hangs = False
        await until(lambda: open_files() <= before)


async def test_after_the_end_it_may_begin_again() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        await watch.tethers.close()
        await until(lambda: not peer.open)
        assert watch.tethers.silence().targets == 0
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)


async def test_want_of_files_of_our_own_is_no_silence_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def too_many(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async with a_peer() as peer, watching(peer.port, replace(QUICK, fresh_every=3)) as watch:
        watch.hold("a", period=0.05)
        await until(lambda: peer.asked)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", too_many)
        watch.hold("a", "b", period=0.05)
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) > asked + 10)

        for uid in ("a", "b"):
            assert watch.tethers.result_of(uid).unresponsive_since is None
            assert watch.tethers.result_of(uid).broken_at is None


# --- lag of this process -------------------------------------------------------------------------------------------------


async def test_a_loop_that_stood_still_finds_nobody_silent_but_itself_late() -> None:
    # On a busy machine an answer is late by more than the deadline that other tests have, and rightly called so.
    async with a_peer() as peer, watching(peer.port, replace(QUICK, deadline=1.0)) as watch:
        uids = [f"pod-{i}" for i in range(20)]
        watch.hold(*uids)
        await until(lambda: watch.tethers.silence().targets == 20)
        # Probes are on their way, and the peers, which share this very loop, cannot answer them meanwhile.
        peer.delay = 0.1
        asked = len(peer.asked)
        await until(lambda: len(peer.asked) > asked)
        woken, stood = watch.woken, time.monotonic()
        time.sleep(3.0)  # noqa: ASYNC251  that is what is tested
        silence = watch.tethers.silence()
        assert silence.unresponsive == 0
        assert timedelta(seconds=2.8) < silence.lag < timedelta(seconds=time.monotonic() - stood + 0.5)
        seen: set[int] = set()
        asked = len(peer.asked)

        def each_was_asked_twice() -> bool:
            seen.add(watch.tethers.silence().unresponsive)
            return len(peer.asked) - asked >= 40

        await until(each_was_asked_twice)
        assert seen == {0}
        assert watch.woken == woken
        assert watch.tethers.silence().lag > timedelta(seconds=2.8)


async def test_a_deadline_before_the_heartbeat_that_is_late_is_not_believed_either() -> None:
    async with a_peer() as peer, watching(peer.port) as watch:
        watch.hold("a")
        await until(lambda: watch.tethers.result_of("a").report)
        peer.hangs, asked = True, len(peer.asked)
        await until(lambda: len(peer.asked) > asked)
        # As if the deadline came first: this heartbeat never comes by itself.
        beat = watch.tethers._lag._timer
        assert beat is not None
        beat.cancel()
        stood = time.monotonic()
        time.sleep(1.0)  # noqa: ASYNC251  that is what is tested
        went_on = time.monotonic()
        while time.monotonic() - went_on < QUICK.deadline / 2:
            assert watch.tethers._tethers["a"].unresponsive_since is None
            await asyncio.sleep(0.002)
        assert timedelta(seconds=0.8) < watch.tethers.silence().lag < timedelta(seconds=time.monotonic() - stood + 0.5)


async def test_rounds_that_came_late_are_not_made_up_for_all_at_once() -> None:
    async with a_peer() as peer, watching(peer.port, PATIENT) as watch:
        watch.hold(*(f"pod-{i}" for i in range(100)), period=1.0)
        await until(lambda: watch.tethers.silence().targets == 100)
        time.sleep(1.2)  # noqa: ASYNC251  that is what is tested
        asked, went_on = len(peer.asked), time.monotonic()
        # One period later each was asked in its own phase again: at no moment more than were due by then, and half of all.
        # A busy machine makes this process stand still, too: what is due meanwhile comes at once.
        stood, beaten = 0.0, time.monotonic()
        while len(peer.asked) - asked < 100:
            assert time.monotonic() < went_on + 60
            await asyncio.sleep(0.005)
            stood, beaten = max(stood, time.monotonic() - beaten), time.monotonic()
        times = [at for _, at, _ in peer.asked[asked:]]
        assert all(count < 100 * (at - went_on + stood) + 50 for count, at in enumerate(times, start=1))


async def test_the_time_for_which_we_stood_still_does_not_make_a_silence_longer() -> None:
    async with a_peer() as peer, watching(peer.port, replace(QUICK, deadline=0.3)) as watch:
        watch.hold("a", unhealthy_after=2.0)
        await until(lambda: watch.tethers.result_of("a").report)
        peer.hangs = True
        await until(lambda: watch.tethers.result_of("a").unresponsive_since)
        woken, since = watch.woken, watch.tethers.result_of("a").unresponsive_since
        assert since is not None
        before = datetime.now(UTC) - since
        time.sleep(2.5)  # noqa: ASYNC251  that is what is tested
        watch.tethers.silence()
        since = watch.tethers.result_of("a").unresponsive_since
        assert since is not None
        assert datetime.now(UTC) - since < before + timedelta(seconds=0.4)
        await asyncio.sleep(0.1)
        assert watch.woken == woken
        await until(lambda: watch.woken > woken)
        assert datetime.now(UTC) - since >= timedelta(seconds=2.0)
