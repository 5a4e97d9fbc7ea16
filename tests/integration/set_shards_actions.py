"""What happens in the cases of Set Shards, one function each; each leaves the cluster on its way to rest."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from localkube.errors import LocalKubeError
from wabiz_sim.certificate import decode, fingerprint, read

from .set_shards_environment import LATE, LONG, RESTART_TIMEOUT, SECRET, SETTLES, SHUT, Trial

Action = Callable[[Trial], Awaitable[None]]
PIN = "739184"


# --- answers


def answered(**fault: Any) -> Action:
    """The first call is answered so."""

    async def action(s: Trial) -> None:
        if fault:
            await s.go_wrong(**fault)
        await s.resize()

    return action


def unanswered(*, again: bool = False, **fault: Any) -> Action:
    """The first call gets no clear answer; ``again``: it was not applied, and so comes a second time, but not before it is settled."""

    async def action(s: Trial) -> None:
        await s.go_wrong(**fault)
        await s.resize()
        await s.until_made()
        await s.said(lambda status: status.get("operation", {}).get("answer") == "Unknown" or s.is_at_rest(), "AnswerUnknown")
        if again:
            await made_again(s)

    return action


async def made_again(s: Trial) -> None:
    """Wait for a second call. It comes when the first one is settled by its own note, no matter how late that one arrived."""
    first, second = await s.until_made(2)
    versions = s.seen.versions("WhatsAppCluster", s.namespace, "acme")
    noted = [obj["status"]["operation"] for obj in versions if "operation" in (obj.get("status") or {})]
    settle_by = [one["settleBy"] for one in noted if seconds_between(one["startedAt"], first["at"]) >= 0][-1]
    assert seconds_between(settle_by, second["at"]) >= 0


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one RFC 3339 time to another."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


async def applied_after_it_was_settled(s: Trial) -> None:
    """The call takes effect when it counts as never taken and was made again: once more for nothing, but to the same end."""
    await s.go_wrong(fault="late", seconds=SETTLES + 20)
    await s.resize()
    await made_again(s)
    await s.until_restarted(2)


async def applied_after_it_was_settled_and_taken_back(s: Trial) -> None:
    """The call takes effect when it counts as never taken and nobody wants it any more: that is drift, and is repaired."""
    await s.patch(reshard={"drift": "Repair"})
    await s.go_wrong(fault="late", seconds=SETTLES + 20)
    await s.resize()
    await s.until_made()
    await s.resize(s.a)
    await s.rest()
    assert len(await s.made()) == 1
    await s.until_made(2)
    await s.rest()
    await s.patch(reshard={"drift": "Report"})


async def token_expired(s: Trial) -> None:
    """The token is void when the call is due."""
    await s.stand_in("tokens", expire=True)
    await s.resize()


# --- preflight


def spoiled(word: str, *, right_pin: str | None = None, **changes: str | None) -> Action:
    """The account's Secret is as it should not be; nothing is sent until it is put right, with a PIN if the account has one."""

    async def action(s: Trial) -> None:
        await s.put_account(**changes)
        await s.resize()
        assert SECRET in await s.word("Stalled", word)
        assert s.reason("CertificateValid") == word
        assert await s.made() == []
        await s.put_account(pin=right_pin)

    return action


def expires_soon(certificate: str, expires_at: str) -> Action:
    """The certificate may still be sent, and a person is notified."""

    async def action(s: Trial) -> None:
        await s.put_account(certificate=certificate, expiresAt=expires_at)
        await s.word("CertificateValid", "CertificateExpiresSoon")
        await s.resize()
        await s.rest()
        await s.put_account()

    return action


async def secret_missing(s: Trial) -> None:
    """There is no Secret of the account, until there is."""
    await s.kubectl("delete", "secret", SECRET)
    await s.resize()
    assert SECRET in await s.word("Stalled", "SecretMissing")
    assert s.reason("CertificateValid") == "SecretMissing"
    assert await s.made() == []
    await s.put_account()


async def shows_facts_only(s: Trial) -> None:
    """The status says what is known of the certificate, and nobody says what is in it."""
    # The Secret is read again within seconds; until then the facts may be those of the one before.
    await s.until(lambda _: s.status().get("certificate", {}).get("fingerprint") == fingerprint(s.right), "the fingerprint")
    shown, known = s.status()["certificate"], read(s.right)
    assert shown["expiresAt"] == "2040-01-01T00:00:00Z"
    assert (shown["serial"], shown["verifiedName"]) == (str(known.serial), known.verified_name)
    assert known.issued_at is not None
    assert shown["issuedAt"] == f"{known.issued_at:%Y-%m-%dT%H:%M:%SZ}"
    assert s.seen.condition(s.namespace, "acme", "CertificateValid")["status"] == "True"
    assigned = json.dumps([s.cluster(), await s.events()]) + s.lane_harness.operator_log()
    blob = decode(s.right)
    for spelled in (s.right, s.right[:40], blob.hex(), blob[-64:].hex(), base64.b64encode(blob[-30:]).decode()):
        assert spelled not in assigned


