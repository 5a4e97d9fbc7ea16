"""The checker is checked: for each law the operator is broken once, on purpose, and some seed must show it."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from whatsapp_operator.core import duties, evidence, facts, handovers, manifests, objections, operation, rules, status
from whatsapp_operator.core.model import Answer, Coreapp, Delete, Epoch, Evidence, Observed, Operation, Ref
from whatsapp_operator.shell import wabiz
from whatsapp_operator.shell.act import Hands
from whatsapp_operator.shell.kube import SERVICE, WAC, Conflict, NotFound
from whatsapp_operator.shell.observe import Observer
from whatsapp_operator.shell.reconcile import Reconciler

from .client import Fate
from .laws import EPOCH, LawBroken
from .operators import SimTethers
from .schedules import endure
from .world import World, simulate

Break = Callable[[pytest.MonkeyPatch], None]
Trial = Callable[[World], Coroutine[Any, Any, None]]


async def overlapping(world: World) -> None:
    await endure(world, overlapping=True, silent=60.0)


async def elected(world: World) -> None:
    await endure(world, silent=60.0)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A way to break the operator, the laws of which one must be seen broken, and the trial in which."""

    name: str
    broken: Break
    caught_as: tuple[str, ...]
    trial: Trial = overlapping

    def __str__(self) -> str:
        return self.name


# --- law 2 and what follows from it ----------------------------------------------------------------------------------------


def commit_without_the_version(patch: pytest.MonkeyPatch) -> None:
    real = manifests.commit_patch

    def loose(*arguments: Any) -> dict[str, Any]:
        body = real(*arguments)
        del body["metadata"]["resourceVersion"]
        return body

    patch.setattr(manifests, "commit_patch", loose)


def number_from_a_counter(patch: pytest.MonkeyPatch) -> None:
    count = itertools.count(1)
    patch.setattr(handovers, "Epoch", lambda _, random: Epoch(next(count), random))


def epochs_without_chance(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handovers, "Epoch", lambda n, _: Epoch(n, "same"))


def prepare_without_the_label_test(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifests, "_test", lambda pod: [{"op": "test", "path": "/metadata/uid", "value": pod.uid}])


def take_a_pending_label_without_a_touch(patch: pytest.MonkeyPatch) -> None:
    real = facts.Facts.claim
    patch.setattr(facts.Facts, "claim", lambda f, pod: "dead" if (claim := real(f, pod)) == "pending" else claim)


def commit_before_prepare(patch: pytest.MonkeyPatch) -> None:
    async def reversed_steps(self: Hands, look: Any, handovers: list[Any], memory: Any, outcome: Any) -> None:
        committed = await self._each(handovers, lambda one: self._commit(look, one, memory), outcome)
        await self._each(committed, lambda one: self._prepare(look, one), outcome)
        outcome.wrote |= bool(committed)

    patch.setattr(Hands, "_hand_over", reversed_steps)


def services_that_lead_somewhere_at_once(patch: pytest.MonkeyPatch) -> None:
    real = manifests.shard_service

    def open_door(want: Any, shard: int) -> dict[str, Any]:
        service = real(want, shard)
        del service["spec"]["selector"][EPOCH]
        service["spec"]["selector"] = {"app.kubernetes.io/component": "coreapp", manifests.CLUSTER_LABEL: want.key.name}
        return service

    patch.setattr(manifests, "shard_service", open_door)


# --- laws 4 to 7 --------------------------------------------------------------------------------------------------------


def replicas_follow_the_wish_alone(patch: pytest.MonkeyPatch) -> None:
    """Shrink before Set Shards and GET."""
    patch.setattr(facts.Facts, "needed_pods", property(lambda f: f.wanted_pods))
    patch.setattr(facts.Facts, "floor", property(lambda f: f.want.shards))
    rows = tuple(
        replace(
            row, when=lambda f: f.see.statefulset is not None and f.replicas != f.wanted_pods, then=lambda f: rules._scale(f, f.wanted_pods)
        )
        if row.name == "ScalingUp"
        else row
        for row in rules.ROWS
    )
    patch.setattr(rules, "ROWS", rows)


