"""Events: a new one for each message, and a series for one that comes again soon.

They are written through core/v1, which takes the times of both forms. kubectl sorts by the second form, ``lastTimestamp``: in ``kubectl
describe``, and in ``kubectl get events --sort-by=.lastTimestamp``. events.k8s.io/v1 would reject it.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from whatsapp_operator.core import manifests
from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.core.names import Key
from whatsapp_operator.shell.clock import Clock, micro_time
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import AlreadyExists, NotFound
from whatsapp_operator.shell.kube.kinds import EVENT

SERIES_FOR: Final = 360.0
"""Seconds within which an equal Event belongs to the series of the last one, as in Kubernetes' own recorder."""
MESSAGE_LIMIT, INSTANCE_LIMIT = 1024, 128
"""Longest texts that the API server accepts in an Event: the message, and the instance that reports it."""


@dataclass(slots=True)
class _Written:
    name: str
    count: int
    at: float
    """By the monotonic clock."""


class EventWriter:
    """Writes the Events of all clusters of this process."""

    def __init__(self, kube: Kube, *, clock: Clock, identity: str) -> None:
        """``identity`` is the instance that reports."""
        self._kube = kube
        self._clock = clock
        self._identity = identity
        self._written: dict[tuple[str, EmitEvent], _Written] = {}
        """By the uid of the cluster and the Event: what was written in the last ``SERIES_FOR`` seconds."""

    async def write(self, key: Key, uid: str, event: EmitEvent, at: datetime) -> None:
        """Write an Event about a cluster, or count it in the series of an equal one; ``at``: the time of its cause. KubeError."""
        now = self._clock.monotonic()
        self._written = {which: one for which, one in self._written.items() if now - one.at < SERIES_FOR}
        last = self._written.get((uid, event))
        if last is None or not await self._repeat(key, last, at):
            name = _name(key, uid, event, at)
            with suppress(AlreadyExists):  # An earlier attempt was stored, but its answer was lost.
                await self._kube.create(self._new(key, uid, name, event, at))
            last = self._written[uid, event] = _Written(name, 0, now)
        last.count, last.at = last.count + 1, now

    async def _repeat(self, key: Key, last: _Written, at: datetime) -> bool:
        """Count an Event in a series; return False if the first of the series is gone."""
        count = last.count + 1
        again = {"count": count, "lastTimestamp": manifests.timestamp(at), "series": {"count": count, "lastObservedTime": micro_time(at)}}
        try:
            await self._kube.patch_merge(EVENT, key.namespace, last.name, again)
        except NotFound:
            return False
        return True

    def _new(self, key: Key, uid: str, name: str, event: EmitEvent, at: datetime) -> dict[str, Any]:
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": manifests.API_VERSION,
                "kind": "WhatsAppCluster",
                "name": key.name,
                "namespace": key.namespace,
                "uid": uid,
            },
            "type": "Warning" if event.warning else "Normal",
            "reason": str(event.reason),
            # Required; a reason is the name of the rule that acts.
            "action": str(event.reason),
            "message": event.message[:MESSAGE_LIMIT],
            "eventTime": micro_time(at),
            "firstTimestamp": manifests.timestamp(at),
            "lastTimestamp": manifests.timestamp(at),
            "count": 1,
            "source": {"component": "whatsapp-operator"},
            "reportingComponent": "multiconnect.dev/whatsapp-operator",
            "reportingInstance": self._identity[:INSTANCE_LIMIT],
        }


def _name(key: Key, uid: str, event: EmitEvent, at: datetime) -> str:
    """Return the name of an Event: each attempt to write it uses the same one, and no other Event has it.

    Lists are sorted by name, so an earlier Event gets a lower name.
    """
    what = hashlib.sha256("\n".join((uid, event.reason, str(event.warning), event.message)).encode()).hexdigest()
    return f"{key.name}.{round(at.timestamp() * 1_000_000):014x}{what[:8]}"
