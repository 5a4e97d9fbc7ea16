"""THE table. Whatever changes what the cluster does is decided in this file, in the order in which it is written.

``plan`` walks ``ROWS`` from the top. The first row whose ``when`` holds wins and says what is done; failover stands above order, so
that a resize that waits never delays a failover. The first matching row that is ``Stuck`` and the first that is still moving are kept
beside it: each condition answers its own question, whichever row won.

A row's name is the condition's reason, the event's reason, the metric's label and the test's name: grep one word, find everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from . import manifests, windows
from .facts import Facts
from .model import (
    SHARD_COUNTS,
    Action,
    Anchor,
    Annotate,
    Answer,
    Apply,
    Ask,
    Call,
    Coreapp,
    Create,
    Delete,
    Desired,
    Epoch,
    Evidence,
    GenerateSecret,
    Handover,
    Login,
    Observed,
    Operation,
    Plan,
    Ref,
    Refusal,
    Relabel,
    Route,
    Say,
    Scale,
    SetShards,
    State,
    Strip,
    Switchover,
    Tell,
    Touch,
    Verdict,
)

REGISTRATION_GRACE = timedelta(days=7)
"""How long after registration Set Shards may go without a certificate (multiconnect-page.txt, "Parameters", cert)."""


def _nothing(_: Facts) -> tuple[Action, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule: when it holds, what is then done, and the sentence for the user."""

    name: str
    state: State
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    then: Callable[[Facts], Iterable[Action]] = _nothing


# --- certificates: may Set Shards be sent? ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A reason not to send a certificate (DESIGN law 8), and the sentence for the user."""

    name: str
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]


def _secret(f: Facts) -> str:
    return f.want.account.secret_name or "" if f.want.account else ""


def _missing_secret(f: Facts) -> str | None:
    account = f.see.account
    if account is not None and account.missing is not None:
        return f"{account.missing} is not there, and spec.account.secretRef names it"
    return f.see.missing


def _has_certificate(f: Facts) -> bool:
    return f.see.account is not None and f.see.account.has_certificate


def _expires(f: Facts) -> str:
    at = f.see.account.expires_at if f.see.account else None
    return manifests.timestamp(at) if at else "unknown"


OBJECTIONS: tuple[Objection, ...] = (
    Objection(
        name="Banned",
        when=lambda f: f.see.banned,
        why=lambda _: "The client says that the account is banned; nothing is sent any more. Ask Meta's support, then make a new cluster.",
    ),
    Objection(
        name="SecretMissing",
        when=lambda f: _missing_secret(f) is not None,
        why=lambda f: f"{_missing_secret(f)}. Create it.",
    ),
    Objection(
        name="PinMalformed",
        when=lambda f: f.see.account is not None and not f.see.account.pin_well_formed,
        why=lambda f: f"Key pin of Secret {_secret(f)} is not six digits. Put the PIN of the two-step verification there, or remove it.",
    ),
    Objection(
        name="PinRefused",
        when=lambda f: (
            f.see.account is not None and f.see.account.version is not None and f.see.account.version == f.see.refused_pin_version
        ),
        why=lambda f: (
            "WhatsApp refused the PIN of the two-step verification, or asks for one; it is not tried again. "
            f"Put the right one under key pin of Secret {_secret(f)}."
        ),
    ),
    Objection(
        name="RegistrationTooOld",
        when=lambda f: (
            f.want.account is not None
            and not _has_certificate(f)
            and f.want.account.registered_at is not None
            and f.see.now - f.want.account.registered_at > REGISTRATION_GRACE
        ),
        why=lambda _: (
            "More than 7 days after registration Set Shards disconnects the client unless it carries a certificate. "
            "Copy it from Business Manager into key certificate of the Secret that spec.account.secretRef names."
        ),
    ),
    Objection(
        name="CertificateMissing",
        when=lambda f: f.want.account is not None and not _has_certificate(f) and f.want.account.registered_at is None,
        why=lambda f: f"Secret {_secret(f)} has no key certificate. Copy the certificate from Business Manager into it.",
    ),
    Objection(
        name="CertificateMalformed",
        when=lambda f: f.see.account is not None and _has_certificate(f) and f.see.account.certificate is None,
        why=lambda f: f"Key certificate of Secret {_secret(f)} is not base64. Copy it again from Business Manager, whole.",
    ),
    Objection(
        name="CertificateExpiryUnknown",
        when=lambda f: f.see.account is not None and _has_certificate(f) and f.see.account.expires_at is None,
        why=lambda f: (
            f"Key expiresAt of Secret {_secret(f)} is missing or no RFC 3339 time such as 2027-05-01T00:00:00Z. "
            "An expired certificate gets the account banned, so none is sent whose expiry is not known."
        ),
    ),
    Objection(
        name="CertificateExpired",
        when=lambda f: (
            f.see.account is not None
            and _has_certificate(f)
            and f.see.account.expires_at is not None
            and f.see.account.expires_at - f.see.now < f.want.tuning.certificate_margin
        ),
        why=lambda f: (
            f"The certificate in Secret {_secret(f)} expires at {_expires(f)}: too close or past, and an expired one gets the "
            "account banned. Put a new one there with its expiresAt."
        ),
    ),
    Objection(
        name="CertificateRefused",
        when=lambda f: (
            f.see.account is not None
            and f.see.account.certificate is not None
            and f.see.account.certificate.fingerprint == f.see.refused_fingerprint
        ),
        why=lambda f: (
            f"WhatsApp refused the certificate with fingerprint {(f.see.refused_fingerprint or '')[:12]}; it is not sent again. "
            f"Put the right one into Secret {_secret(f)}."
        ),
    ),
)


