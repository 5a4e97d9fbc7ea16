"""When each watch of the API server was last connected, and whether somebody still tends it. Reads and writes nothing itself.

A watch that the API server refuses is cut off: another candidate may see more, so leadership goes to it. A watch that nothing has tried to
open for long is stalled: the fault is ours, and only a new process mends it. A refusal alone is no reason to end the process, because the
next one would be refused too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube.kinds import Kind, Obj

STALLED_AFTER: Final = 60.0
"""Seconds without any attempt after which a watch counts as stalled; longer than any stream and any pause between two attempts."""
GAP: Final = 3.0
"""Seconds that may pass between two streams of a healthy watch, and before its first."""


@dataclass(slots=True)
class _Watch:
    essential: bool
    stalled_after: float
    connected_at: float
    tended_at: float
    is_open: Callable[[], bool] | None = None
    """Asks the newest stream whether it is still open."""

    def refresh(self, now: float) -> None:
        if self.is_open is not None and self.is_open():
            self.connected_at = self.tended_at = now


class WatchHealth:
    """What is known of the watches of this process, by name. Any thread may tell and ask."""

    def __init__(self, clock: Clock) -> None:
        """Prepare; a watch counts from when it is expected."""
        self._clock = clock
        self._watches: dict[str, _Watch] = {}

    def expect(self, name: str, *, essential: bool, stalled_after: float = STALLED_AFTER) -> None:
        """Say that there is to be such a watch. ``essential``: a leader without it is not to lead; ``stalled_after`` is in seconds."""
        now = self._clock.monotonic()
        self._watches[name] = _Watch(essential, stalled_after, connected_at=now, tended_at=now)

    # --- what is told -----------------------------------------------------------------------------------------------------

    def tended(self, name: str) -> None:
        """Take in that an attempt was made to open a watch, or that an answer came, whatever it says."""
        if (watch := self._watches.get(name)) is not None:
            watch.tended_at = self._clock.monotonic()

    def connected(self, name: str, is_open: Callable[[], bool] | None = None) -> None:
        """Take in that a watch is connected now; with ``is_open`` it stays so for as long as that returns True."""
        if (watch := self._watches.get(name)) is not None:
            watch.connected_at = watch.tended_at = self._clock.monotonic()
            watch.is_open = is_open or watch.is_open

    # --- what is asked ----------------------------------------------------------------------------------------------------

    def seconds_cut_off(self) -> dict[str, float]:
        """Return for each watch how long it has not been connected; 0 while its stream is open."""
        now = self._clock.monotonic()
        for watch in tuple(self._watches.values()):
            watch.refresh(now)
        return {name: now - watch.connected_at for name, watch in tuple(self._watches.items())}

    def cut_off(self) -> str | None:
        """Return why this process should not lead, or None: an essential watch is not connected."""
        silent = [name for name, seconds in self.seconds_cut_off().items() if seconds > GAP and self._watches[name].essential]
        return f"not connected to {', '.join(silent)}" if silent else None

    def stalled(self) -> str | None:
        """Return why only a new process helps, or None: nobody tries to open a watch any more."""
        self.seconds_cut_off()
        now = self._clock.monotonic()
        for name, watch in tuple(self._watches.items()):
            if now - watch.tended_at > watch.stalled_after:
                return f"nothing has watched {name} for {now - watch.tended_at:.0f} s"
        return None


class Reads(Protocol):
    """The part of a client for Kubernetes that lists and watches."""

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        """Return all objects, and the resourceVersion from which a watch misses nothing."""
        ...

    @property
    def watch(self) -> Callable[..., AsyncGenerator[tuple[str, Obj]]]:
        """Yield (ADDED | MODIFIED | DELETED, object) until the server ends the stream."""
        ...


class TendedReads:
    """The lists and watches of a client for Kubernetes, each noted in a WatchHealth under the name that ``name_of`` gives it."""

    def __init__(self, kube: Reads, health: WatchHealth) -> None:
        """Pass everything on to ``kube``."""
        self._kube = kube
        self._health = health

    async def list_to_watch(self, kind: Kind, namespace: str | None) -> tuple[list[Obj], str]:
        """Return all objects, and the resourceVersion from which a watch misses nothing."""
        name = name_of(kind, namespace)
        self._health.tended(name)
        found = await self._kube.list_to_watch(kind, namespace)
        self._health.connected(name)
        return found

    async def watch(self, kind: Kind, namespace: str | None, **options: Any) -> AsyncGenerator[tuple[str, Obj]]:
        """Yield what the client's watch yields. An event and an end in good order show that the watch is connected."""
        name = name_of(kind, namespace)
        self._health.tended(name)
        async with aclosing(self._kube.watch(kind, namespace, **options)) as events:
            async for event in events:
                self._health.connected(name)
                yield event
        self._health.connected(name)


def name_of(kind: Kind, namespace: str | None) -> str:
    """Return what a watch is called: the plural of its kind, and the namespace if it is of one only."""
    return f"{kind.plural} in {namespace}" if namespace else kind.plural