def shrink_without_looking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_may_shrink", lambda f: f.replicas > f.needed_pods)
    patch.setattr(facts.Facts, "too_high", property(lambda _: ()))


def set_shards_whoever_is_ready(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(operation, "may_call", lambda f: f.resize_is_wanted and not operation.is_calling(f))
    patch.setattr(rules, "ROWS", tuple(row for row in rules.ROWS if row.name != "AwaitingCoreapps"))


def no_note_before_the_call(patch: pytest.MonkeyPatch) -> None:
    async def forgetful(*_: object) -> bool:
        return True

    patch.setattr(Reconciler, "_note", forgetful)


def a_note_without_compare_and_swap(patch: pytest.MonkeyPatch) -> None:
    async def loose(self: Reconciler, look: Any, body: dict[str, Any], **_: object) -> Any:
        try:
            return await self._kube.patch_status(WAC, look.want.key.namespace, look.want.key.name, {"status": body})
        except (Conflict, NotFound):
            return None

    patch.setattr(Reconciler, "_write_status", loose)


def send_however_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(wabiz, "SEND_WITHIN", 1e9)


def post_again_after_no_answer(patch: pytest.MonkeyPatch) -> None:
    real = operation.judge

    def hasty(want: Any, see: Observed) -> Observed:
        judged = real(want, see)
        unknown = judged.operation is not None and judged.operation.answer is Answer.UNKNOWN
        return replace(judged, operation=None) if unknown else judged

    patch.setattr(operation, "judge", hasty)


def anybodys_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Observer, "_own_time", lambda _, operation, __: operation)


def settled_too_early(patch: pytest.MonkeyPatch) -> None:
    real = operation.next_operation

    def short(f: Any) -> Operation:
        operation = real(f)
        return replace(operation, settle_by=operation.started_at + timedelta(seconds=6))

    patch.setattr(operation, "next_operation", short)


# --- laws 8 to 14 ---------------------------------------------------------------------------------------------------------


def any_certificate_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(objections, "objection", lambda _: None)


def a_restart_excuses_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(facts.Facts, "is_excused", lambda *_: False)


def a_report_on_every_look(patch: pytest.MonkeyPatch) -> None:
    real = status.report

    def talkative(f: Any, plan: Any) -> dict[str, Any]:
        return {**real(f, plan), "lookedAt": manifests.timestamp(f.see.now)}

    patch.setattr(status, "report", talkative)


def tell_once_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(duties, "tells", lambda *_: iter(()))


def never_told_to_stop_or_start(patch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: Any) -> bool:
        return True

    patch.setattr(SimTethers, "tell", deaf)


def what_is_not_ours_is_ours(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifests, "is_owned", lambda *_: True)


def deletes_without_the_version(patch: pytest.MonkeyPatch) -> None:
    class Loose:
        """Makes deletions as the real thing does, but for their version."""

        def __call__(self, **parts: Any) -> Delete:
            return Delete(**{**parts, "resource_version": None})

        def of(self, pod: Coreapp) -> Delete:
            return self(ref=Ref("Pod", pod.name), uid=pod.uid)

    patch.setattr(duties, "Delete", Loose())


def the_pin_in_an_event(patch: pytest.MonkeyPatch) -> None:
    real = Hands.say

    async def indiscreet(self: Hands, look: Any, event: Any) -> None:
        await real(self, look, replace(event, message=f"{event.message} {look.credentials.pin}"))

    patch.setattr(Hands, "say", indiscreet)


def surplus_services_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(duties, "is_surplus", lambda *_: False)


def dead_labels_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(duties, "tidying", lambda *_: iter(()))


# --- failures -----------------------------------------------------------------------------------------------------------


def never_in_doubt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "doubt", lambda *_: None)


def every_node_lives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "is_node_alive", lambda *_: True)


