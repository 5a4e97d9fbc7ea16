"""Converts Kubernetes objects into values of the core: spec, pods, status, Secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from whatsapp_operator.core import certificate, manifests
from whatsapp_operator.core.desired import SHARD_COUNTS, Desired, Switchover, Tuning
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.numbers import Claim
from whatsapp_operator.core.snapshot import AccountSecret, Coreapp, Evidence, Route
from whatsapp_operator.shell.coreapps.schedule import ProbeResult, Target

from .fields import read
from .secret_keys import decoded, digest_of

MAX_KUBELET_TEXT = 300
"""Characters of a kubelet's message that are passed on."""
MAX_ANNOTATION_TEXT = 60
"""Characters of an annotation that are shown when it is rejected."""
MOST_SWITCHOVERS = 32
"""Entries of one switchover annotation; there are no more shards."""
LONGEST_SWITCHOVERS = MOST_SWITCHOVERS * len(f"31={'x' * 253},")

# --- the spec ---------------------------------------------------------------------------------------------------------


class SpecError(Exception):
    """A WhatsAppCluster that the schema accepted cannot be read; the message names the field."""


def desired_of(obj: Obj, *, image: str, tuning: Tuning) -> Desired:
    """Return the desired state of a WhatsAppCluster; SpecError names the field that cannot be read."""
    meta = obj["metadata"]
    key = Key(meta["namespace"], meta["name"])
    notes: Mapping[str, str] = meta.get("annotations") or {}
    repeated = repeated_switchover(obj)
    text = notes.get(manifests.SWITCHOVER_ANNOTATION, "") if repeated is None else ""
    switchovers, problem = switchovers_of(text)
    paused, bad_pause = paused_of(notes.get(manifests.PAUSED_ANNOTATION, ""))
    reshard_now, bad_number = reshard_now_of(notes.get(manifests.RESHARD_NOW_ANNOTATION, ""))
    try:
        desired = read(
            Desired,
            obj.get("spec") or {},
            key=key,
            uid=meta["uid"],
            generation=int(meta.get("generation", 0)),
            reshard_now=reshard_now,
            switchovers=switchovers,
            switchover_text=text,
            switchover_problem=problem,
            deleting=meta.get("deletionTimestamp") is not None,
            finalizers=tuple(map(str, meta.get("finalizers") or ())),
            image=image,
            tuning=tuning,
        )
    except msgspec.ValidationError as error:
        msg = f"WhatsAppCluster {key}: spec: {error}. Is the CRD of this release installed?"
        raise SpecError(msg) from None
    registered_at, bad_time = registered_at_of(desired.account.registered_at if desired.account else None)
    return replace(
        desired,
        paused=desired.paused or paused,
        account=replace(desired.account, registered_at=registered_at) if desired.account else None,
        invalid=" ".join(filter(None, (repeated, bad_pause, bad_number, bad_time))) or None,
    )


def claim_of(obj: Obj) -> Claim | None:
    """Return which phone number a WhatsAppCluster has; None: none. It is read from a spec that cannot be read otherwise, too."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    account = spec.get("account") or {}
    if not account.get("phoneNumber"):
        return None
    is_own_status = status.get("uid") in {None, meta["uid"]}
    return Claim(
        is_new=status.get("settledShards") is None or not is_own_status,
        created=str(meta.get("creationTimestamp") or ""),
        key=Key(meta["namespace"], meta["name"]),
        number=f"{(spec.get('client') or {}).get('type')} {account.get('countryCode')}{account['phoneNumber']}",
    )


def source_of(obj: Obj) -> Obj:
    """Return the part of a WhatsAppCluster from which its desired state is read: all but its status and what changes with each write."""
    # Who requests a switchover counts too.
    is_asked = manifests.SWITCHOVER_ANNOTATION in (obj["metadata"].get("annotations") or {})
    dropped = {"resourceVersion"} if is_asked else {"resourceVersion", "managedFields"}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in dropped}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation with the manifest that was applied last, without server-side apply."""