ALWAYS_SAID = frozenset({"Banned", "SecretMissing"})
"""Objections that a person must act on although no change of shards waits for it."""


def objection(f: Facts) -> Objection | None:
    """Return why no Set Shards may be sent with the account as it is, or None. Pure; the first that holds."""
    return next((one for one in OBJECTIONS if one.when(f)), None)


# --- handovers --------------------------------------------------------------------------------------------------------


def _handovers(f: Facts, moves: Iterable[tuple[Route, Evidence, bool]], *, only: Coreapp | None = None) -> Iterator[Handover]:
    """Pair routes with standbys, lowest shard first; each pod is taken once."""
    taken: set[str] = set()
    for route, evidence, planned in moves:
        choices = [pod for pod in f.standbys(route, taken) if only is None or pod.uid == only.uid]
        if evidence is Evidence.PACKED_LOW:
            choices = sorted((pod for pod in choices if pod.ordinal < f.wanted_pods), key=lambda pod: (pod.report is None, pod.ordinal))
        if choices:
            taken.add(choices[0].uid)
            yield Handover(
                route=route,
                to=choices[0],
                epoch=Epoch(route.version, f.see.nonce),
                evidence=evidence,
                planned=planned,
                shards=f.shards,
                old=f.holder(route),
                detected_at=f.see.now,
            )


def _failovers(f: Facts) -> tuple[Handover, ...]:
    return tuple(_handovers(f, ((route, why, False) for route, why in f.failed)))


def _assignments(f: Facts) -> tuple[Handover, ...]:
    return tuple(_handovers(f, ((route, Evidence.REQUESTED, True) for route in f.unassigned)))


def _packing(f: Facts) -> tuple[Handover, ...]:
    return tuple(_handovers(f, ((route, Evidence.PACKED_LOW, True) for route in f.too_high)))


def refusal(f: Facts, wish: Switchover) -> str | None:
    """Return why a switchover that an annotation asks for cannot be, or None. Pure."""
    route = next((route for route in f.routes if route.shard == wish.shard), None)
    if route is None:
        return f"There is no shard {wish.shard}; shards go from 0 to {(f.shards or 1) - 1}."
    if wish.to is None:
        return None if f.standbys(route) else f"No standby can take shard {wish.shard}."
    pod = next((pod for pod in f.see.coreapps if pod.name == wish.to), None)
    if pod is None:
        return f"There is no Coreapp {wish.to}."
    if pod.uid in f.holder_uids:
        return None if pod.uid == route.holder_uid else f"{wish.to} holds another shard."
    return None if any(one.uid == pod.uid for one in f.standbys(route)) else f"{wish.to} is not a ready standby."


