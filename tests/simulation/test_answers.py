"""What an answer of Set Shards means: its words and codes decide, under any HTTP status they come.

What is expected stands here as it is in the vendor's documents. Every case runs the whole loop: what is sent again, when, and what is said.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Any

import pytest

from .client import CallOutcome
from .world import Change, World, simulate, simulated

STATUSES = (400, 401, 403, 429, 500, 503)
ApiFault = tuple[int | None, str]
"""Code and words of one error."""

CERTIFICATE: tuple[ApiFault, ...] = (
    (1005, "Access denied: client setup is logged off: wrong certificate, call again with the right one"),
    (1005, "Access denied: VName Certificate Error"),
    (430, "Unsigned certificate"),
    (432, "Certificate ID mismatch"),
    (433, "Certificate signature invalid"),
    (None, "Your client setup is logged off"),
)
PIN: tuple[ApiFault, ...] = (
    (1005, "Access denied: two-step verification: pin is wrong"),
    (1005, "Two-Step Verification is enabled, a PIN is required"),
    (None, "two_factor pin mismatch"),
)
BAN: tuple[ApiFault, ...] = (
    (1031, "Account locked: account is banned: an expired certificate was sent"),
    (1031, ""),
    (1005, "Your account has been banned"),
)
EXPIRED: tuple[ApiFault, ...] = (
    (1005, "Access denied: App Expired"),
    (1005, "Access denied: this build has expired"),
    (None, "client version expired"),
)
CLOSED: tuple[ApiFault, ...] = (
    (1005, "Access denied: registration blocked"),
    (1005, "Registration is closed for this product"),
    (None, "New registrations are no longer accepted"),
)
BUSY: tuple[ApiFault, ...] = (
    (1011, "Service not ready"),
    (1015, "Too many requests: wait before you send the certificate again"),
    (1016, "System overloaded"),
    (1017, "Not Primary Master"),
    (1018, "Not Primary Coreapp"),
    (1015, "Too many requests"),
)

IMAGES = {name: f"registry.example/{name}:v2.53.4" for name in ("coreapp", "webapp")}
NEWER = {name: f"registry.example/{name}:v2.55.1" for name in ("coreapp", "webapp")}


def calls(world: World) -> int:
    """How often Set Shards was sent so far."""
    return world.laws.applied["5"]


def certificate(number: int) -> str:
    return base64.b64encode(f"certificate number {number}".encode()).decode()


def put(world: World, number: int, *, pin: str = "482913") -> None:
    world.put_account_secret(certificate=certificate(number), expiresAt="2027-12-31T00:00:00Z", pin=pin)


async def settled(world: World) -> None:
    put(world, 0)
    account = {"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}}
    await world.started(shards=1, account=account, client={"type": "Simulator", "images": IMAGES})


async def stalls(world: World, reason: str, advice: str, answers: Iterable[CallOutcome]) -> None:
    """One call and no other, no matter which one leads; and a person reads what to do."""
    world.account.call_outcomes.extend(answers)
    before = calls(world)
    world.edit(shards=3 - world.account.shards)
    await world.until(lambda: world.condition("Stalled")[:2] == ("True", reason), within=20, what=f"Stalled {reason}")
    assert advice in world.condition("Stalled")[2]
    await world.pause(15)
    world.living()[0].kill()
    world.operator().lead(len(world.operators))
    await world.pause(15)
    assert world.condition("Stalled")[:2] == ("True", reason)
    assert calls(world) == before + 1
    world.account.call_outcomes.clear()


def each(said: tuple[ApiFault, ...], final: str, statuses: Iterable[int] = STATUSES) -> list[CallOutcome]:
    """Every status once, each with another wording."""
    pairs = zip(statuses, cycle(said), strict=False)
    return [CallOutcome(status=status, applied=None, code=code, text=text, final=final, lasts=True) for status, (code, text) in pairs]


def put_right(final: str, reason: str, advice: str, answers: Iterable[CallOutcome], mend: Callable[[World, int], None], fit: str) -> None:
    """It stalls under every status, and goes on when a person has put it right."""

    async def scenario(world: World) -> None:
        await settled(world)
        for number, answer in enumerate(answers, 1):
            await stalls(world, reason, advice, [answer])
            assert world.condition("CertificateValid")[1] == fit
            assert ("loggedOffAt" in world.status().get("certificate", {})) == (final == "certificate")
            before = calls(world)
            mend(world, number)
            await world.until_done()
            assert calls(world) == before + 1
        await world.stays_silent(60)

    simulate(scenario)


def test_a_refused_certificate_is_not_sent_again_before_another_one_is_there() -> None:
    put_right(
        "certificate",
        "CertificateRejected",
        "Put the right one into Secret account",
        each(CERTIFICATE, "certificate"),
        put,
        "CertificateRejected",
    )


@simulated()
async def test_a_refused_certificate_is_not_sent_again_after_another_one_was_refused_too(world: World) -> None:
    """A person who does not know which one is right puts the first one back; also after the leader has changed."""
    await settled(world)
    for number in (1, 2):
        put(world, number)
        await stalls(world, "CertificateRejected", "Put the right one into Secret account", each(CERTIFICATE[:1], "certificate")[:1])
        world.edit(shards=world.account.shards)
    before = calls(world)
    put(world, 1)
    world.edit(shards=3 - world.account.shards)
    await world.pause(30)
    assert world.condition("Stalled")[:2] == ("True", "CertificateRejected")
    assert calls(world) == before
    put(world, 3)
    await world.until_done()
    assert calls(world) == before + 1


def test_a_refused_pin_is_not_sent_again_before_it_is_another_one() -> None:
    """Each try counts toward a lock. Other keys of its Secret and other fields of the spec change meanwhile."""

    def mend(world: World, number: int) -> None:
        put(world, 0, pin=f"48291{number}")

    put_right("pin", "PinRejected", "key pin of Secret account", each(PIN, "pin"), mend, "PinRejected")

    async def scenario(world: World) -> None:
        await settled(world)
        await stalls(world, "PinRejected", "key pin of Secret account", each(PIN[:1], "pin")[:1])
        before = calls(world)
        put(world, 1)
        world.edit(spares=2)
        await world.pause(30)
        assert world.condition("Stalled")[:2] == ("True", "PinRejected")
        assert calls(world) == before

    simulate(scenario)


def test_an_expired_build_is_not_tried_again_before_there_is_another() -> None:
    def mend(world: World, number: int) -> None:
        world.edit(client={"type": "Simulator", "images": NEWER if number % 2 else IMAGES})

    put_right("build", "ClientExpired", "spec.client.images", each(EXPIRED, "build", (401, 403, 500)), mend, "Valid")


def test_a_closed_registration_is_not_tried_again_before_the_account_is_edited() -> None:
    def mend(world: World, number: int) -> None:
        put(world, 0, pin=f"48291{number}")

    put_right("registration", "RegistrationClosed", "Meta's support", each(CLOSED, "registration"), mend, "Valid")


@pytest.mark.parametrize("answer", each(BAN, "account", (401, 403, 500)), ids=lambda one: one.status)
@simulated()
async def test_a_banned_account_is_sent_nothing_any_more(world: World, answer: CallOutcome) -> None:
    await settled(world)
    await stalls(world, "Banned", "Ask Meta's support", [answer])
    before = calls(world)
    put(world, 1)
    world.edit(client={"type": "Simulator", "images": NEWER})
    await world.pause(120)
    assert world.condition("Ready")[:2] == ("False", "Banned")
    assert calls(world) == before


def busy(status: int, said: ApiFault, **changes: Any) -> CallOutcome:
    return CallOutcome(status=status, applied=None, code=said[0], text=said[1], clear=True, **changes)


async def waits(world: World, answers: list[CallOutcome]) -> None:
    """Nothing stalls and nothing counts as rejected; the last answer is yes."""
    stalled: list[str] = []

    def check(_: Change) -> None:
        state, reason, _why = world.condition("Stalled")
        stalled.extend([reason] if state == "True" else [])

    world.server.checks.append(check)
    before = calls(world)
    world.account.call_outcomes.extend(answers)
    world.edit(shards=3 - world.account.shards)
    await world.until(lambda: world.condition("Reconciling")[1] == "ServerBusy", within=20, what="ServerBusy")
    await world.until_done(within=120)
    assert (calls(world), stalled) == (before + len(answers) + 1, [])
    assert not {"refusedFingerprint", "refusedPin", "loggedOffAt"} & world.status().get("certificate", {}).keys()


@simulated()
async def test_a_busy_answer_is_waited_for_under_every_status(world: World) -> None:
    await settled(world)
    for status, said in zip(STATUSES, BUSY, strict=True):
        await waits(world, [busy(status, said)])
    await waits(world, [busy(400, said) for said in BUSY[:3]])


@simulated()
async def test_a_status_decides_where_the_words_say_nothing(world: World) -> None:
    await settled(world)
    for status in (403, 404, 429, 503):
        await waits(world, [busy(status, (None, "")), busy(status, (1005, "Access denied"))])


@simulated()
async def test_a_client_that_asks_for_a_pause_gets_it_under_any_leader_and_any_spec(world: World) -> None:
    await settled(world)
    world.account.call_outcomes.append(busy(429, (None, ""), retry_after=300))
    before, start = calls(world), world.loop.time()
    world.edit(shards=2)
    await world.until(lambda: calls(world) == before + 1, within=20, what="the call")
    await world.pause(60)
    world.living()[0].kill()
    world.operator().lead(2)
    await world.pause(60)
    world.edit(shards=4)
    await world.pause(170)
    assert world.condition("Reconciling")[:2] == ("True", "ServerBusy")
    assert calls(world) == before + 1
    await world.until(lambda: calls(world) == before + 2, within=90, what="the second call")
    # The second operator's clock may be an hour apart: it counts from when it saw the answer.
    assert 300 <= world.loop.time() - start <= 380
    await world.until_done()
    assert "operation" not in world.status()
    await world.stays_silent(60)


@simulated()
async def test_a_401_is_a_stale_token_once_and_then_a_busy_client(world: World) -> None:
    """A client that rejects every token is not logged in to, and called, without end."""
    await settled(world)
    world.account.call_outcomes.append(CallOutcome(status=401, applied=None, code=1005, text="Access denied", lasts=True))
    before, tokens = calls(world), len(world.account.tokens)
    world.edit(shards=2)
    await world.until(lambda: world.condition("Reconciling")[1] == "ServerBusy", within=20, what="ServerBusy")
    await world.pause(110)
    # One at once; then 2, 4, 8, 16, 32 and 60 s, give or take a fifth.
    assert 5 <= calls(world) - before <= 8
    assert len(world.account.tokens) - tokens <= 9
    assert world.condition("Stalled")[0] == "False"
    world.account.call_outcomes.clear()
    await world.until_done(within=90)


@simulated()
async def test_a_token_that_became_stale_costs_no_pause(world: World) -> None:
    await settled(world)
    for shards in (2, 1, 2):
        world.account.tokens.clear()
        world.account.call_outcomes.append(CallOutcome(status=401, applied=None, code=1005, text="the token is expired: log in"))
        before = calls(world)
        world.edit(shards=shards)
        await world.until(lambda: calls(world) == before + 2, within=5, what="the call")  # noqa: B023 - awaited here
        await world.until_done()


@pytest.mark.parametrize("answer", ["timeout", "reset"])
@pytest.mark.parametrize("seed", range(3))
@simulated()
async def test_the_restart_of_a_call_without_an_answer_moves_no_shard_though_the_client_cannot_be_asked(
    world: World, answer: str, seed: int
) -> None:
    """The call may take effect as late as when it is given up, and its restart gets its full time from then on (laws#9)."""
    world.create(shards=2, spares=2)
    world.operator().lead(1)
    await world.until_done()
    world.account.call_outcomes.append(CallOutcome(answer, applied=20.5))
    world.edit(shards=1)
    await world.until(lambda: not world.account.call_outcomes, within=20, what="the call")
    await world.pause(20.2)
    world.api_faults = 1.0
    moves, restarts = len(world.laws.handovers), world.account.restarts
    holders = [world.holder(shard) for shard in range(2)]
    # The restart reaches it late, so it seems ready for a moment longer.
    world.cluster.hang(next(machine for machine in world.coreapps() if machine not in holders), seconds=2.5)
    await world.until(lambda: world.account.restarts > restarts, within=3, what="the restart")
    await world.pause(1.4)
    assert len(world.laws.handovers) == moves
    world.api_faults = 0.0
    await world.until_done(within=120)
