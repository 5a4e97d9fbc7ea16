"""The observed state as conditions, with one table for each. They report what is, never what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from . import evidence, manifests, objections, sentences
from .actions import Plan, State
from .facts import Facts
from .names import Ref
from .reasons import Reason
from .snapshot import Evidence, Route

EXPIRES_SOON = timedelta(days=30)
UNRESPONSIVE_AFTER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect of the state: its status, its reason and the sentence."""

    type: str
    status: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ConditionRule:
    """One entry of a condition's table: the first whose ``when`` holds applies."""

    reason: Reason
    status: str
    when: Callable[[Facts], bool]
    message: Callable[[Facts], str]


# --- one shard --------------------------------------------------------------------------------------------------------


def _is_moving(f: Facts, route: Route) -> bool:
    """Whether the shard will soon be served: its named holder is alive, or a standby can take over."""
    if f.failure(route) is None and route.holder_uid is not None:
        return True
    return not f.desired.manual and bool(f.successors(route))


def shard_state(f: Facts, route: Route) -> str:
    """Return ``Serving``, ``Moving`` or ``Unserved``."""
    if f.is_served(route):
        return "Serving"
    return "Moving" if _is_moving(f, route) else "Unserved"


def _in_state(f: Facts, state: str) -> list[Route]:
    return [route for route in f.routes if shard_state(f, route) == state]


def _all_served(f: Facts) -> bool:
    expected = f.shards if f.shards is not None else f.settled_shards
    return expected is not None and len(_in_state(f, "Serving")) >= expected


def _name_shards(f: Facts, routes: Iterable[Route]) -> str:
    return "; ".join(f"shard {route.shard}: {route.holder or 'no holder'}{_why(f, route)}" for route in routes)


def _why(f: Facts, route: Route) -> str:
    if route.copied_by is not None:
        return f" ({Evidence.LABEL_CONFLICT} with pod {route.copied_by}: remove its label {manifests.EPOCH_LABEL})"
    why: str | None = f.failure(route)
    if why == Evidence.POD_DELETED:
        # It may exist, but with another owner.
        refs = manifests.coreapp_statefulset(f.desired.key.name), Ref("Pod", str(route.holder))
        why = next((f"{ref.kind} {ref.name} is not owned by this cluster" for ref in refs if ref in f.snapshot.name_conflicts), why)
    if why in {None, Evidence.HOLDER_DISAGREES} and route in f.rejected:
        why = Reason.EPOCH_REJECTED
    return f" ({why})" if why else ""


def _is_behind(f: Facts, route: Route) -> bool:
    pod = f.holder(route)
    return pod is not None and f.failure(route) is None and evidence.is_behind(f, route, pod)


def _describe_moving(f: Facts) -> Iterator[str]:
    moving = _in_state(f, "Moving")
    behind = [route for route in moving if _is_behind(f, route)]
    if others := [route for route in moving if route not in behind]:
        yield f"Being taken over: {_name_shards(f, others)}."
    for route in behind:
        # It may be about to restart, so it gets the time of a restart (docs/failover.md).
        then = f"another Coreapp takes over after {f.desired.restart_timeout.total_seconds():g} s"
        if f.desired.manual:
            then = "failover.mode is Manual, so only a switchover moves it"
        yield f"Not served: {_name_shards(f, [route])}, which does not run with the client's number of shards; {then}."
    if not moving:
        yield "Being taken over: shards that have no Service yet."


def _describe_held_back(f: Facts) -> str:
    return "; ".join(f"shard {route.shard}: {route.holder} ({why})" for route, why in evidence.held_back(f))


def failures_tolerated(f: Facts) -> int:
    """Return how many Coreapps may fail now without a shard going unserved."""
    waiting = sum(not f.is_served(route) for route in f.routes) if f.routes else f.desired.shards
    return max(0, len(f.standbys()) - waiting)


# --- the tables of the conditions ----------------------------------------------------------------------------------------


def _is_restarting(f: Facts) -> bool:
    return f.restart_is_expected and not _all_served(f)


def _deadline(f: Facts) -> str:
    operation = f.operation
    if operation is None:
        return ""
    back = sum(f.has_restarted(pod) for pod in f.snapshot.coreapps)
    return (
        f"Set Shards {operation.origin or '?'} -> {operation.to}: {back} of {len(f.snapshot.coreapps)} Coreapps are back, deadline "
        f"{manifests.timestamp(operation.deadline)}."
    )