def _switch_over(f: Facts) -> Iterator[Action]:
    """Obey the annotation so that a crash repeats nothing: first name the pod, then move, then take the wish off."""
    left: list[str] = []
    taken: set[str] = set()
    for wish in f.want.switchovers:
        route = next((route for route in f.routes if route.shard == wish.shard), None)
        pod = next((pod for pod in f.see.coreapps if pod.name == wish.to), None) if wish.to else None
        if pod is not None and f.claim(pod) == "pending":
            # Prepared by somebody whose commit has not come: the wish stands until that label is out of the way.
            left.append(f"{wish.shard}={pod.name}")
        elif (why := refusal(f, wish)) is not None:
            yield Say(reason="SwitchoverRefused", message=f"Shard {wish.shard} was not moved: {why}", warning=True)
        elif route is not None and pod is None:
            choices = f.standbys(route, taken)
            taken.update(one.uid for one in choices[:1])
            left.append(f"{wish.shard}={choices[0].name}" if choices else str(wish.shard))
        elif route is not None and pod is not None and pod.uid != route.holder_uid:
            left.append(f"{wish.shard}={pod.name}")
            if pod.uid not in taken:
                taken.add(pod.uid)
                yield from _handovers(f, [(route, Evidence.REQUESTED, True)], only=pod)
    if f.want.switchover_problem:
        yield Say(reason="SwitchoverRefused", message=f.want.switchover_problem, warning=True)
    if ",".join(left) != f.want.switchover_text:
        yield Annotate(name=manifests.SWITCHOVER_ANNOTATION, value=",".join(left) or None)


# --- order ------------------------------------------------------------------------------------------------------------


def _create_absent(f: Facts) -> Iterator[Action]:
    tls = manifests.tls_secret_name(f.want)
    for obj in f.absent:
        name = obj["metadata"]["name"]
        if obj["kind"] == "Secret":
            hosts = (manifests.server_name(f.want), manifests.webapp_host(f.want.key), manifests.webapp_name(f.want.key.name))
            yield GenerateSecret(
                obj=obj,
                recipe="tls" if name == tls else "admin",
                host_names=tuple(dict.fromkeys(hosts)),
            )
        elif Ref(obj["kind"], name) == manifests.coreapp_statefulset(f.want.key.name):
            yield Create(obj=manifests.coreapps(f.want, replicas=f.needed_pods))
        else:
            yield Create(obj=obj)


def _raised(f: Facts) -> int:
    """How many replicas there must be at once: what is wanted, or when paused only what already exists."""
    return f.floor if f.want.paused else f.needed_pods


def _scale(f: Facts, replicas: int) -> tuple[Action, ...]:
    workload = f.see.statefulset
    if workload is None:
        return ()
    ref = manifests.coreapp_statefulset(f.want.key.name)
    return (Scale(ref=ref, uid=workload.uid, resource_version=workload.resource_version, replicas=replicas),)


def _awaited(f: Facts) -> str:
    """Name the Coreapps that are not ready, with the scheduler's sentence if there is one."""
    ready = {pod.uid for pod in f.ready}
    late = [pod for pod in f.see.coreapps if pod.uid not in ready]
    names = ", ".join(pod.name for pod in late[:5]) or "pods that do not exist yet"
    because = next((pod.pending_because for pod in late if pod.pending_because), None)
    return f"waiting for {names}" + (f" ({because})" if because else "")


def _lacks_coreapps(f: Facts) -> bool:
    if not f.resize_is_wanted or len(f.ready) >= f.wanted_pods:
        return False
    without_spares = f.has_held_for("LacksCoreapps", f.want.restart_timeout) and len(f.ready) >= f.want.shards
    return not without_spares


def _may_call(f: Facts) -> bool:
    """DESIGN law 5, whole: read here once more although rows above have spoken of each part."""
    return (
        f.resize_is_wanted
        and f.want.shards in SHARD_COUNTS
        and len(f.ready) >= f.want.shards
        and f.replicas >= f.want.shards
        and f.shards_are_fresh
        and objection(f) is None
        and not (_secret(f) and f.see.account is None)
        and not f.window_is_shut
        and windows.problem(f.want.windows) is None
        and not _is_calling(f)
    )


def _is_calling(f: Facts) -> bool:
    call = f.see.client.call
    return call is not None and call.answer is None and not call.not_sent


def _call(f: Facts) -> tuple[Action, ...]:
    """Call; but first void every write that could still take away pods which the call needs (DESIGN law 4)."""
    workload = f.see.statefulset
    if workload is not None and f.see.anchored_for != f.want.shards:
        ref = manifests.coreapp_statefulset(f.want.key.name)
        return (Anchor(ref=ref, resource_version=workload.resource_version, shards=f.want.shards, nonce=f.see.nonce),)
    return (SetShards(operation=next_operation(f)),)


