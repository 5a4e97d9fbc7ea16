"""What a hollow pod asks of a part of the simulator that runs in its process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

Resolve = Callable[[str, int], Awaitable[tuple[str, int]]]


class Component(Protocol):
    """A part of the simulator, running in this process. It may also have ``disturb(wish)`` and ``effects``, as a Coreapp does."""

    @property
    def ready(self) -> bool:
        """Whether its readiness probe would succeed."""

    async def start(self) -> None:
        """Begin to listen."""

    async def stop(self, grace: float) -> None:
        """SIGTERM; returns when it has ended by itself, `grace` (s) being what it has."""

    async def kill(self) -> None:
        """SIGKILL."""

    def hang(self) -> object:
        """SIGSTOP."""

    def resume(self) -> object:
        """SIGCONT."""

    async def wait_stopped(self) -> object:
        """Returns when it has ended, for whatever reason; an int is taken as its exit code."""


Make = Callable[[str, Mapping[str, str], Resolve], Component]