READY: tuple[ConditionRule, ...] = (
    ConditionRule(Reason.BANNED, "False", lambda f: f.is_banned, lambda _: "The client says that the account is banned."),
    ConditionRule(
        Reason.CERTIFICATE_REJECTED,
        "False",
        lambda f: f.is_logged_off,
        lambda f: (
            one.why(f)
            if (one := objections.objection_to_account(f)) is not None and one.name == Reason.CERTIFICATE_REJECTED
            else "The client is logged off since a wrong certificate was rejected; Set Shards with the right one logs it on again."
        ),
    ),
    ConditionRule(Reason.RESTART_OVERDUE, "False", lambda f: f.restart_is_overdue and not _all_served(f), _deadline),
    ConditionRule(Reason.RESTARTING, "False", _is_restarting, _deadline),
    ConditionRule(
        Reason.BOOTSTRAPPING,
        "False",
        # It lasts until all desired shards exist, even if some are served already.
        lambda f: f.settled_shards is None,
        lambda _: "The client is being set up for the first time.",
    ),
    ConditionRule(
        Reason.SELF_CHECK_FAILED,
        "Unknown",
        lambda f: any(evidence.held_back(f)),
        lambda f: f"{_describe_held_back(f)}; but {f.self_check}: until that is over, the operator acts only on certain evidence.",
    ),
    ConditionRule(
        Reason.DELETING,
        "False",
        # A finalizer may keep the resource for long after its pods: nothing failed, and nothing takes over.
        lambda f: f.desired.deleting and not _all_served(f) and not _in_state(f, "Moving"),
        sentences.deleting,
    ),
    ConditionRule(
        Reason.UNSERVED,
        "False",
        lambda f: bool(_in_state(f, "Unserved")),
        lambda f: f"No Coreapp can take {_name_shards(f, _in_state(f, 'Unserved'))}.",
    ),
    ConditionRule(
        Reason.FAILING_OVER,
        "False",
        lambda f: not _all_served(f),
        lambda f: " ".join(_describe_moving(f)),
    ),
    ConditionRule(
        Reason.WEBAPP_UNAVAILABLE,
        "False",
        lambda f: not f.webapp_ready,
        lambda f: f"No Webapp is ready, so messages cannot be submitted{sentences.pending(f)}.",
    ),
    ConditionRule(
        Reason.DISCONNECTED,
        "False",
        lambda f: f.has_stayed_cut_off,
        lambda _: "No Coreapp has a connection to WhatsApp: all report gateway_status disconnected. Is the client logged off or banned?",
    ),
    ConditionRule(
        Reason.WEBAPP_NOT_RESPONDING,
        "Unknown",
        lambda f: (
            f.snapshot.client.unresponsive_since is not None and f.snapshot.now - f.snapshot.client.unresponsive_since >= UNRESPONSIVE_AFTER
        ),
        lambda f: f"The Webapp does not answer: {f.snapshot.client.problem}{sentences.pending(f)}",
    ),
    ConditionRule(Reason.SERVING, "True", lambda _: True, lambda f: f"{_served_text(f)}{_spare_text(f)}."),
)


def _served_text(f: Facts) -> str:
    count = f.shards or f.settled_shards
    return "The one shard is served" if count == 1 else f"All {count} shards are served"


def _spare_text(f: Facts) -> str:
    count = failures_tolerated(f)
    if f.desired.spares == 0:
        return ""
    return f"; {count} failure{'s' if count != 1 else ''} can be tolerated" if count else ", but no spare is left"


REDUNDANT: tuple[ConditionRule, ...] = (
    ConditionRule(
        Reason.NO_SPARES_REQUESTED,
        "True",
        lambda f: f.desired.spares == 0,
        lambda _: "spec.spares is 0: the shard of a failed Coreapp is unserved until that Coreapp is back.",
    ),
    ConditionRule(Reason.RESTARTING, "False", _is_restarting, _deadline),
    # No spare was lost: the first ones are still being created.
    ConditionRule(
        Reason.BOOTSTRAPPING, "False", lambda f: f.settled_shards is None, lambda _: "The client is being set up for the first time."
    ),
    ConditionRule(
        Reason.NO_SPARE_LEFT,
        "False",
        lambda f: failures_tolerated(f) == 0,
        lambda f: f"0 of {f.desired.spares} wanted spares are ready; the next failure leaves a shard unserved.",
    ),
    ConditionRule(
        Reason.SPARE_LOST,
        "False",
        lambda f: failures_tolerated(f) < f.desired.spares,
        lambda f: f"{failures_tolerated(f)} of {f.desired.spares} wanted spares are ready.",
    ),
    ConditionRule(
        Reason.SPARES_READY, "True", lambda _: True, lambda f: f"{failures_tolerated(f)} of {f.desired.spares} wanted spares are ready."
    ),
)


