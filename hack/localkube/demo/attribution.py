"""Who changed a shard's Service, by the audit log: each replica of the operator has a credential of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from localkube.plane.controlplane import Write

CHANGES = frozenset({"update", "patch"})


def authors(writes: Iterable[Write], *, namespace: str, service: str, begun: float, ended: float) -> list[str]:
    """Credential of each write that changed a Service between two times (`time.time()`), in their order."""
    return [
        write.credential
        for write in writes
        if (write.resource, write.namespace, write.name, write.subresource) == ("services", namespace, service, "")
        and write.verb in CHANGES
        and 200 <= write.code < 300
        and begun <= datetime.fromisoformat(write.at).timestamp() <= ended
    ]