def one_lost_probe_will_do(patch: pytest.MonkeyPatch) -> None:
    hasty = evidence.Proof(
        evidence=Evidence.PROBE_TIMEOUT, holds=lambda f, _, pod: pod is not None and not f.is_excused(pod) and pod.silent_since is not None
    )
    patch.setattr(evidence, "EVIDENCE", (*evidence.EVIDENCE, hasty))


def hung_holders_end_before_their_shard_moved(patch: pytest.MonkeyPatch) -> None:
    real = duties.replacing
    patch.setattr(duties, "replacing", lambda f: real(replace_holders(f)))


def replace_holders(f: Any) -> Any:
    """Return the same facts, in which no pod holds a shard."""
    return type("Forgetful", (), {"__getattr__": lambda _, name: frozenset() if name == "holder_uids" else getattr(f, name)})()


def replicas_without_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(facts.Facts, "made_good", property(lambda f: f.out_of_reach * 3))


async def deafness(world: World) -> None:
    """The operator cannot speak to any Coreapp for a while; then it stands still."""
    world.create(shards=8, spares=2)
    operator = world.operator()
    operator.lead(1)
    await world.until_done()
    await world.pause(20)
    operator.cut(world.cluster.park.nodes)
    await world.pause(30)
    operator.cut(())
    await world.until_done()


async def hangs_without_spares(world: World) -> None:
    """Holders hang, and nobody can take over."""
    world.create(shards=2, spares=0)
    world.operator().lead(1)
    await world.until_done()
    await world.pause(15)
    for shard in (0, 1):
        machine = world.holder(shard)
        if machine is not None:
            world.cluster.hang(machine)
        await world.until_done()


async def certificates(world: World) -> None:
    """A certificate that is about to expire, then the wrong one, then the right one."""
    right, wrong = (base64.b64encode(word).decode() for word in (b"the right certificate", b"the wrong certificate"))
    world.account.right_certificate = right
    world.put_account_secret(certificate=wrong, expiresAt="2027-01-04T13:00:00Z", pin="482913")
    world.create(shards=2, account={"countryCode": "1", "phoneNumber": "6315550000", "secretRef": {"name": "account"}})
    world.operator().lead(1)
    await world.pause(30)
    world.put_account_secret(certificate=wrong, expiresAt="2027-12-31T00:00:00Z", pin="482913")
    await world.pause(30)
    world.put_account_secret(certificate=right, expiresAt="2027-12-31T00:00:00Z", pin="482913")
    await world.until_done()
    await world.stays_silent(60.0)


async def slow_logins(world: World) -> None:
    """The token is forgotten just before each call, and the Webapp takes its time."""
    world.create(shards=1)
    world.operator().lead(1)
    await world.until_done()
    world.api_slow = 0.6
    for shards in (2, 4, 1, 2, 1):
        world.edit(shards=shards)
        for _ in range(40):
            await world.pause(0.25)
            world.account.tokens.clear()
    world.api_slow = 0.0
    await world.until_done()


async def unheard_answers(world: World) -> None:
    """Calls that nobody hears of and that take effect late."""
    world.create(shards=1)
    world.operator().lead(1)
    await world.until_done()
    world.account.fates.extend([Fate(kind="timeout", applied=12.0), Fate(kind="reset", applied=None)])
    world.edit(shards=2)
    await world.until_done()


