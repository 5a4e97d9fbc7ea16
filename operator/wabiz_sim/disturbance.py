"""What is wrong with a Coreapp as others see it: probes that are swallowed or answered late, ports that are closed or half open."""

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
"""Who calls from this address is on the Coreapp's side when the network has parted."""
_GONE_LOOK_SECONDS = 0.5


@dataclass(slots=True)
class Disturbance:
    """What is wrong now; nothing unless somebody asks for it. A restarted container is well again."""

    swallow: float = 0.0
    """Share (0 to 1) of the probes that are never answered, while their connection stays open."""
    late: float = 0.0
    """Seconds by which every answer to a probe comes late."""
    linger: float | None = None
    """Seconds that it goes on after SIGTERM, if its grace lasts; None: as the vendor's does."""
    ports: str = "open"
    """``closed``: nobody listens, connections are reset, the process lives. ``half-open``: connections stay and nothing is answered on
    them, new ones are not completed (no SYN is answered). ``parted``: callers are not answered, but for those at NEAR; the Coreapp itself
    reaches whom it calls."""

    effects: Counter[str] = field(default_factory=Counter)
    """What it did so far: ``probes lost``, ``probes late``."""

    def read(self, wish: Mapping[str, Any]) -> None:
        """Take over what ``wish`` names. ValueError with a sentence, and nothing is changed, when it is not understood."""
        unknown = sorted(set(wish) - {"swallow", "late", "linger", "ports"})
        if unknown:
            msg = f"a disturbance has swallow, late, linger and ports, not {', '.join(unknown)}"
            raise ValueError(msg)
        swallow, late, linger = (_seconds(wish, name, old) for name, old in _numbers(self))
        ports = wish.get("ports", self.ports)
        if ports not in PORTS:
            msg = f"ports must be one of {', '.join(PORTS)}, not {ports!r}"
            raise ValueError(msg)
        if swallow is None or swallow > 1 or late is None:
            msg = "swallow must be a share from 0 to 1 and late a number of seconds"
            raise ValueError(msg)
        self.swallow, self.late, self.linger, self.ports = swallow, late, linger, ports

    @web.middleware
    async def meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Meet one probe: answer it, later, or never."""
        if random.random() < self.swallow:  # noqa: S311 - chance, not secrecy
            self.effects["probes lost"] += 1
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - aiohttp tells no handler
                await asyncio.sleep(_GONE_LOOK_SECONDS)
            raise ConnectionResetError
        if self.late > 0:
            self.effects["probes late"] += 1
            await asyncio.sleep(self.late)
        return await handler(request)


def _numbers(have: Disturbance) -> tuple[tuple[str, float | None], ...]:
    return ("swallow", have.swallow), ("late", have.late), ("linger", have.linger)


def _seconds(wish: Mapping[str, Any], name: str, old: float | None) -> float | None:
    value = wish.get(name, old)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0):
        return value
    msg = f"{name} must be a number of at least 0, not {value!r}"
    raise ValueError(msg)