def next_operation(f: Facts) -> Operation:
    """Return the intent of the next Set Shards call. Pure: id and times come from the look."""
    earlier = f.operation if f.operation is not None and f.operation.to == f.want.shards else None
    tuning = f.want.tuning
    return Operation(
        id=f"{f.want.shards}-{f.see.nonce}",
        origin=f.shards,
        to=f.want.shards,
        leader_epoch=f.see.leader_epoch,
        started_at=f.see.now,
        deadline=f.see.now + f.want.restart_timeout,
        settle_by=f.see.now + tuning.call_timeout + f.want.restart_timeout + tuning.settle_grace,
        attempts=earlier.attempts + 1 if earlier is not None and earlier.answer is Answer.BUSY else 1,
    )


def _may_shrink(f: Facts) -> bool:
    """DESIGN law 7, and that there is no intent that could still bring the shards back (law 4)."""
    return (
        f.replicas > f.needed_pods
        and f.is_settled
        and not _is_calling(f)
        and f.shards_are_fresh
        and not f.missing
        and not f.too_high
        and not f.failed
        and not f.unassigned
    )


def _has_asked(f: Facts) -> bool:
    """Whether this process knows something of the client, be it that it is silent."""
    client = f.see.client
    known = client.asked_at is not None or client.silent_since is not None or client.login is Login.REFUSED
    return known or not f.webapp_ready or f.see.settled_shards is None


def _opening(f: Facts) -> str:
    at = windows.next_opening(f.want.windows, f.see.now)
    return manifests.timestamp(at) if at else "no time that is known"


def _span(f: Facts) -> str:
    return f"{f.operation.origin or '?'} -> {f.operation.to}" if f.operation else ""


def _times(f: Facts) -> str:
    attempts = f.operation.attempts if f.operation else 0
    return "once" if attempts == 1 else f"{attempts} times"


def _names(pods: Iterable[Coreapp]) -> str:
    return ", ".join(pod.name for pod in pods)


def _answer_is(f: Facts, *answers: Answer) -> bool:
    return f.operation is not None and f.operation.answer in answers


def _holds_back(f: Facts) -> bool:
    return f.want.paused and (f.resize_is_wanted or bool(f.changed) or f.replicas != f.wanted_pods)