def repeated_switchover(obj: Obj) -> str | None:
    """Return what is wrong if a switchover is part of a manifest that was applied again after the move; else None.

    A tool such as Argo CD or Flux restores the request each time that it was carried out and removed. The shard would move without an end.
    """
    meta, name = obj["metadata"], manifests.SWITCHOVER_ANNOTATION
    notes: Mapping[str, str] = meta.get("annotations") or {}
    requests, _ = switchovers_of(notes.get(name, ""))
    moved = _moved_on_request(obj.get("status"))
    again = next((one.shard for one in requests if one.shard in moved), None)
    appliers = [one["manager"] for one in manifests.request_appliers(meta.get("managedFields") or ())] if again is not None else []
    if again is not None and not appliers and _applied_last(notes.get(LAST_APPLIED, "")).get(name) == notes[name]:
        appliers = ["kubectl apply"]
    if not appliers:
        return None
    return (
        f"Annotation {name} is part of a manifest ({_shown(appliers[0])}), and shard {again} has been moved on request. It is ignored: "
        "otherwise the shard would move again whenever the manifest is applied. Remove it from the manifest, and request a move with "
        "kubectl annotate or kubectl whatsapp switchover."
    )


def _moved_on_request(status: Any) -> set[object]:
    """Return the shards that were moved on request, as far as the status still names the moves."""
    entries = status.get("recentHandovers") if isinstance(status, Mapping) else None
    moves = (one for one in entries or () if isinstance(one, Mapping)) if isinstance(entries, list) else ()
    return {one["shard"] for one in moves if one.get("evidence") == Evidence.REQUESTED and isinstance(one.get("shard"), int)}


def _applied_last(text: str) -> Mapping[str, object]:
    """Return the annotations of the manifest that was applied last."""
    try:
        notes = msgspec.json.decode(text)["metadata"]["annotations"] if text else {}
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    return notes if isinstance(notes, Mapping) else {}


def switchovers_of(text: str) -> tuple[tuple[Switchover, ...], str | None]:
    """Read the annotation ``multiconnect.dev/switchover``; return the requests, and the problem if none is valid. Pure; never raises."""
    name = manifests.SWITCHOVER_ANNOTATION
    if len(text) > LONGEST_SWITCHOVERS:
        return (), f"Annotation {name} has {len(text)} characters; at most {LONGEST_SWITCHOVERS} are read. Nothing was moved."
    requests: dict[int, Switchover] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,2})(?:=([a-z0-9][a-z0-9-]{0,252}))?", part)
        if match is None:
            return (), f"Annotation {name} contains {part[:MAX_ANNOTATION_TEXT]!r}; write a shard such as 0, or 0=<pod>."
        request = Switchover(shard=int(match[1]), to=match[2])
        if requests.setdefault(request.shard, request) != request:
            return (), f"Annotation {name} names two pods for shard {request.shard}. Nothing was moved."
    if len(requests) > MOST_SWITCHOVERS:
        return (), f"Annotation {name} names {len(requests)} shards; at most {MOST_SWITCHOVERS} are read. Nothing was moved."
    return tuple(requests.values()), None


def paused_of(text: str) -> tuple[bool, str | None]:
    """Read the annotation ``multiconnect.dev/paused``; return whether it pauses, and the problem if that is not clear. Never raises."""
    if text in {"true", "false", ""}:
        return text == "true", None
    problem = f"Annotation {manifests.PAUSED_ANNOTATION} is {_shown(text)}, which is neither true nor false. It holds nothing."
    return False, f"{problem} Write true, or remove it."


def _shown(text: str) -> str:
    more = len(text) - MAX_ANNOTATION_TEXT
    return f"{text[:MAX_ANNOTATION_TEXT]!r}" + (f" and {more} more characters" if more > 0 else "")


def reshard_now_of(text: str) -> tuple[int | None, str | None]:
    """Read the annotation ``multiconnect.dev/reshard-now``; return the number, and the problem if it is not one. Pure; never raises."""
    text = text.strip()
    if not text:
        return None, None
    if re.fullmatch(r"[0-9]{1,2}", text) and int(text) in SHARD_COUNTS:
        return int(text), None
    problem = f"Annotation {manifests.RESHARD_NOW_ANNOTATION} is {_shown(text)}, which is not a number of shards"
    return None, f"{problem}; it is ignored. Write one such as 4."


def registered_at_of(at: datetime | None) -> tuple[datetime | None, str | None]:
    """Return a time of registration that can be calculated with, and the problem if there is none. Pure; never raises."""
    sane = manifests.sane(at) if at is not None else None
    if at is None or sane is not None:
        return sane, None
    return None, f"spec.account.registeredAt is {at.isoformat()}, which is not a usable time; it is ignored. Write the right one."


