"""THE table of what may happen around Set Shards: who answers how, what is put right, what is seen, and how it ends.

``act`` does what happens; how, is in ``set_shards_acts``. The fields are explained at ``Case``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from . import set_shards_acts as acts
from .set_shards_acts import answered, spoiled, unanswered
from .set_shards_stage import Case, Lane

NUMBER = {"countryCode": "1", "phoneNumber": "6315550000"}


def _registered(days: float) -> dict[str, object]:
    return {"account": {**NUMBER, "registeredAt": f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"}}


LANES = (
    Lane(name="answers"),
    Lane(name="unknown-a"),
    Lane(name="unknown-b"),
    Lane(name="unknown-c"),
)

SENT, DONE = "SetShardsSent", "SetShardsDone"
ONCE = ("A>B 201",)

CASES = (
    # --- what the client answers
    Case(name="accepted", lane="answers", act=answered(), calls=ONCE, restarts=1, events=(SENT, DONE)),
    Case(
        name="busy-once",
        lane="answers",
        act=answered(fault="busy"),
        calls=("A>B 403", "A>B 201"),
        restarts=1,
        events=(SENT, "ServerBusy", DONE),
    ),
    Case(
        name="busy-three-times",
        lane="answers",
        act=answered(fault="busy", count=3),
        calls=("A>B 403", "A>B 403", "A>B 403", "A>B 201"),
        restarts=1,
        words=("Reconciling/ServerBusy", "Reconciling/Settled"),
        events=("ServerBusy", DONE),
    ),
    Case(
        name="busy-six-times-tells-a-person",
        lane="answers",
        act=answered(fault="busy", count=6),
        calls=(*["A>B 403"] * 6, "A>B 201"),
        restarts=1,
        words=("Reconciling/ServerBusy", "Reconciling/Settled"),
        events=("ServerBusy", "!ServerBusy", DONE),
    ),
    Case(name="slow", lane="answers", act=answered(fault="slow", seconds=1), calls=ONCE, restarts=1, words=("Reconciling/SettingShards",)),
    Case(
        name="other-400-without-a-certificate",
        lane="answers",
        act=answered(fault="error", status=400, code=1009),
        calls=("A>B 400", "A>B 201"),
        restarts=1,
    ),
    Case(name="expired-token", lane="answers", act=acts.token_expired, calls=ONCE, restarts=1),
    # --- no clear answer: only GET
    Case(
        name="error-applied",
        lane="unknown-a",
        act=unanswered(fault="error", applies=True),
        calls=("A>B 500",),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(name="timeout-applied", lane="unknown-a", act=unanswered(fault="timeout", applies=True), calls=("A>B 500",), restarts=1),
    Case(name="reset-applied", lane="unknown-a", act=unanswered(fault="reset", applies=True), calls=("A>B 500",), restarts=1),
    Case(name="garbage-applied", lane="unknown-a", act=unanswered(fault="garbage", applies=True), calls=("A>B 200",), restarts=1),
    Case(
        name="late-success",
        lane="unknown-a",
        act=unanswered(fault="late", seconds=3),
        calls=("A>B 500",),
        restarts=1,
        words=("Reconciling/AnswerUnknown", "Reconciling/Settled"),
        events=("!AnswerUnknown", DONE),
    ),
    Case(
        name="error-not-applied",
        lane="unknown-a",
        act=unanswered(again=True, fault="error", status=503),
        calls=("A>B 503", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
        events=("!AnswerUnknown", DONE),
    ),
    Case(
        name="timeout-not-applied",
        lane="unknown-b",
        act=unanswered(again=True, fault="timeout"),
        calls=("A>B 500", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(
        name="reset-not-applied",
        lane="unknown-b",
        act=unanswered(again=True, fault="reset"),
        calls=("A>B 500", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
    Case(
        name="garbage-not-applied",
        lane="unknown-c",
        act=unanswered(again=True, fault="garbage"),
        calls=("A>B 200", "A>B 201"),
        restarts=1,
        words=("Reconciling/AnswerUnknown",),
    ),
)