ROWS: tuple[Row, ...] = (
    # --- guards
    Row(
        name="Deleting",
        state=State.READY,
        when=lambda f: f.want.deleting,
        why=lambda _: "The cluster is being deleted; its objects go with it.",
    ),
    # --- failover: above all order
    Row(
        name="FailingOver",
        state=State.WORKING,
        when=lambda f: not f.want.manual and bool(_failovers(f)),
        then=_failovers,
        why=lambda f: (
            "; ".join(
                f"Shard {move.route.shard}: {move.route.holder} failed ({move.evidence}), {move.to.name} is taking over"
                for move in _failovers(f)
            )
            + "."
        ),
    ),
    Row(
        name="SwitchoverRequested",
        state=State.WORKING,
        when=lambda f: bool(f.want.switchovers or f.want.switchover_problem) and f.shards is not None and f.operation is None,
        then=_switch_over,
        why=lambda f: (
            "Moving shards as annotation multiconnect.dev/switchover says: "
            + ", ".join(str(wish.shard) for wish in f.want.switchovers)
            + "."
        ),
    ),
    # --- order: what must exist
    Row(
        name="LoginRefused",
        state=State.STUCK,
        when=lambda f: f.see.client.login is Login.REFUSED and (f.shards is None or (f.resize_is_wanted and not f.shards_are_fresh)),
        why=lambda f: (
            f"The Webapp accepts neither key password nor key initialPassword of Secret "
            f"{manifests.admin_secret_name(f.want)}. Put the right password there."
        ),
    ),
    Row(
        name="PodsRefused",
        state=State.STUCK,
        when=lambda f: f.see.refused is not None and bool(f.absent),
        then=_create_absent,
        why=lambda f: f"The API server refused an object of this cluster: {f.see.refused}",
    ),
    Row(
        name="Bootstrapping",
        state=State.WORKING,
        when=lambda f: bool(f.absent) or (f.shards is None and f.see.settled_shards is None),
        then=_create_absent,
        why=lambda f: (
            f"Making the first pods; the client has not reported its shards yet{f': {p}' if (p := f.see.client.problem) else ''}."
            if f.see.settled_shards is None
            else "Making again what was deleted: " + ", ".join(f"{obj['kind']} {obj['metadata']['name']}" for obj in f.absent) + "."
        ),
    ),
    Row(
        name="ScalingUp",
        state=State.WORKING,
        # First of all numbers: should there be more shards than pods, raising R comes before everything (DESIGN law 4).
        when=lambda f: f.see.statefulset is not None and f.replicas < _raised(f),
        then=lambda f: _scale(f, _raised(f)),
        why=lambda f: f"Coreapps {f.replicas} -> {_raised(f)}.",
    ),
    Row(
        name="NameTaken",
        state=State.STUCK,
        when=lambda f: bool(f.see.taken) or any(route.foreign for route in f.see.routes),
        why=lambda f: (
            f"{', '.join(f'{ref.kind} {ref.name}' for ref in f.see.taken) or 'A shard Service'} belongs to somebody else and is "
            "left alone. Delete or rename it, or make the cluster under another name."
        ),
    ),
    # --- order: every shard has a holder, on pods that stay
    Row(
        name="AssigningShards",
        state=State.WORKING,
        # Whatever is under way: GET says that these shards exist.
        when=lambda f: bool([*f.shards_without_service()]) or bool(_assignments(f)),
        then=lambda f: (
            *(Create(obj=manifests.shard_service(f.want, shard)) for shard in f.shards_without_service()),
            *_assignments(f),
        ),
        why=lambda f: f"Giving holders to shards {', '.join(map(str, [*f.shards_without_service(), *(r.shard for r in f.unassigned)]))}.",
    ),
    Row(
        name="PackingLow",
        state=State.WORKING,
        # Before the high holders are told after the restart: they restart anyway, so the move costs no further downtime.
        when=lambda f: f.is_verified and not f.want.paused and bool(_packing(f)),
        then=_packing,
        why=lambda f: (
            f"Moving shards {', '.join(str(route.shard) for route in f.too_high)} to low ordinals before Coreapps "
            f"{f.replicas} -> {f.wanted_pods}."
        ),
    ),
    # --- order: a call under way
    Row(
        name="LoggingIn",
        state=State.WORKING,
        when=lambda f: f.shards is None and _has_asked(f),
        why=lambda f: f"Asking the Webapp for the number of shards{': ' + f.see.client.problem if f.see.client.problem else ''}.",
    ),
    Row(
        name="AnswerUnknown",
        state=State.WAITING,
        when=lambda f: _answer_is(f, Answer.UNKNOWN),
        why=lambda f: (
            f"Set Shards {_span(f)} got no clear answer; only GET is sent until it is known, at the latest at "
            f"{manifests.timestamp(f.operation.settle_by) if f.operation else ''}."
        ),
    ),
    Row(
        name="ServerBusy",
        state=State.WAITING,
        when=lambda f: _answer_is(f, Answer.BUSY) and not f.may_try_again,
        why=lambda f: f"Set Shards {_span(f)} was answered 403, temporarily unavailable, {_times(f)}; it is tried again.",
    ),
    Row(
        name="Verifying",
        state=State.WORKING,
        when=lambda f: _answer_is(f, Answer.ACCEPTED) and f.operation is not None and f.shards != f.operation.to,
        why=lambda f: f"Set Shards {_span(f)} was accepted; the client still reports {f.shards}.",
    ),
    Row(
        name="Restarting",
        state=State.WORKING,
        when=lambda f: _answer_is(f, Answer.ACCEPTED) and not f.restart_is_overdue and bool(f.missing),
        why=lambda f: (
            f"Set Shards {_span(f)} was accepted; the Coreapps restart, deadline "
            f"{manifests.timestamp(f.operation.deadline) if f.operation else ''}."
        ),
    ),
    # --- order: a change of shards
    Row(
        name="Paused",
        state=State.WAITING,
        when=_holds_back,
        why=lambda f: f"Changes are held while spec.paused or annotation {manifests.PAUSED_ANNOTATION} is true.",
    ),
    Row(
        name="ScalingDown",
        state=State.WORKING,
        when=lambda f: f.is_settled and f.replicas > f.needed_pods,
        then=lambda f: _scale(f, f.needed_pods) if _may_shrink(f) else (),
        why=lambda f: (
            f"Coreapps {f.replicas} -> {f.needed_pods}"
            + (f", once {_names(f.missing)} are back." if f.missing else ", once every shard is served." if f.too_high or f.failed else ".")
        ),
    ),
    Row(
        name="DriftFound",
        state=State.STUCK,
        when=lambda f: f.has_drifted and not f.want.repairs_drift,
        why=lambda f: (
            f"Somebody else changed the shards from {f.see.settled_shards} to {f.shards}. Set spec.shards to {f.shards} to keep "
            "that, or spec.reshard.drift to Repair to have it undone."
        ),
    ),
    *(
        Row(
            name=one.name,
            state=State.STUCK,
            when=lambda f, one=one: (f.resize_is_wanted or one.name in ALWAYS_SAID) and objection(f) is one,  # type: ignore[misc]
            why=one.why,
        )
        for one in OBJECTIONS
    ),
    Row(
        name="AwaitingCoreapps",
        state=State.WAITING,
        when=_lacks_coreapps,
        why=lambda f: f"{len(f.ready)} of {f.wanted_pods} Coreapps are ready for {f.want.shards} shards: {_awaited(f)}.",
    ),
    Row(
        name="WindowInvalid",
        state=State.STUCK,
        when=lambda f: windows.problem(f.want.windows) is not None and not _is_calling(f),
        why=lambda f: f"{windows.problem(f.want.windows)} Set Shards waits until spec.reshard.windows is put right.",
    ),
    Row(
        name="WindowClosed",
        state=State.WAITING,
        when=lambda f: f.resize_is_wanted and f.window_is_shut and not _is_calling(f),
        why=lambda f: (
            f"Set Shards {f.shards} -> {f.want.shards} waits for a window; the next one opens at {_opening(f)}. "
            f'Annotation {manifests.RESHARD_NOW_ANNOTATION}: "{f.want.shards}" lets it go now.'
        ),
    ),
    Row(
        name="SettingShards",
        state=State.WORKING,
        when=lambda f: _is_calling(f) or f.resize_is_wanted,
        then=lambda f: _call(f) if _may_call(f) else (),
        why=lambda f: (
            f"Set Shards {f.shards} -> {f.operation.to if f.operation else f.want.shards}: all Coreapps will restart"
            + (", for somebody else changed the shards" if f.has_drifted else "")
            + (", with enough Coreapps for the shards but without the spares." if len(f.ready) < f.wanted_pods else ".")
        ),
    ),
    # --- upkeep
    Row(
        name="RestartOverdue",
        state=State.WORKING,
        when=lambda f: f.restart_is_overdue,
        why=lambda f: f"The restart after Set Shards {_span(f)} is overdue; not back: {_names(f.missing)}.",
    ),
    Row(
        name="Refilling",
        state=State.WORKING,
        when=lambda f: len(f.ready) < f.replicas,
        why=lambda f: f"{len(f.ready)} of {f.replicas} Coreapps are ready: {_awaited(f)}.",
    ),
    Row(
        name="Settled",
        state=State.READY,
        when=lambda _: True,
        why=lambda _: "Nothing to do.",
    ),
)