# --- pods -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHolders:
    """The holders of a cluster's shards by the events so far, by the uid of their pod."""

    uids: frozenset[str] = frozenset()
    """All that a Service names."""
    leaving: frozenset[str] = frozenset()
    """Those whose pod is gone or terminating."""
    pods_at: int = 0
    """The newest resourceVersion in an event of a Coreapp's pod."""
    services_at: int = 0
    """The newest resourceVersion in an event of a shard's Service."""


def _condition(conditions: Iterable[Obj] | None, kind: str) -> Obj:
    for one in conditions or ():
        if one.get("type") == kind:
            return one
    return {}


def _container(status: Obj) -> Obj:
    """The state of a Coreapp's container; empty before its first."""
    return next((one for one in status.get("containerStatuses") or () if one.get("name") == "coreapp"), {})


def _is_terminated(status: Obj) -> bool:
    """Whether the container has ended and does not run now: terminated, or waiting for its restart."""
    state = _container(status)
    now = state.get("state") or {}
    return "terminated" in now or ("waiting" in now and "terminated" in (state.get("lastState") or {}))


def _lost_readiness(status: Obj) -> bool:
    """Whether the container was ready since its start, and is not ready now. Both times are of the kubelet's clock."""
    started = manifests.moment(str(((_container(status).get("state") or {}).get("running") or {}).get("startedAt", "")))
    ready = _condition(status.get("conditions"), "Ready")
    changed = manifests.moment(str(ready.get("lastTransitionTime", "")))
    return ready.get("status") == "False" and started is not None and changed is not None and changed > started


def _waiting(status: Obj) -> Iterator[tuple[str, str]]:
    """Yield why containers wait: the kubelet's reason and its message. Init containers count too: a webhook may have added some."""
    for one in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            yield str(waiting["reason"]), str(waiting.get("message") or "")[:MAX_KUBELET_TEXT]


def _waiting_because(status: Obj) -> str | None:
    """Return why a scheduled pod does not run, unless it is just being started."""
    found = ((reason, message) for reason, message in _waiting(status) if reason not in {"ContainerCreating", "PodInitializing"})
    reason, message = next(found, ("", ""))
    return f"{reason}: {message}" if message else reason or None


MAIN_CONTAINERS = frozenset({"coreapp", "webapp", "simulator"})


def _others_because(status: Obj) -> str | None:
    """Return why a pod is not ready although the operator's container in it is: of another container, or of a readiness gate."""
    mains = (one for one in status.get("containerStatuses") or () if one.get("name") in MAIN_CONTAINERS)
    ready = _condition(status.get("conditions"), "Ready")
    is_held = ready.get("status") == "False" and any(one.get("ready") for one in mains)
    return str(ready.get("message") or "")[:MAX_KUBELET_TEXT] or None if is_held else None


def _pending_because(status: Obj) -> str | None:
    """Return why a pod does not run or is not ready, in the words of the scheduler or its kubelet."""
    scheduled = _condition(status.get("conditions"), "PodScheduled")
    if scheduled.get("status") == "False":
        return scheduled.get("message")
    return _waiting_because(status) or _others_because(status)


def pending_of(pods: Iterable[Obj]) -> str | None:
    """Return which pod of a Webapp or the simulator does not run, and why; None if that is not known. Coreapps report it separately."""
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        is_awaited = component_of(pod) != "coreapp" and not has_ended(pod) and pod["metadata"].get("deletionTimestamp") is None
        if is_awaited and (because := _pending_because(pod.get("status") or {})):
            return f"{pod['metadata']['name']} ({because})"
    return None


NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
"""The kubelet's reasons for an image that it cannot pull. ErrImagePull is not among them: it may be a short fault of the registry."""


def image_problem_of(pods: Iterable[Obj]) -> str | None:
    """Return which pod waits for an image that cannot be pulled, and why; None if none does."""
    for pod in pods:
        if has_ended(pod):
            continue
        for reason, message in _waiting(pod.get("status") or {}):
            if reason in NO_IMAGE:
                return f"{pod['metadata']['name']}: {reason}" + (f": {message}" if message else "")
    return None


