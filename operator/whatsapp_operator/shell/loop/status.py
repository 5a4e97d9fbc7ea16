"""Writes the status of a cluster at the observed version, even if the observation itself failed."""

from __future__ import annotations

import logging
from typing import Any

from whatsapp_operator.core import report
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import Conflict, KubeError, NotFound
from whatsapp_operator.shell.metrics import Metrics
from whatsapp_operator.shell.objects.reading import SpecError, desired_of

from .observe import Observation

log = logging.getLogger(__name__)

MOST_STATUS_WRITES = 5
"""Attempts to write a status after one observation, while others write the resource."""


class StatusError(Exception):
    """The API server rejects the status of a cluster; the message is its answer."""


class StatusWriter:
    """Writes statuses of all clusters."""

    def __init__(self, kube: Kube, clock: Clock, metrics: Metrics) -> None:
        self._kube, self._clock, self._metrics = kube, clock, metrics

    async def write(self, observation: Observation, body: dict[str, Any], *, version: str | None = None) -> Obj | None:
        """Write the status at the observed resourceVersion, or at ``version``; return the stored cluster, None if it has changed.

        If others only wrote parts that no plan uses, usually labels and annotations, the write is repeated at once. StatusError: the
        CRD has no separate status to write.
        """
        key, at = observation.desired.key, version or observation.snapshot.resource_version
        for tries_left in reversed(range(MOST_STATUS_WRITES)):
            patch = {"metadata": {"resourceVersion": at}, "status": body}
            try:
                return await self._kube.patch_status(kinds.WAC, key.namespace, key.name, patch)
            except NotFound as answer:
                await self._must_be_gone(observation, answer)
                return None
            except Conflict as answer:
                log.debug("%s: %s", key, answer)
                newer = await self._version_if_unchanged(observation) if version is None and tries_left > 0 else None
                if newer is None:
                    return None
                at = newer
        return None

    async def _must_be_gone(self, observation: Observation, answer: NotFound) -> None:
        """Raise StatusError if a cluster exists although its status does not: the installed CRD has no subresource ``status``."""
        obj = await self._kube.get(kinds.WAC, observation.desired.key.namespace, observation.desired.key.name)
        if obj is not None and obj["metadata"]["uid"] == observation.desired.uid:
            msg = f"{answer}. But the cluster exists, so its CRD has no subresource status"
            raise StatusError(msg) from None

    async def _version_if_unchanged(self, observation: Observation) -> str | None:
        """Return the newest resourceVersion of a cluster if everything that the plan used is unchanged; else None."""
        obj = await self._kube.get(kinds.WAC, observation.desired.key.namespace, observation.desired.key.name)
        if obj is None or (obj.get("status") or {}) != observation.snapshot.status:
            return None
        same = desired_of(obj, image=observation.desired.image, tuning=observation.desired.tuning) == observation.desired
        return str(obj["metadata"]["resourceVersion"]) if same else None

    async def report_failure(self, key: Key, cause: BaseException) -> bool:
        """Write into the status that an observation failed, and why. The text of an internal error is left out: it may contain anything.

        Return False if the API server answers that the cluster does not exist.
        """
        reason, message = named(cause)
        try:
            obj = await self._stored(key)
            if obj is None:
                return False
            before, meta = obj.get("status") or {}, obj["metadata"]
            after = report.failed_observation(before, generation=meta["generation"], now=self._clock.wall(), reason=reason, message=message)
            self._metrics.clusters.observe_status(key, after)
            body = report.patch(before, after)
            if body is not None:
                patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": body}
                await self._kube.patch_status(kinds.WAC, key.namespace, key.name, patch)
        except KubeError as error:
            log.debug("%s: a failed observation could not be reported: %s", key, error)
        except Exception:
            # A status that cannot be read must not end the loop: failovers do not depend on it.
            log.exception("%s: a failed observation could not be reported", key)
        return True

    async def _stored(self, key: Key) -> Obj | None:
        """Return a cluster as stored, even when reads fail: an empty patch writes nothing, and its answer is the object."""
        try:
            return await self._kube.get(kinds.WAC, key.namespace, key.name)
        except KubeError:
            return await self._kube.patch_status(kinds.WAC, key.namespace, key.name, {})


def named(cause: BaseException) -> tuple[Reason, str]:
    """Return the reason for a failed observation, and the sentence for the user: what is wrong, and what to do."""
    if isinstance(cause, KubeError):
        return Reason.READ_FAILED, f"The operator cannot read this cluster. Give it its rights, or correct what is named: {cause}"
    if isinstance(cause, StatusError):
        return (
            Reason.STATUS_REJECTED,
            f"The operator cannot report on this cluster. Apply the CRD of this release. The API server says: {cause}",
        )
    if isinstance(cause, SpecError):
        return Reason.SPEC_INVALID, f"The operator does not understand the spec. Correct it, or apply the CRD of this release: {cause}"
    return Reason.INTERNAL_ERROR, f"The operator failed on this cluster ({type(cause).__name__}); its log has the details. Report it."