# --- what is done beside the winning row --------------------------------------------------------------------------------


def _tells(f: Facts, busy: frozenset[str], moving: frozenset[int]) -> Iterator[Tell]:
    """Yield what Coreapps must be told: wherever what one reports differs from the Services (DESIGN section 5, "Telling").

    ``busy`` pods and ``moving`` shards are told by the handover that is under way.
    """
    by_holder = {route.holder_uid: route for route in f.routes if route.holder_uid and route.shard not in moving}
    by_shard = {route.shard: route for route in f.see.routes if not route.foreign}
    for pod in f.see.coreapps:
        report = pod.report
        # A Coreapp is told only the number of shards that it has itself; another one is either restarting or about to.
        if (
            pod.uid in busy
            or report is None
            or report.shards is None
            or pod.deleting
            or pod.ip is None
            or report.shards != (f.shards or report.shards)
        ):
            continue
        route = by_holder.get(pod.uid)
        if route is not None and route.shard < report.shards:
            if (report.shard, report.epoch) != (route.shard, route.epoch):
                yield Tell(coreapp=pod, shards=report.shards, shard=route.shard, epoch=route.epoch)
        elif report.shard is not None and pod.uid not in {route.holder_uid for route in f.see.routes}:
            other = by_shard.get(report.shard)
            holder = f.holder(other) if other is not None else None
            if other is not None and holder is not None:
                yield Tell(coreapp=pod, shards=report.shards, shard=other.shard, epoch=other.epoch, holder=holder)
            else:
                # Without a holder to name, a shard in the message would mean "serve it".
                yield Tell(coreapp=pod, shards=report.shards)


def _mending(f: Facts) -> Iterator[Apply]:
    """Yield what brings objects to their wanted content; the budget for disruptions follows Set Shards even when paused."""
    for obj in f.changed:
        if not f.want.paused or obj["kind"] == "PodDisruptionBudget":
            live = f.see.objects[Ref(obj["kind"], obj["metadata"]["name"])]
            yield Apply(obj=obj, uid=live["metadata"]["uid"])


