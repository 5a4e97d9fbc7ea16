"""The leader dies, or loses its Lease, somewhere around Set Shards: the Coreapps are restarted exactly once all the same."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from wabiz_sim.certificate import fingerprint

from .set_shards_actions import made_again, seconds_between
from .set_shards_environment import LONG, RESTART_TIMEOUT, SETTLES, SHUT, TIMEOUT, Trial

UNANSWERED = 2 * TIMEOUT
"""Seconds of a call that is under way: no matter how late the leader dies or is frozen, it has no answer."""


async def before_the_intent(s: Trial) -> None:
    """The pods are scaled, nothing is noted."""
    await s.resize(2)
    await s.until(lambda _: s.replicas() == 3, "three Coreapps wanted")
    await s.kill_leader()


async def after_the_intent(s: Trial) -> None:
    """The call is noted and was never made, which nobody can know: it is made when the note is settled, not before."""
    await s.patch(reshard={"windows": [SHUT]})
    await s.resize(2)
    await s.word("Reconciling", "WindowClosed")
    await s.until(lambda _: len(s.ready("coreapp")) == 3, "three Coreapps")
    await s.kill_leader(successor=False)
    # Between the note and the call there are milliseconds: so the note is written as the dead leader would have.
    noted = datetime.now(UTC)
    entry = {
        "id": "2-crash",
        "from": 1,
        "to": 2,
        "leaderEpoch": 0,
        "attempts": 1,
        "answer": "None",
        "startedAt": _spelled(noted),
        "deadline": _spelled(noted + timedelta(seconds=RESTART_TIMEOUT)),
        "settleBy": _spelled(noted + timedelta(seconds=SETTLES)),
    }
    body = json.dumps({"status": {"operation": entry}})
    await s.kubectl("patch", "whatsappcluster", "acme", "--subresource=status", "--type=merge", "-p", body)
    await s.patch(reshard={"windows": None})
    await s.new_leader()
    (made,) = await s.until_made()
    assert seconds_between(noted.isoformat(), made["at"]) > SETTLES


def _spelled(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def during_the_call(s: Trial) -> None:
    """The call was taken, its answer is under way."""
    await s.go_wrong(fault="slow", seconds=UNANSWERED)
    await s.resize()
    await s.until_made()
    await s.kill_leader()


async def during_a_call_in_vain(s: Trial) -> None:
    """The call was heard and not taken."""
    await s.go_wrong(fault="timeout")
    await s.resize()
    await s.until_made()
    await s.kill_leader()
    await made_again(s)


async def before_the_refusal_is_noted(s: Trial) -> None:
    """The certificate was rejected, and the operator that got the answer died before noting it: it is not sent once more all the same."""
    good, old = s.new_certificate(), fingerprint(s.right)
    await s.stand_in("certificate", fingerprint=fingerprint(good))
    await s.go_wrong(fault="slow", seconds=UNANSWERED)
    await s.resize()
    await s.until_made()
    await s.kill_leader()
    await s.word("Reconciling", "AnswerUnknown")
    await s.word("Stalled", "CertificateRejected")
    assert s.status()["certificate"]["refusedFingerprint"] == old
    assert len(await s.made()) == 1
    s.right = good
    await s.put_account()


async def after_the_answer(s: Trial) -> None:
    """The call was answered in this moment."""
    await s.resize()
    await s.until_made()
    await s.kill_leader()


async def before_verification(s: Trial) -> None:
    """The call was answered; GET, which verifies, does not answer, neither to this leader nor for a while to the next."""
    await s.fault(call="get_shards", fault="error", count=1000, after="set_shards")
    await s.resize()
    await s.said(lambda status: status.get("operation", {}).get("answer") == "Accepted", "the noted answer")
    await s.kill_leader()
    before = await s.fired("get_shards")
    await _until(s, "the next leader asks without an answer", lambda: _more(s, before))
    assert len(await s.made()) == 1
    await s.fault()


async def _more(s: Trial, before: int) -> bool:
    return await s.fired("get_shards") > before + 1


async def _until(s: Trial, what: str, ask: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + LONG
    while not await ask():
        assert time.monotonic() < deadline, f"{what}: {s.seen.summary()}"
        await asyncio.sleep(0.1)


async def during_the_restart(s: Trial) -> None:
    """The Coreapps are away."""
    async with s.resize_with_slow_restart():
        await s.kill_leader()


async def twice(s: Trial) -> None:
    """The leader dies in the call, and the next one when it has taken over."""
    await s.go_wrong(fault="slow", seconds=UNANSWERED)
    await s.fault(call="restart", fault="slow", count=20, seconds=6)
    await s.resize()
    await s.until_made()
    await s.kill_leader()
    await asyncio.to_thread(s.until_log, s.operator, "leading, epoch")
    await s.kill_leader()


async def lease_lost_in_the_call(s: Trial) -> None:
    """The leader is frozen in the call; another takes over; the first wakes up and sends nothing more."""
    await s.go_wrong(fault="slow", seconds=UNANSWERED)
    await _outlived(s, at_rest=True)


async def lease_lost_in_a_call_in_vain(s: Trial) -> None:
    """The same, and the call was not taken: the new leader makes it, when it is settled, and nobody else."""
    await s.go_wrong(fault="timeout")
    await _outlived(s, at_rest=False)
    await made_again(s)


async def _outlived(s: Trial, *, at_rest: bool) -> None:
    """Freeze the leader while its call is under way, and wake it up when another one leads (and is done)."""
    await s.resize()
    await s.until_made()
    frozen = s.operator
    frozen.pause()
    try:
        await s.new_leader()
        await asyncio.to_thread(s.until_log, s.operator, "leading, epoch")
        if at_rest:
            await s.rest()
            assert len(await s.made()) == 1
    finally:
        frozen.resume()
    await asyncio.to_thread(s.until_log, frozen, "no longer leading")
    frozen.signal(signal.SIGTERM)