async def refused_then_put_right(s: Trial) -> None:
    """The certificate is a wrong one: said, not sent again although the Secret changes elsewhere, and right again with the right one."""
    good = await _refused(s)
    await _changed_elsewhere(s)
    assert len(await s.made()) == 1
    s.right = good
    await s.put_account()


async def refused_for_something_else(s: Trial) -> None:
    """The client rejects the call with words that nobody knows: as nobody knows what they mean, just this is not sent again."""
    await s.stand_in("certificate", fingerprint=None)
    await s.go_wrong(fault="error", status=400, code=1009)
    await s.resize()
    await s.word("Stalled", "CertificateRejected")
    await _changed_elsewhere(s)
    assert len(await s.made()) == 1
    s.right = s.new_certificate()
    await s.put_account()


async def registration_closed(s: Trial) -> None:
    """WhatsApp takes no call of this number, under a status that says something else; the certificate stays good."""
    await s.go_wrong(fault="registration_closed", status=500)
    await s.resize()
    assert "Meta's support" in await s.word("Stalled", "RegistrationClosed")
    assert s.reason("CertificateValid") == "Valid"
    assert len(await s.made()) == 1
    await s.put_account(expiresAt="2039-06-01T00:00:00Z")


async def asked_for_a_pause(s: Trial) -> None:
    """A client that is overloaded says for how long it wants to be left alone."""
    await s.go_wrong(fault="busy", status=503, retry_after="4")
    await s.resize()
    first, second = await s.until_made(2)
    assert seconds_between(first["at"], second["at"]) >= 4


async def refused_then_taken_back(s: Trial) -> None:
    """The client is logged off by a wrong certificate; the user goes back to the old number and puts the certificate right."""
    good = await _refused(s)
    await s.resize(s.a)
    await s.until(lambda _: s.cluster()["metadata"]["generation"] == s.status()["observedGeneration"], "an observation of the old number")
    assert s.reason("Ready") == s.reason("Stalled") == "CertificateRejected"
    s.right = good
    await s.put_account()
    await s.until(lambda _: s.status()["certificate"]["fingerprint"] == fingerprint(good), "the new fingerprint", LONG)


def accepted_in_vain(**fault: Any) -> Action:
    """The client says yes and does nothing: GET has the last word, and the call is made again, but not before it is settled."""

    async def action(s: Trial) -> None:
        await s.go_wrong(**fault)
        await s.resize()
        await made_again(s)

    return action


async def refused_over_a_restart(s: Trial) -> None:
    """As before, and the next operator does not send it either."""
    good = await _refused(s)
    await s.kill_leader()
    await _changed_elsewhere(s)
    await s.word("Stalled", "CertificateRejected")
    assert len(await s.made()) == 1
    s.right = good
    await s.put_account()


async def _refused(s: Trial) -> str:
    good, old = s.new_certificate(), fingerprint(s.right)
    await s.stand_in("certificate", fingerprint=fingerprint(good))
    await s.resize()
    message = await s.word("Stalled", "CertificateRejected")
    assert old[:12] in message
    assert SECRET in message
    assert s.reason("Ready") == s.reason("CertificateValid") == "CertificateRejected"
    assert s.status()["certificate"]["refusedFingerprint"] == old
    return good


async def _changed_elsewhere(s: Trial) -> None:
    """The Secret changes but for its certificate, and the operator has seen it."""
    await s.put_account(expiresAt="2039-01-01T00:00:00Z")
    await s.until(lambda _: s.status()["certificate"].get("expiresAt") == "2039-01-01T00:00:00Z", "the new expiresAt")


def pin(sent: str | None) -> Action:
    """Two-step verification with another PIN than the one that is sent."""

    async def action(s: Trial) -> None:
        await s.stand_in("pin", pin=PIN)
        await s.put_account(pin=sent)
        await s.resize()
        assert SECRET in await s.word("Stalled", "PinRejected")
        assert len(await s.made()) == 1
        await s.put_account(pin=PIN)
        await s.rest()
        await _without_pin(s)

    return action


async def pin_malformed(s: Trial) -> None:
    """A PIN that is none is not even sent."""
    await s.stand_in("pin", pin=PIN)
    await spoiled("PinMalformed", right_pin=PIN, pin="73918")(s)
    await s.rest()
    await _without_pin(s)


async def _without_pin(s: Trial) -> None:
    assigned = json.dumps([s.cluster(), await s.events()])
    assert PIN not in assigned
    await s.stand_in("pin", pin=None)
    await s.put_account()