def _tidying(f: Facts, busy: frozenset[str]) -> Iterator[Action]:
    """Yield the writes that clear what handovers left behind; ``busy`` pods are written by the row that won."""
    shards_on_pods = {pod.shard_label for pod in f.see.coreapps if pod.epoch_label is not None}
    for pod in f.see.coreapps:
        if pod.deleting or pod.uid in busy:
            continue
        claim = f.claim(pod)
        route = next((route for route in f.see.routes if route.shard == pod.shard_label and not route.foreign), None)
        if claim == "dead" or (claim == "orphan" and f.shards_are_fresh and (pod.shard_label or 0) >= (f.shards or 0)):
            yield Strip(coreapp=pod)
        elif claim == "pending":
            yield from (Touch(route=one, nonce=f.see.nonce) for one in f.awaiting(pod))
        elif claim == "committed" and route is not None and (route.holder_uid != pod.uid or _is_surplus(f, route)):
            yield Strip(coreapp=pod)
        elif claim in {"none", "damaged"}:
            named = next((one for one in f.routes if one.holder_uid == pod.uid), None)
            if named is not None and f.failure(named) is None and not _is_elsewhere(f, named):
                yield Relabel(coreapp=pod, route=named)
            elif named is None and (claim == "damaged" or pod.labels.get(manifests.ROLE_LABEL) != "standby"):
                yield Strip(coreapp=pod)
    for route in f.see.routes:
        if _is_surplus(f, route) and not route.foreign and route.shard not in shards_on_pods:
            yield Delete(ref=Ref("Service", route.name), uid=route.uid, resource_version=str(route.version))


def _is_elsewhere(f: Facts, route: Route) -> bool:
    """Whether another pod carries the route's epoch: until that is stripped a second label would make two pods match (DESIGN law 1)."""
    return any(pod.epoch_label == route.epoch and pod.uid != route.holder_uid for pod in f.see.coreapps)


def _is_surplus(f: Facts, route: Route) -> bool:
    """Whether the client no longer has this shard, by a fresh look and with no call under way that could bring it back."""
    return f.is_verified and f.shards_are_fresh and f.shards is not None and route.shard >= f.shards


def _asks(f: Facts, state: State) -> bool:
    """Whether it is time to ask the client for its number of shards."""
    client = f.see.client
    if client.asking or not f.webapp_ready:
        return False
    return client.asked_at is None or f.see.now - client.asked_at >= _pace(f, state, f.want.tuning.ask_steady)


def _answered(want: Desired, see: Observed, operation: Operation, call: Call) -> Observed:
    """Return the look with what this process's own call came to."""
    if call.not_sent:
        return replace(see, operation=None)
    if call.refusal is Refusal.BANNED:
        return replace(see, operation=None, banned=True)
    if call.refusal is Refusal.PIN and call.secret_version is not None:
        return replace(see, operation=None, refused_pin_version=call.secret_version)
    if call.refusal is not None and call.fingerprint is not None:
        return replace(see, operation=None, refused_fingerprint=call.fingerprint)
    if call.answer is None or operation.answer is not Answer.NONE:
        return see
    deadline = see.now + want.restart_timeout if call.answer is Answer.ACCEPTED else operation.deadline
    # A refusal of a call without a certificate has no certificate to wait for: it is retried like a busy server.
    answer = Answer.BUSY if call.answer is Answer.REFUSED else call.answer
    return replace(see, operation=replace(operation, answer=answer, deadline=deadline))


def _settled_by_get(see: Observed, operation: Operation) -> Observed:
    """Return the look with a call settled by GET, if it is: GET reports its number, or still another one after ``settle_by``."""
    asked, shards = see.client.asked_at, see.client.shards
    if asked is None or shards is None or asked <= operation.started_at or operation.answer is Answer.NONE:
        return see
    if shards == operation.to:
        return replace(see, operation=replace(operation, answer=Answer.ACCEPTED))
    return replace(see, operation=None) if asked > operation.settle_by and operation.answer is not Answer.BUSY else see


