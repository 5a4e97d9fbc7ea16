"""Injected faults of a Coreapp: probes that are answered late or never, ports that are closed or half open."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

PORTS = ("open", "closed", "half-open", "parted")
NEAR = "127.0.0.77"
"""Callers with this address are on the Coreapp's side of a network partition."""
_CLOSED_CHECK_SECONDS = 0.5


@dataclass(slots=True)
class Disturbance:
    """The current faults; none by default. A restarted container has none."""

    swallow: float = 0.0
    """Share (0 to 1) of the probes that are never answered, while their connection stays open."""
    late: float = 0.0
    """Seconds by which every answer to a probe comes late."""
    linger: float | None = None
    """Seconds for which it keeps running after SIGTERM, within its grace period; None: like the vendor's client."""
    ports: str = "open"
    """``closed``: the ports are closed, connections are reset, the process lives. ``half-open``: connections stay open and nothing is
    answered on them, new ones are not completed (no SYN is answered). ``parted``: callers are not answered, except those at NEAR; the
    Coreapp itself can connect to all others."""

    effects: Counter[str] = field(default_factory=Counter)
    """Effects so far: ``probes lost``, ``probes late``."""

    def read(self, changes: Mapping[str, Any]) -> None:
        """Apply the fields in ``changes``. ValueError with a sentence, and no change, if it is not valid."""
        unknown = sorted(set(changes) - {"swallow", "late", "linger", "ports"})
        if unknown:
            msg = f"a disturbance has swallow, late, linger and ports, not {', '.join(unknown)}"
            raise ValueError(msg)
        swallow, late, linger = (_seconds(changes, name, getattr(self, name)) for name in ("swallow", "late", "linger"))
        ports = changes.get("ports", self.ports)
        if ports not in PORTS:
            msg = f"ports must be one of {', '.join(PORTS)}, not {ports!r}"
            raise ValueError(msg)
        if swallow is None or swallow > 1 or late is None:
            msg = "swallow must be a share from 0 to 1 and late a number of seconds"
            raise ValueError(msg)
        self.swallow, self.late, self.linger, self.ports = swallow, late, linger, ports

    @web.middleware
    async def meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle one probe: answer it now, later, or never."""
        if random.random() < self.swallow:  # noqa: S311 - chance, not secrecy
            self.effects["probes lost"] += 1
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp tells no handler
                await asyncio.sleep(_CLOSED_CHECK_SECONDS)
            raise ConnectionResetError
        if self.late > 0:
            self.effects["probes late"] += 1
            await asyncio.sleep(self.late)
        return await handler(request)


def _seconds(changes: Mapping[str, Any], name: str, old: float | None) -> float | None:
    value = changes.get(name, old)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        return value
    msg = f"{name} must be a number of at least 0, not {value!r}"
    raise ValueError(msg)