async def a_foreign_service(world: World) -> None:
    """Somebody else's Service has our labels and a name that a shard needs."""
    labels = {manifests.CLUSTER_LABEL: "acme", manifests.SHARD_LABEL: "0"}
    meta = {"namespace": "default", "name": "acme-shard-0", "labels": labels}
    world.server.create("squatter", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": "other"}}})
    world.create(shards=1)
    world.operator().lead(1)
    await world.pause(30)
    world.server.delete("user", SERVICE, ("default", "acme-shard-0"))
    await world.until_done()


async def resizes(world: World) -> None:
    """There and back again, with a holder that fails over to a high ordinal."""
    world.create(shards=1)
    world.operator().lead(1)
    await world.until_done()
    for shards in (4, 1, 2, 1):
        world.edit(shards=shards)
        await world.until_done()
        machine = world.holder(0)
        if machine is not None:
            world.delete_pod(machine)
        await world.pause(0.5)
    await world.until_done()
    await world.stays_silent(60.0)


MUTANTS = (
    Mutant("commit without the version", commit_without_the_version, ("law 2",)),
    Mutant("n from a counter", number_from_a_counter, ("law 2",)),
    Mutant("epochs without chance", epochs_without_chance, ("law 2", "law 1 ")),
    Mutant("prepare without the label test", prepare_without_the_label_test, ("law 2",)),
    Mutant("take a pending label without a touch", take_a_pending_label_without_a_touch, ("law 2",)),
    Mutant("commit before prepare", commit_before_prepare, ("law 2",)),
    Mutant("new Services lead somewhere", services_that_lead_somewhere_at_once, ("law 1 ", "law 2"), resizes),
    Mutant("replicas follow the wish", replicas_follow_the_wish_alone, ("law 4",), resizes),
    Mutant("shrink without looking", shrink_without_looking, ("law 7",), elected),
    Mutant("Set Shards whoever is ready", set_shards_whoever_is_ready, ("law 5",), resizes),
    Mutant("no note before the call", no_note_before_the_call, ("law 5",), resizes),
    Mutant("a note without compare-and-swap", a_note_without_compare_and_swap, ("law 5",), resizes),
    Mutant("send however late", send_however_late, ("law 5",), slow_logins),
    Mutant("POST again after no answer", post_again_after_no_answer, ("law 6",), unheard_answers),
    Mutant("settled too early", settled_too_early, ("law 6", "law 4"), unheard_answers),
    Mutant("anybody's clock is believed", anybodys_clock_is_believed, ("law 6", "law 4", "not within"), elected),
    Mutant("any certificate will do", any_certificate_will_do, ("law 8",), certificates),
    Mutant("a restart excuses nothing", a_restart_excuses_nothing, ("law 9",), resizes),
    Mutant("a report on every look", a_report_on_every_look, ("law 11",), resizes),
    Mutant("tell once only", tell_once_only, ("not within",), elected),
    Mutant("tell nobody", never_told_to_stop_or_start, ("not within",), resizes),
    Mutant("the PIN in an event", the_pin_in_an_event, ("law 13",), certificates),
    Mutant("what is not ours is ours", what_is_not_ours_is_ours, ("law 14",), a_foreign_service),
    Mutant("deletes without the version", deletes_without_the_version, ("law 14",), resizes),
    Mutant("surplus Services stay", surplus_services_stay, ("not within",), resizes),
    Mutant("dead labels stay", dead_labels_stay, ("not within",), resizes),
    Mutant("never in doubt", never_in_doubt, ("law of doubt",), deafness),
    Mutant("every node lives", every_node_lives, ("law of hung pods",), elected),
    Mutant("one lost probe will do", one_lost_probe_will_do, ("law of failures",), overlapping),
    Mutant("hung holders end first", hung_holders_end_before_their_shard_moved, ("law of hung pods",), hangs_without_spares),
    Mutant("replicas without bound", replicas_without_bound, ("law 4",), elected),
)
MOST_SEEDS = 500


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_broken_operator_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.broken(monkeypatch)
    for seed in range(MOST_SEEDS):
        try:
            simulate(mutant.trial, seed)
        except (LawBroken, AssertionError) as found:
            head = str(found).splitlines()[0]
            assert any(law in head for law in mutant.caught_as), head
            return
    pytest.fail(f"not caught in {MOST_SEEDS} seeds")


TRIALS: tuple[Trial, ...] = (
    overlapping,
    elected,
    certificates,
    slow_logins,
    unheard_answers,
    a_foreign_service,
    resizes,
    deafness,
    hangs_without_spares,
)


@pytest.mark.parametrize("trial", TRIALS)
def test_the_operator_as_it_is_passes_the_same_trials(trial: Trial) -> None:
    for seed in range(3):
        simulate(trial, seed)