async def registered_lately(s: Trial) -> None:
    """Within seven days of registration it goes without a certificate."""
    assert s.reason("CertificateValid") == "Valid"
    await s.resize()
    assert (await s.until_made())[0]["certificate"] is None


async def registered_long_ago(s: Trial) -> None:
    """Later it does not, until there is a certificate."""
    await s.resize()
    await s.word("Stalled", "RegistrationTooOld")
    assert await s.made() == []
    await s.put_account()
    await s.event("RegistrationTooOld")
    await s.patch(account={"secretRef": {"name": SECRET}})
    await s.rest()
    assert not await s.events("SecretMissing"), "a Secret that was not looked for yet is not missing"


async def too_few_coreapps(s: Trial) -> None:
    """The pods are not there; the call waits for as many as there are to be shards."""
    await _allow_pods(s, 4)
    await s.resize(4)
    assert "2 of 5 Coreapps are ready" in await s.word("Reconciling", "AwaitingCoreapps")
    assert await s.made() == []
    await s.kubectl("delete", "resourcequota", "few")
    assert (await s.until_made())[0]["coreapps"] == 5


async def without_spares(s: Trial) -> None:
    """Enough for the shards, but the spares do not come: after the time for a restart it goes without them."""
    await _allow_pods(s, 4)
    await s.resize(2)
    await s.word("Reconciling", "AwaitingCoreapps")
    assert (await s.until_made())[0]["coreapps"] == 2
    await s.kubectl("delete", "resourcequota", "few")


async def taken_back_before_ready(s: Trial) -> None:
    """The user thinks better of it while pods are awaited: nothing is sent."""
    await _allow_pods(s, 4)
    await s.resize(4)
    await s.word("Reconciling", "AwaitingCoreapps")
    await s.resize(s.a)
    await s.rest()
    await s.kubectl("delete", "resourcequota", "few")


async def _allow_pods(s: Trial, count: int) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": str(count)}}}
    await s.kubectl("create", "-f", "-", input=json.dumps(quota))
    await _until_kubectl(s, "jsonpath={.status.hard.pods}", str(count), "resourcequota", "few")


async def _until_kubectl(s: Trial, output: str, wanted: str, *what: str) -> None:
    deadline = time.monotonic() + LONG
    while (got := await s.kubectl("get", *what, "-o", output)) != wanted:
        assert time.monotonic() < deadline, f"{what} shows {got!r} instead of {wanted!r}"
        await asyncio.sleep(0.1)


async def services_denied(s: Trial) -> None:
    """A policy takes no Service of a new shard: the call waits, for without it nobody could serve that shard."""
    name = f"{s.namespace}.example.com"
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": s.namespace}}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}
    validation = {"expression": "!object.metadata.name.startsWith('acme-shard-')", "message": "no more Services here", "reason": "Invalid"}
    policy, binding = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
    for kind, spec in (
        (policy, {"matchConstraints": {**here, "resourceRules": [rule]}, "validations": [validation]}),
        (binding, {"policyName": name, "validationActions": ["Deny"]}),
    ):
        obj = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        await s.kubectl("create", "-f", "-", input=json.dumps(obj))
    attempt = ("create", "service", "clusterip", "acme-shard-31", "--tcp=80", "--dry-run=server")
    async with asyncio.timeout(LONG):
        # The API server learns of a policy a moment after it was made.
        with suppress(LocalKubeError):
            while await s.kubectl(*attempt):
                await asyncio.sleep(0.1)
    await s.resize()
    assert "no more Services here" in await s.word("Stalled", "ChangeRejected")
    assert await s.made() == []
    await s.kubectl("delete", policy, name)
    await s.kubectl("delete", binding, name)


async def webapp_down(s: Trial) -> None:
    """The Webapp hangs; the pods are scaled, the call waits."""
    webapp = s.pods("webapp")[0]["metadata"]["name"]
    async with s.control() as control:
        await control.hang(s.namespace, webapp)
    await s.word("Ready", "WebappUnavailable")
    await s.resize()
    await s.until(lambda _: s.status().get("observedGeneration") == s.cluster()["metadata"]["generation"], "the annotation was observed")
    assert await s.made() == []
    async with s.control() as control:
        await control.resume(s.namespace, webapp)


# --- drift


def drifts(shards: int | None = None) -> Action:
    """Another client sets the shards; with ``drift: Repair`` it is undone."""

    async def action(s: Trial) -> None:
        await s.patch(reshard={"drift": "Repair"})
        await s.rest()
        await s.stand_in("shards", n=s.b if shards is None else shards)
        await s.until_made()
        await s.rest()
        await s.patch(reshard={"drift": "Report"})

    return action


async def _drift_found(s: Trial) -> None:
    await s.stand_in("shards", n=s.b)
    message = await s.word("Stalled", "ShardsDrifted")
    assert f"from {s.a} to {s.b}" in message
    assert await s.made() == []


