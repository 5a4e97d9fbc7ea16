"""How the operator marks its objects: labels, annotations, the Service of a shard. Pure.

The operator's own ``core.manifests`` defines the same, but takes a tenth of a second to load, too long for a person in an outage. A test
compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kubectl_whatsapp import Obj

CLUSTER_LABEL: Final = "multiconnect.dev/cluster"
SHARD_LABEL: Final = "multiconnect.dev/shard"
EPOCH_LABEL: Final = "multiconnect.dev/epoch"
ROLE_LABEL: Final = "multiconnect.dev/role"
RETIRING: Final = "retiring"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
HOLDER_ANNOTATION: Final = "multiconnect.dev/holder"
COMMITTED_ANNOTATION: Final = "multiconnect.dev/committed-at"
SWITCHOVER_ANNOTATION: Final = "multiconnect.dev/switchover"
RESHARD_NOW_ANNOTATION: Final = "multiconnect.dev/reshard-now"
PAUSED_ANNOTATION: Final = "multiconnect.dev/paused"
_EPOCH: Final = re.compile(r"[0-9]+-.+")
_POD: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The Service of one shard: where its messages go."""

    shard: int
    epoch: str | None
    holder: str | None
    holder_uid: str | None
    committed_at: datetime | None


def route_of(service: Obj, cluster: str, uid: str) -> Route | None:
    """Return the route that this Service represents; None if it is not a shard's Service of the cluster with this name and uid."""
    meta = service["metadata"]
    match = re.fullmatch(rf"{re.escape(cluster)}-shard-(0|[1-9][0-9]?)", meta["name"])
    if match is None or uid not in {one.get("uid") for one in meta.get("ownerReferences") or ()}:
        return None
    notes: Mapping[str, str] = meta.get("annotations") or {}
    epoch = str(((service.get("spec") or {}).get("selector") or {}).get(EPOCH_LABEL) or "")
    holder, _, holder_uid = notes.get(HOLDER_ANNOTATION, "").partition("/")
    is_held = bool(_EPOCH.fullmatch(epoch)) and bool(_POD.fullmatch(holder))
    return Route(
        shard=int(match[1]),
        epoch=epoch if _EPOCH.fullmatch(epoch) else None,
        holder=holder if is_held else None,
        holder_uid=holder_uid if is_held and holder_uid else None,
        committed_at=moment(notes.get(COMMITTED_ANNOTATION)),
    )


def is_name(text: str) -> bool:
    """Whether a Kubernetes object can have this name. Any other text must not become part of a path."""
    return len(text) <= 253 and bool(re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", text))


def renewed(lease: Obj) -> datetime | None:
    """Return when a Lease was last renewed; None if never.

    The holder's clock may be wrong. The API server records the time of each renewal by its own clock, to the second (managedFields).
    """
    fields = (
        one for one in lease["metadata"].get("managedFields") or () if "f:renewTime" in ((one.get("fieldsV1") or {}).get("f:spec") or {})
    )
    noted = [at for one in fields if (at := moment(one.get("time"))) is not None]
    return max(noted, default=moment((lease.get("spec") or {}).get("renewTime")))


def moment(text: object) -> datetime | None:
    """Return a time in Kubernetes' notation as UTC; None if it is not a time."""
    try:
        found = datetime.fromisoformat(str(text))
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