def judge(want: Desired, see: Observed) -> Observed:
    """Return the look with its operation as it stands after the newest answer. Pure.

    An intent without an answer and without a call of this process was noted by a leader that is gone: its call is unknown (DESIGN law 6).
    An unknown one is settled when GET reports its number, or when GET still differs after ``settle_by`` (law 4).
    """
    call = see.client.call
    if see.account_is_new:
        see = replace(see, settled_shards=None)
    if see.operation is not None and call is not None and call.id == see.operation.id:
        see = _answered(want, see, see.operation, call)
    elif see.operation is not None and see.operation.answer is Answer.NONE:
        see = replace(see, operation=replace(see.operation, answer=Answer.UNKNOWN))
    if see.operation is not None:
        unheard = see.operation.answer is Answer.UNKNOWN
        see = _settled_by_get(see, see.operation)
        if unheard and see.operation is not None and see.operation.answer is Answer.ACCEPTED:
            # Nobody knows when the call took effect: it may have been just now, so the restart has its whole time before it.
            deadline = max(see.operation.deadline, see.now + want.restart_timeout)
            see = replace(see, operation=replace(see.operation, deadline=deadline))
    operation = see.operation
    if operation is None:
        return see
    if operation.answer is Answer.BUSY and operation.to != want.shards:
        return replace(see, operation=None)
    f = Facts(want, see, operation)
    if operation.answer is Answer.ACCEPTED and f.shards == operation.to and f.enough_are_back and not f.missing:
        return replace(see, operation=None, settled_shards=operation.to)
    if f.restart_is_overdue:
        # The number is the last word although somebody is missing; else the next wish would be taken for drift.
        return replace(see, settled_shards=operation.to)
    return see


def facts(want: Desired, see: Observed) -> Facts:
    """Return what follows from a look, with the operation as it stands after the newest answer."""
    judged = judge(want, see)
    return Facts(want, judged, judged.operation)


def plan(want: Desired, see: Observed) -> Plan:
    """Return what to do after one look. Pure and total: no input raises, equal input gives equal output."""
    f = facts(want, see)
    matches = [row for row in ROWS if row.when(f)]
    winner = matches[0]
    if want.deleting:
        return Plan(
            verdict=Verdict(row=winner.name, state=winner.state, why=winner.why(f)),
            operation=f.operation,
            settled_shards=f.see.settled_shards,
            refused_fingerprint=f.see.refused_fingerprint,
            refused_pin_version=f.see.refused_pin_version,
            banned=f.see.banned,
        )
    actions = list(winner.then(f))
    moves = [action for action in actions if isinstance(action, Handover)]
    busy = frozenset(action.to.uid for action in moves)
    actions += _mending(f)
    actions += _tidying(f, busy)
    actions += _tells(f, busy, frozenset(action.route.shard for action in moves))
    if _asks(f, winner.state):
        actions.append(Ask())
    called = next((action.operation for action in actions if isinstance(action, SetShards)), None)
    settled = f.shards if f.is_settled and not f.missing and f.shards_are_fresh else f.see.settled_shards
    return Plan(
        verdict=Verdict(row=winner.name, state=winner.state, why=winner.why(f)),
        moving=_first(f, matches, State.WORKING, State.WAITING),
        stuck=_first(f, matches, State.STUCK),
        actions=tuple(actions),
        operation=called or f.operation,
        settled_shards=settled,
        refused_fingerprint=f.see.refused_fingerprint,
        refused_pin_version=f.see.refused_pin_version,
        banned=f.see.banned,
        next_window_at=windows.next_opening(want.windows, see.now) if winner.name == "WindowClosed" else None,
        is_settled=f.is_settled,
        is_speakable=_has_asked(f),
        holds=frozenset(_held(f)),
        wake_after=_pace(f, winner.state, want.tuning.rest),
    )


def _first(f: Facts, matches: list[Row], *states: State) -> Verdict | None:
    row = next((row for row in matches if row.state in states), None)
    return Verdict(row=row.name, state=row.state, why=row.why(f)) if row else None


def _held(f: Facts) -> Iterator[str]:
    """Name the facts whose age the next look wants to know."""
    if f.operation is not None and f.enough_are_back:
        yield "EnoughAreBack"
    if f.resize_is_wanted and len(f.ready) < f.wanted_pods:
        yield "LacksCoreapps"


def _pace(f: Facts, state: State, quiet: timedelta) -> timedelta:
    """Return the time between two questions or looks: short while something moves, long while nothing does."""
    if not f.is_unsettled and f.see.client.silent_since is None:
        return quiet
    slow = (
        state is State.STUCK
        or f.restart_is_overdue
        or f.window_is_shut
        or f.want.paused
        or f.see.client.silent_since is not None
        or f.see.client.login is Login.REFUSED
    )
    return min(quiet, timedelta(seconds=1)) if slow else f.want.tuning.ask_busy
