"""What a hollow pod asks of a part of the simulator that runs in its process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

Resolve = Callable[[str, int], Awaitable[tuple[str, int]]]


class Component(Protocol):
    """A part of the simulator, running in this process. It may also have ``disturb(fault)`` and ``effects``, as a Coreapp does."""

    @property
    def ready(self) -> bool:
        """Whether its readiness probe would succeed."""

    async def start(self) -> None:
        """Begin to listen."""

    async def stop(self, grace: float) -> None:
        """SIGTERM; returns when it has ended by itself, `grace` (s) being what it has."""

    async def kill(self) -> None:
        """SIGKILL."""

    def hang(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""

    async def wait_stopped(self) -> None:
        """Returns when it has ended, for any reason; raises what it died of."""


Make = Callable[[str, Mapping[str, str], Resolve], Component]