async def drift_adopted(s: Trial) -> None:
    """The user takes over what another client has set: GET is equal, nothing is sent."""
    await _drift_found(s)
    await s.resize()


async def drift_repaired_later(s: Trial) -> None:
    """The user has it undone."""
    await _drift_found(s)
    await s.patch(reshard={"drift": "Repair"})
    await s.until_made()
    await s.rest()
    await s.patch(reshard={"drift": "Report"})


# --- another mind


async def taken_back_while_busy(s: Trial) -> None:
    """The server is busy; before it is not, the request is gone."""
    await s.go_wrong(fault="busy", count=1000)
    await s.resize()
    await s.until_made(2)
    await s.resize(s.a)


async def taken_back_in_flight(s: Trial) -> None:
    """The call is under way: its end is seen, then comes the way back."""
    await s.go_wrong(fault="slow", seconds=1.5)
    await s.resize()
    await s.until_made()
    await s.resize(s.a)
    await s.until_made(2)


async def taken_back_in_the_restart(s: Trial) -> None:
    """The Coreapps restart."""
    async with s.resize_with_slow_restart():
        await s.resize(s.a)
        await s.until_made(2)


async def taken_back_while_unknown(s: Trial) -> None:
    """Nobody knows whether the call was taken; it was not."""
    await s.go_wrong(fault="timeout")
    await s.resize()
    await s.until_made()
    await s.resize(s.a)


async def taken_back_while_unknown_and_late(s: Trial) -> None:
    """Nobody knows whether the call was taken; it is, seconds later."""
    await s.go_wrong(fault="late", seconds=LATE)
    await s.resize()
    await s.until_made()
    await s.resize(s.a)
    await s.until_made(2)


async def edited_often(s: Trial) -> None:
    """Several requests in a row, sooner than any but the last may be carried out."""
    await s.patch(shards=4, reshard={"windows": [SHUT]})
    await s.resize(8)
    await s.patch(shards=2, reshard={"windows": None})


# --- the restart


async def deleted_in_the_restart(s: Trial) -> None:
    """A holder's pod is deleted while all restart: that is no part of the restart, it is replaced before the others are back."""
    async with s.resize_with_slow_restart():
        before, holder = len(s.seen.commits), s.holder(0)
        uid = s.uid(holder)
        await s.delete_pod(holder)
        commit = await s.commit(0, before)
        assert commit.holder_uid != uid
    versions = s.seen.versions("WhatsAppCluster", s.namespace, "acme")
    last = max(number for number, obj in enumerate(versions) if "operation" in obj.get("status", {}))
    over = int(versions[last + 1]["metadata"]["resourceVersion"])
    assert commit.version < over, "it was replaced before the others were back"
    moved = next(one for one in s.status()["recentHandovers"] if one["shard"] == 0)
    assert moved["evidence"] == "PodDeleted"


async def never_back(s: Trial) -> None:
    """A Coreapp does not come back in time: it is named, and its shard moves."""
    late = s.holder(0)
    await s.fault(call="restart", fault="slow", pod=late, seconds=RESTART_TIMEOUT + 30)
    await s.resize()
    message = await s.word("Reconciling", "RestartOverdue")
    assert late in message
    await s.until(lambda _: s.holder(0) not in {"", late} if 0 in s.seen.holders(s.namespace, "acme") else False, "another holder")


async def packed_low(s: Trial) -> None:
    """A failover moved a holder up; it is moved down before its pod goes."""
    highest = "acme-coreapp-2"
    for shard in (1, 0):
        # The only spare takes over: first the highest Coreapp must be that spare, no matter what it is now, then it gets shard 0.
        if (s.holder(1) == highest) if shard else (s.holder(0) != highest):
            before = len(s.seen.commits)
            await s.delete_pod(s.holder(shard))
            await s.commit(shard, before)
            await s.rest()
    assert s.holder(0) == highest
    before = len(s.seen.commits)
    await s.resize(1)
    await s.until(lambda _: s.status().get("shards") == 1 and s.is_at_rest(), "one shard at rest")
    low = {"acme-coreapp-0", "acme-coreapp-1"}
    moved = await s.commit(0, before)
    workloads = s.seen.versions("StatefulSet", s.namespace, "acme-coreapp")
    larger = max(number for number, obj in enumerate(workloads) if obj["spec"]["replicas"] == 3)
    # By the API server's own order: each kind is watched on its own, and what happened later may be seen sooner.
    assert (moved.holder in low, moved.version < int(workloads[larger + 1]["metadata"]["resourceVersion"])) == (True, True)
    packed = s.status()["recentHandovers"][0]
    assert (packed["kind"], packed["evidence"], packed["from"], packed["to"] in low) == ("Switchover", "Consolidated", highest, True)