def _soon(f: Facts) -> bool:
    at = f.snapshot.account.expires_at if f.snapshot.account else None
    return at is not None and at - f.latest < EXPIRES_SOON


# What is reported while there is no objection to sending the certificate.
CERTIFICATE_VALID: tuple[ConditionRule, ...] = (
    ConditionRule(
        Reason.READ_FAILED,
        "Unknown",
        objections.is_unread,
        lambda f: f"The Secret of the account could not be read: {f.snapshot.unread.get('Secret', 'not yet')}",
    ),
    ConditionRule(
        Reason.SIMULATED, "True", lambda f: f.desired.account is None, lambda _: "The simulator's made-up account needs no certificate."
    ),
    ConditionRule(
        Reason.CERTIFICATE_EXPIRES_SOON,
        "True",
        _soon,
        lambda f: f"The certificate expires at {objections.expiry_of(f)}; put a new one into the Secret before then.",
    ),
    ConditionRule(
        Reason.VALID,
        "True",
        lambda _: True,
        lambda f: (
            f"Set Shards could be sent; the certificate expires at {objections.expiry_of(f)}."
            if objections.expiry_of(f)
            else "Set Shards could be sent without a certificate until 7 days after registration."
        ),
    ),
)


def _speak(kind: str, table: tuple[ConditionRule, ...], f: Facts) -> Condition:
    word = next(word for word in table if word.when(f))
    return Condition(type=kind, status=word.status, reason=word.reason, message=word.message(f))


def conditions(f: Facts, plan: Plan) -> tuple[Condition, ...]:
    """Return every condition of this release, each by its own table, independent of the rule that won. Pure."""
    ready = _speak("Ready", READY, f)
    if ready.reason == Reason.BOOTSTRAPPING and plan.decision.state is not State.READY:
        # The first number of shards is not settled yet: the rule that won is the step that it waits for.
        ready = replace(ready, reason=plan.decision.rule, message=plan.decision.why)
    redundant = _speak("Redundant", REDUNDANT, f)
    if redundant.reason == Reason.BOOTSTRAPPING:
        # The sentence is the same, because two sentences under one reason would be two Events.
        redundant = replace(redundant, reason=ready.reason, message=ready.message)
    return ready, _reconciling(plan), _stalled(plan), redundant, _certificate_valid(f)


def _reconciling(plan: Plan) -> Condition:
    """Say what is in progress, or what a person must act on before the rest can continue."""
    held_up_by = plan.stuck if plan.is_held_up else None
    if plan.moving is not None:
        return Condition(type="Reconciling", status="True", reason=plan.moving.rule, message=plan.moving.why)
    if held_up_by is not None:
        return Condition(type="Reconciling", status="False", reason=held_up_by.rule, message=held_up_by.why)
    return Condition(type="Reconciling", status="False", reason=Reason.UP_TO_DATE, message="Nothing to do.")


def _stalled(plan: Plan) -> Condition:
    """Say what a person must act on."""
    if plan.stuck is not None:
        return Condition(type="Stalled", status="True", reason=plan.stuck.rule, message=plan.stuck.why)
    if plan.ready is not None and plan.ready.rule == Reason.CHANGED_BY_ADMISSION:
        return Condition(type="Stalled", status="False", reason=plan.ready.rule, message=plan.ready.why)
    return Condition(type="Stalled", status="False", reason=Reason.UP_TO_DATE, message="Nothing waits for a person.")


def _certificate_valid(f: Facts) -> Condition:
    """Say whether the account's certificate could be sent, and if not, why."""
    objection = objections.objection_to_account(f) if f.desired.account is not None else None
    if objection is None:
        return _speak("CertificateValid", CERTIFICATE_VALID, f)
    status = "False" if objection.state is State.STUCK else "Unknown"
    return Condition(type="CertificateValid", status=status, reason=objection.name, message=objection.why(f))


def loudest(spoken: Iterable[Condition]) -> Condition:
    """Return the condition that matters most now."""
    by_type = {condition.type: condition for condition in spoken}
    ready, moving, stuck, redundant = (by_type[kind] for kind in ("Ready", "Reconciling", "Stalled", "Redundant"))
    order = (
        (stuck.status == "True", stuck),
        (ready.status != "True", ready),
        (redundant.reason == Reason.NO_SPARE_LEFT, redundant),
        (moving.status == "True", moving),
        *((one.status == "False", one) for one in by_type.values() if one not in {moving, stuck}),
    )
    return next((condition for holds, condition in order if holds), ready)
