"""Kubernetes objects read as our nouns: spec, pods, status, Secrets. Pure; nothing here asks anybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

import msgspec

from whatsapp_operator.core import certificate, manifests
from whatsapp_operator.core.desired import Desired, Switchover, Tuning
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.snapshot import AccountSecret, Coreapp, Report, Route
from whatsapp_operator.shell.coreapps.tether import Target

from .fields import read
from .secret_keys import decoded

MAX_KUBELET_TEXT = 300
"""Characters of a kubelet's message that are passed on."""
MAX_ANNOTATION_TEXT = 60
"""Characters of an annotation that are shown when it is rejected."""
MOST_SWITCHOVERS = 32
"""Entries of one switchover annotation; there are no more shards."""
LONGEST_SWITCHOVERS = MOST_SWITCHOVERS * len(f"31={'x' * 253},")

# --- the spec ---------------------------------------------------------------------------------------------------------


class SpecError(Exception):
    """A WhatsAppCluster that the schema let through cannot be read; the message names the field."""


def desired_of(obj: Obj, *, image: str, tuning: Tuning) -> Desired:
    """Return what a WhatsAppCluster wants; SpecError names the field that cannot be read."""
    meta = obj["metadata"]
    key = Key(meta["namespace"], meta["name"])
    notes: Mapping[str, str] = meta.get("annotations") or {}
    text = notes.get(manifests.SWITCHOVER_ANNOTATION, "")
    switchovers, problem = switchovers_of(text)
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
        paused=desired.paused or notes.get(manifests.PAUSED_ANNOTATION) == "true",
        account=replace(desired.account, registered_at=registered_at) if desired.account else None,
        invalid=" ".join(filter(None, (bad_number, bad_time))) or None,
    )


def switchovers_of(text: str) -> tuple[tuple[Switchover, ...], str | None]:
    """Read the annotation ``multiconnect.dev/switchover``; return the wishes and, if none of it is obeyed, why. Pure; never raises."""
    name = manifests.SWITCHOVER_ANNOTATION
    if len(text) > LONGEST_SWITCHOVERS:
        return (), f"Annotation {name} has {len(text)} characters; at most {LONGEST_SWITCHOVERS} are read. Nothing of it was done."
    requests: dict[int, Switchover] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,2})(?:=([a-z0-9][a-z0-9-]{0,252}))?", part)
        if match is None:
            return (), f"Annotation {name} says {part[:MAX_ANNOTATION_TEXT]!r}; write a shard such as 0, or 0=<pod>."
        request = Switchover(shard=int(match[1]), to=match[2])
        if requests.setdefault(request.shard, request) != request:
            return (), f"Annotation {name} names two pods for shard {request.shard}. Nothing of it was done."
    if len(requests) > MOST_SWITCHOVERS:
        return (), f"Annotation {name} names {len(requests)} shards; at most {MOST_SWITCHOVERS} are read. Nothing of it was done."
    return tuple(requests.values()), None


def reshard_now_of(text: str) -> tuple[int | None, str | None]:
    """Read the annotation ``multiconnect.dev/reshard-now``; return the number, and what is wrong if it is none. Pure; never raises."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{0,2}", text):
        return int(text) if text else None, None
    more = len(text) - MAX_ANNOTATION_TEXT
    shown = f"{text[:MAX_ANNOTATION_TEXT]!r}" + (f" and {more} more characters" if more > 0 else "")
    return (
        None,
        f"Annotation {manifests.RESHARD_NOW_ANNOTATION} says {shown}, which is no number of shards; it is ignored. Write one such as 4.",
    )


def registered_at_of(at: datetime | None) -> tuple[datetime | None, str | None]:
    """Return a time of registration that can be reckoned with, and what is wrong if there is none. Pure; never raises."""
    sane = manifests.sane(at) if at is not None else None
    if at is None or sane is not None:
        return sane, None
    return None, f"spec.account.registeredAt says {at.isoformat()}, which is no usable time; it is ignored. Write the right one."


# --- pods -------------------------------------------------------------------------------------------------------------


def _condition(conditions: Iterable[Obj] | None, kind: str) -> Obj:
    return next((one for one in conditions or () if one.get("type") == kind), {})


def _is_terminated(status: Obj, container: str) -> bool:
    """Whether the container has ended and does not run now: terminated, or waiting to be started again."""
    state: Obj = next((one for one in status.get("containerStatuses") or () if one.get("name") == container), {})
    now = state.get("state") or {}
    return "terminated" in now or ("waiting" in now and "terminated" in (state.get("lastState") or {}))


def _lost_readiness(status: Obj, container: str) -> bool:
    """Whether the container was ready since it was started, and is not now; both times are of the kubelet's clock."""
    state: Obj = next((one for one in status.get("containerStatuses") or () if one.get("name") == container), {})
    started = manifests.moment(str(((state.get("state") or {}).get("running") or {}).get("startedAt", "")))
    ready = _condition(status.get("conditions"), "Ready")
    changed = manifests.moment(str(ready.get("lastTransitionTime", "")))
    return ready.get("status") == "False" and started is not None and changed is not None and changed > started