def coreapp_of(pod: Obj, last: ProbeResult) -> Coreapp | None:
    """Return a pod as a Coreapp, or None if its name has no ordinal. ``last``: what its probes have shown."""
    meta, status, spec = pod["metadata"], pod.get("status") or {}, pod.get("spec") or {}
    ordinal = meta["name"].rpartition("-")[2]
    if not re.fullmatch("[0-9]{1,9}", ordinal):
        return None
    labels = dict(meta.get("labels") or {})
    return Coreapp(
        name=meta["name"],
        uid=meta["uid"],
        ordinal=int(ordinal),
        resource_version=meta["resourceVersion"],
        node=spec.get("nodeName"),
        ip=status.get("podIP"),
        phase=status.get("phase", "Pending"),
        ready=_condition(status.get("conditions"), "Ready").get("status") == "True",
        deleting=meta.get("deletionTimestamp") is not None,
        disrupted=_condition(status.get("conditions"), "DisruptionTarget").get("status") == "True",
        terminated=_is_terminated(status),
        lost_readiness=_lost_readiness(status),
        revision=labels.get("controller-revision-hash"),
        pending_because=_pending_because(status),
        held_by=held_by(pod),
        labels=labels,
        report=last.report,
        broken_at=last.broken_at,
        ended_at=last.ended_at,
        unresponsive_since=last.unresponsive_since,
        never_responded=last.never_responded,
    )


def held_by(pod: Obj) -> tuple[str, ...]:
    """Return the finalizers of a deleted pod that waits for nothing else.

    A kubelet that has ended all containers sets the grace period to 0; from then on only finalizers keep the pod.
    """
    meta = pod["metadata"]
    is_over = meta.get("deletionTimestamp") is not None and meta.get("deletionGracePeriodSeconds") == 0
    return tuple(map(str, meta.get("finalizers") or ())) if is_over else ()


def targets_of(desired: Desired, pods: Iterable[Obj], routes: Iterable[Route]) -> dict[str, Target]:
    """Return the pods to watch by uid: those that have an address."""
    holders = {route.holder_uid for route in routes}
    return {
        uid: Target(
            ip=ip,
            node=(pod.get("spec") or {}).get("nodeName"),
            holds=uid in holders,
            probe=desired.probe,
            unhealthy_after=desired.unhealthy_after.total_seconds(),
            ready=is_ready(pod),
        )
        for pod in pods
        if (ip := (pod.get("status") or {}).get("podIP")) and (uid := pod["metadata"]["uid"])
    }


def has_ended(pod: Obj) -> bool:
    """Return whether a pod has ended: none of its containers runs or will run again."""
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def is_ready(pod: Obj) -> bool:
    """Return whether a pod is ready and not terminating."""
    ready = _condition((pod.get("status") or {}).get("conditions"), "Ready").get("status") == "True"
    return ready and pod["metadata"].get("deletionTimestamp") is None


def component_of(obj: Obj) -> str:
    """Return the component of an object; empty if it has no such label."""
    return str((obj["metadata"].get("labels") or {}).get(manifests.COMPONENT_LABEL, ""))


def is_unobserved(obj: Obj) -> bool:
    """Return whether the controller of a workload has not observed its newest spec yet; False for kinds without such a status."""
    observed = (obj.get("status") or {}).get("observedGeneration")
    return observed is not None and int(obj["metadata"].get("generation", 0)) > int(observed)


def webapps_change(deployment: Obj | None, pods: Iterable[Obj]) -> bool:
    """Return whether Webapps of an older template run among ``pods``, or the Deployment's controller has not observed the newest one.

    A pod that has ended, for example after an eviction, is replaced at once and may exist for days: it does not count.
    """
    webapps = (pod for pod in pods if component_of(pod) == "webapp" and not has_ended(pod))
    stay = (pod["metadata"] for pod in webapps if pod["metadata"].get("deletionTimestamp") is None)
    templates = {(meta.get("labels") or {}).get("pod-template-hash") for meta in stay}
    return len(templates) > 1 or (deployment is not None and is_unobserved(deployment))


# --- Secrets ------------------------------------------------------------------------------------------------------------


def account_secret_of(name: str, secret: Obj | None) -> AccountSecret:
    """Return what the core needs to know about the account's Secret; never its content."""
    if secret is None:
        return AccountSecret(missing=f"Secret {name}")
    text, pin = decoded(secret, "certificate"), decoded(secret, "pin")
    return AccountSecret(
        version=secret["metadata"]["resourceVersion"],
        has_certificate=text is not None,
        certificate=certificate.read(text) if text is not None else None,
        expires_at=manifests.moment(decoded(secret, "expiresAt") or ""),
        pin_is_valid=pin is None or re.fullmatch(r"[0-9]{6}", pin) is not None,
        pin_digest=digest_of(secret, "pin"),
    )
