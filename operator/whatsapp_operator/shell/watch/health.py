"""When each watch of the API server was last connected, and whether this process still tries. Does no I/O itself.

A watch that the API server rejects is cut off: another candidate may be able to watch, so the leadership goes to it. A watch that nothing
has tried to open for long is stalled: this process is faulty, and only a new one helps. A rejection alone is no reason to end the process,
because the next one would be rejected too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube.kinds import Kind, Obj

STALLED_AFTER: Final = 60.0
"""Seconds without an attempt after which a watch counts as stalled; longer than any stream and any pause between two attempts."""
GAP: Final = 3.0
"""Seconds that may pass between two streams of a healthy watch, and before its first."""


@dataclass(slots=True)
class _Watch:
    essential: bool
    stalled_after: float
    connected_at: float
    tended_at: float
    is_open: Callable[[], bool] | None = None
    """Returns whether the newest stream is still open."""
    was_connected: bool = False
    """It was connected at least once."""
    is_rejected: bool = False
    """The API server has rejected it since it was last connected."""

    def refresh(self, now: float) -> None:
        if self.is_open is not None and self.is_open():
            self.connected_at = self.tended_at = now


class WatchHealth:
    """The state of the watches of this process, by name. All methods may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        """Prepare. The time of a watch counts from ``expect``."""
        self._clock = clock
        self._watches: dict[str, _Watch] = {}

    def expect(self, name: str, *, essential: bool, stalled_after: float = STALLED_AFTER) -> None:
        """Add a watch. ``essential``: a process without it should not lead. ``stalled_after`` is in seconds."""
        now = self._clock.monotonic()
        self._watches[name] = _Watch(essential, stalled_after, connected_at=now, tended_at=now)

    # --- input -----------------------------------------------------------------------------------------------------

    def tended(self, name: str) -> None:
        """Note an attempt to open a watch, or any answer to it."""
        if (watch := self._watches.get(name)) is not None:
            watch.tended_at = self._clock.monotonic()

    def connected(self, name: str, is_open: Callable[[], bool] | None = None) -> None:
        """Note that a watch is connected now; with ``is_open`` it stays connected while that returns True."""
        if (watch := self._watches.get(name)) is not None:
            watch.connected_at = watch.tended_at = self._clock.monotonic()
            watch.is_open, watch.was_connected, watch.is_rejected = is_open or watch.is_open, True, False

    def rejected(self, name: str) -> None:
        """Note that the API server has rejected a watch: its namespace may be gone, with the rights in it."""
        if (watch := self._watches.get(name)) is not None:
            watch.is_rejected = True

    # --- output ----------------------------------------------------------------------------------------------------

    def seconds_cut_off(self) -> dict[str, float]:
        """Return for each watch how long it has not been connected; 0 while its stream is open."""
        now = self._clock.monotonic()
        for watch in tuple(self._watches.values()):
            watch.refresh(now)
        return {name: now - watch.connected_at for name, watch in tuple(self._watches.items())}

    def seconds_dead(self, names: Iterable[str]) -> float:
        """Return for how many seconds the worst of these watches has not been connected, except those that wait for a missing right."""
        seconds = self.seconds_cut_off()
        return max((seconds[name] for name in names if not self._is_excused(name, seconds)), default=0.0)

    def _is_excused(self, name: str, seconds: Mapping[str, float]) -> bool:
        """Whether a watch is rejected in its namespace while a watch of the same kind is connected in another one.

        No other process may watch there either, and the clusters of the other namespaces need a leader that stays.
        """
        kind = name.partition(" in ")[0]
        siblings = (other for other in seconds if other != name and other.partition(" in ")[0] == kind)
        return self._watches[name].is_rejected and any(seconds[other] <= GAP for other in siblings)

    def cut_off(self) -> str | None:
        """Return why this process should not lead, or None: an essential watch is not connected."""
        seconds = self.seconds_cut_off()
        far = [name for name, watch in tuple(self._watches.items()) if watch.essential and seconds[name] > GAP]
        silent = [name for name in far if not self._is_excused(name, seconds)]
        return f"not connected to {', '.join(silent)}" if silent else None

    def never_connected(self) -> str | None:
        """Return which essential watches have never been connected, or None."""
        seconds = self.seconds_cut_off()
        new = [name for name, watch in tuple(self._watches.items()) if watch.essential and not watch.was_connected]
        missing = [name for name in new if not self._is_excused(name, seconds)]
        rejected = [name for name in missing if self._watches[name].is_rejected]
        if rejected:
            return f"the API server rejects the watch of {', '.join(rejected)}"
        return f"not connected to {', '.join(missing)} yet" if missing else None

    def stalled(self) -> str | None:
        """Return why only a new process helps, or None: nothing tries to open a watch any more."""
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
        """Yield what the client's watch yields. An event, or an end without an error, shows that the watch is connected."""
        name = name_of(kind, namespace)
        self._health.tended(name)
        async with aclosing(self._kube.watch(kind, namespace, **options)) as events:
            async for event in events:
                self._health.connected(name)
                yield event
        self._health.connected(name)


def name_of(kind: Kind, namespace: str | None) -> str:
    """Return the name of a watch: the plural of its kind, and the namespace if it covers only one."""
    return f"{kind.plural} in {namespace}" if namespace else kind.plural