def _waiting(status: Obj) -> Iterator[tuple[str, str]]:
    """Yield why containers that do not run wait, in the kubelet's words: the one word, and the sentence."""
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            yield str(waiting["reason"]), str(waiting.get("message") or "")[:MAX_KUBELET_TEXT]


def _waiting_because(status: Obj) -> str | None:
    """Return why a scheduled pod does not run, unless it is just being started."""
    found = ((word, sentence) for word, sentence in _waiting(status) if word not in {"ContainerCreating", "PodInitializing"})
    word, sentence = next(found, ("", ""))
    return f"{word}: {sentence}" if sentence else word or None


NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
"""The kubelet's words for an image that it does not get; the first error alone may be a hiccup of the registry."""


def image_problem_of(pods: Iterable[Obj]) -> str | None:
    """Return which pod waits for an image that cannot be pulled, and why; None if none does."""
    for pod in pods:
        if has_ended(pod):
            continue
        for word, sentence in _waiting(pod.get("status") or {}):
            if word in NO_IMAGE:
                return f"{pod['metadata']['name']}: {word}" + (f": {sentence}" if sentence else "")
    return None


def coreapp_of(
    pod: Obj, report: Report | None, broken_at: datetime | None, silent_since: datetime | None = None, *, never_responded: bool = False
) -> Coreapp | None:
    """Return the Coreapp that a pod is, or None if its name has no ordinal."""
    meta, status, spec = pod["metadata"], pod.get("status") or {}, pod.get("spec") or {}
    ordinal = meta["name"].rpartition("-")[2]
    if not re.fullmatch("[0-9]{1,9}", ordinal):
        return None
    labels = dict(meta.get("labels") or {})
    scheduled = _condition(status.get("conditions"), "PodScheduled")
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
        terminated=_is_terminated(status, "coreapp"),
        lost_readiness=_lost_readiness(status, "coreapp"),
        revision=labels.get("controller-revision-hash"),
        pending_because=scheduled.get("message") if scheduled.get("status") == "False" else _waiting_because(status),
        held_by=held_by(pod),
        labels=labels,
        report=report,
        broken_at=broken_at,
        silent_since=silent_since,
        never_responded=never_responded,
    )


def held_by(pod: Obj) -> tuple[str, ...]:
    """Return the finalizers that alone keep a pod which was deleted.

    A kubelet that has ended all of it asks for the rest of the deletion with no time left; only finalizers can be waited for then.
    """
    meta = pod["metadata"]
    is_over = meta.get("deletionTimestamp") is not None and meta.get("deletionGracePeriodSeconds") == 0
    return tuple(map(str, meta.get("finalizers") or ())) if is_over else ()


def targets_of(desired: Desired, pods: Iterable[Obj], routes: Iterable[Route]) -> dict[str, Target]:
    """Return by uid which pods are to be watched, and how: those that have an address."""
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
    """Return whether a pod has ended for good: nothing of it runs, or ever will."""
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def is_ready(pod: Obj) -> bool:
    """Return whether a pod is ready and stays."""
    ready = _condition((pod.get("status") or {}).get("conditions"), "Ready").get("status") == "True"
    return ready and pod["metadata"].get("deletionTimestamp") is None


def component_of(obj: Obj) -> str:
    """Return which part of a cluster an object is; empty if its label does not say."""
    return str((obj["metadata"].get("labels") or {}).get(manifests.COMPONENT_LABEL, ""))


def is_unobserved(obj: Obj) -> bool:
    """Return whether the controller of a workload has not looked at its newest spec yet; False of what has no such status."""
    seen = (obj.get("status") or {}).get("observedGeneration")
    return seen is not None and int(obj["metadata"].get("generation", 0)) > int(seen)


def webapps_change(deployment: Obj | None, pods: Iterable[Obj]) -> bool:
    """Return whether Webapps of a former template run among ``pods``, or the Deployment's controller has not looked at the newest one.

    A pod that has ended, as after an eviction, is replaced at once and may lie there for days: it does not count.
    """
    webapps = (pod for pod in pods if component_of(pod) == "webapp" and not has_ended(pod))
    stay = (pod["metadata"] for pod in webapps if pod["metadata"].get("deletionTimestamp") is None)
    templates = {(meta.get("labels") or {}).get("pod-template-hash") for meta in stay}
    return len(templates) > 1 or (deployment is not None and is_unobserved(deployment))


# --- Secrets ------------------------------------------------------------------------------------------------------------


def account_secret_of(name: str, secret: Obj | None) -> AccountSecret:
    """Return what is to be known of the account's Secret; never its content."""
    if secret is None:
        return AccountSecret(missing=f"Secret {name}")
    text, pin = decoded(secret, "certificate"), decoded(secret, "pin")
    return AccountSecret(
        version=secret["metadata"]["resourceVersion"],
        has_certificate=text is not None,
        certificate=certificate.read(text) if text is not None else None,
        expires_at=manifests.moment(decoded(secret, "expiresAt") or ""),
        pin_is_valid=pin is None or re.fullmatch(r"[0-9]{6}", pin) is not None,
    )
