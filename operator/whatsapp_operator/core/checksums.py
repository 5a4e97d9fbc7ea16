"""A changed Secret reaches the pods that use it: a checksum in their template replaces them. Pure.

The workload itself carries the checksum of what its pods have taken (annotation of the object, which replaces nothing). Only when the
Secrets no longer have that checksum is it written into the pod template, too. So neither a new cluster nor an upgrade from a release
without checksums replaces a pod, and what cannot be read, is missing or wrong changes nothing.

The annotation can be read by people who may not read Secrets, and passwords may be weak. So the checksum is keyed with the uids of the
Secrets: random numbers that are visible only to those who may read the Secrets. With a resourceVersion instead, each label that is added to
a Secret would replace pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from whatsapp_operator.core.manifests.pods import DATABASE_KEYS

from . import manifests
from .desired import Desired
from .names import Obj, Ref
from .snapshot import Attempt

CHECKSUM_ANNOTATION: Final = "multiconnect.dev/secrets-checksum"
PATH: Final = f"metadata.annotations[{CHECKSUM_ANNOTATION}]"
"""The annotation that contains it."""
SETTLED_AFTER: Final = timedelta(seconds=10)
"""How long a changed Secret must stay as it is: many edits are two writes, and pods need both."""
AGAIN_AFTER: Final = timedelta(seconds=60)
"""Least time between two replacements for this reason: a Secret over which two writers fight must not keep a workload down."""


def keys_used(desired: Desired) -> dict[Ref, dict[str, tuple[str, ...]]]:
    """Return which keys of which Secrets the pods of a workload take, by workload and name of the Secret.

    The Webapps do not read ``ca.crt``: it is the authority that the operator trusts. Coreapps take nothing from these Secrets.
    """
    server: dict[str, tuple[str, ...]] = {manifests.tls_secret_name(desired): ("tls.crt", "tls.key")}
    used = {manifests.webapp_deployment(desired.key.name): server}
    if desired.database is not None:
        secrets: dict[str, tuple[str, ...]] = {desired.database.secret_name: tuple(DATABASE_KEYS)}
        if desired.database.tls_secret_name is not None:
            secrets[desired.database.tls_secret_name] = ("ca.crt", "tls.crt", "tls.key")
        used[Ref("StatefulSet", manifests.simulator_name(desired.key.name))] = secrets
    return used


def used_by_pods(live: Obj) -> str | None:
    """Return the checksum of what a workload's pods have taken; None if it is not known."""
    notes: Mapping[str, str] = live["metadata"].get("annotations") or {}
    return notes.get(CHECKSUM_ANNOTATION)


def is_stale(live: Obj | None, checksum: str) -> bool:
    """Return whether the Secrets are known to differ from what the workload's pods have taken."""
    known = used_by_pods(live) if live is not None else None
    return known is not None and known != checksum


def fact(ref: Ref, checksum: str) -> str:
    """Return the name of the fact that the Secrets of a workload have another checksum than its pods; its age is needed."""
    return f"SecretsChanged/{ref.kind}/{ref.name}/{checksum}"


def written_lately(attempts: Mapping[str, Attempt], now: datetime) -> bool:
    """Return whether this process replaced a workload's pods for this reason so lately that they are left alone.

    The first marking of a workload replaced nothing.
    """
    last = attempts.get(PATH)
    return last is not None and last.before is not None and now - last.at < AGAIN_AFTER


def stamped(obj: dict[str, Any], live: Obj | None, checksum: str, *, replaces: bool) -> dict[str, Any]:
    """Return a desired workload with the checksum; where pods have taken something else, only if they may be replaced now."""
    if is_stale(live, checksum):
        if not replaces:
            return obj
        template: dict[str, Any] = obj["spec"]["template"]
        notes = {**(template["metadata"].get("annotations") or {}), CHECKSUM_ANNOTATION: checksum}
        obj = {**obj, "spec": {**obj["spec"], "template": {**template, "metadata": {**template["metadata"], "annotations": notes}}}}
    meta = obj["metadata"]
    return {**obj, "metadata": {**meta, "annotations": {**meta["annotations"], CHECKSUM_ANNOTATION: checksum}}}
