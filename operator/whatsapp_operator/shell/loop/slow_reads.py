"""Reads what no failover depends on: in the background, used for a while, and unknown until it is read."""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import TypeVar

from whatsapp_operator.core import manifests, missing, pace
from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.shell.clock import Clock
from whatsapp_operator.shell.kube import kinds
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import KubeError
from whatsapp_operator.shell.kube.kinds import Kind
from whatsapp_operator.shell.objects import assemble, secret_keys
from whatsapp_operator.shell.objects.assemble import Slow
from whatsapp_operator.shell.objects.rejections import missing_names, rejection_of

from .cluster import Memory

log = logging.getLogger(__name__)

T = TypeVar("T")

Fast = tuple[tuple[Iterable[Obj], str], ...]
"""Objects that a failover depends on, as they were listed, with their kinds."""


class SlowReads:
    """Reads what no failover depends on. What was read is remembered with its cluster."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        """Prepare; nothing is read yet."""
        self._kube = kube
        self._clock = clock

    def begin(self, desired: Desired, memory: Memory, fast: asyncio.Future[Fast | None]) -> None:
        """Start to read what no failover depends on, unless that is in progress or was done a moment ago."""
        if memory.slow is not None and not memory.slow.names >= _secret_names(desired):
            # The spec names a Secret that the last observation did not read: not read is not missing.
            memory.slow = None
        if memory.reading is not None:
            return
        since = memory.since.get(missing.MISSING)
        reads_events = since is not None and self._clock.now() - since >= missing.ASKED_AFTER
        is_due = memory.slow is None or self._clock.monotonic() - memory.slow.read_at >= _usable_for(memory.slow)
        if is_due or (reads_events and memory.slow is not None and not memory.slow.events_were_read):
            read = self._read(desired, fast, reads_events=reads_events)
            memory.reading = asyncio.create_task(read, name=f"slow objects of {desired.key}")

    async def result(self, desired: Desired, memory: Memory, *, patience: float) -> Slow:
        """Return what was read just now, or a moment ago, and remember it. Objects that are still being read are unknown."""
        if memory.reading is not None:
            await asyncio.wait({memory.reading}, timeout=patience)
            if memory.reading.done():
                before, reading = memory.slow, memory.reading
                # Reset before the result is taken: otherwise each later observation would raise the same error.
                memory.slow = memory.reading = None
                try:
                    memory.slow = reading.result()
                except Exception as error:
                    log.exception("%s: objects could not be read, by an internal error of the operator", desired.key)
                    why = f"an internal error of the operator ({type(error).__name__}); its log has the details"
                    return self._nothing_read(desired, why)
                memory.is_call_due = False
                # An earlier observation may have begun the read, and this one may have waited long for its turn.
                memory.slow.again = self._clock.monotonic() - memory.slow.read_at >= pace.SLOW_FOR.total_seconds()
                if before is not None:
                    memory.slow.keep_findings(before)
                if memory.slow.names >= _secret_names(desired):
                    return memory.slow
                memory.slow = None
        if memory.slow is None:
            return self._nothing_read(desired, "")
        memory.slow.again = True
        return memory.slow

    def _nothing_read(self, desired: Desired, why: str) -> Slow:
        """Return that none of the slow objects is known; ``why`` is empty while they are still being read."""
        unread = {kind.kind: why for kind in (*_kinds(desired), kinds.SECRET)}
        return Slow(read_at=self._clock.monotonic(), objects={}, names=_secret_names(desired), secrets={}, unread=unread)

    async def _read(self, desired: Desired, fast: asyncio.Future[Fast | None], *, reads_events: bool) -> Slow:
        """Read what no failover depends on. ``fast``: the other objects once they are read, or None if that failed.

        ``reads_events``: also read why pods are missing.
        """
        now, names, slow = self._clock.monotonic(), sorted(_secret_names(desired)), _kinds(desired)
        namespace, labels = desired.key.namespace, manifests.cluster_labels(desired.key.name)
        unread: dict[str, str] = {}
        lists, gets = await asyncio.gather(
            asyncio.gather(*(_attempt(partial(self._kube.list, kind, namespace, labels), kind, unread) for kind in slow)),
            asyncio.gather(*(_attempt(partial(self._kube.get, kinds.SECRET, namespace, name), kinds.SECRET, unread) for name in names)),
        )
        found = {name: one[0] for name, one in zip(names, gets, strict=True) if one}
        secrets = {name: obj for name, obj in found.items() if obj is None or assemble.sound([obj], "Secret", unread)}
        read: list[Obj] = [
            obj for kind, one in zip(slow, lists, strict=True) for listed in one for obj in assemble.sound(listed, kind.kind, unread)
        ]
        generated = {secret["metadata"]["name"] for secret in desired.derive(manifests.secrets)}
        read += [assemble.without_content(obj) for name, obj in secrets.items() if name in generated and obj is not None]
        others = await fast
        known = None if others is None else [obj for listed, kind in others for obj in assemble.sound(listed, kind, {})]
        # Objects of kinds that could not be listed are not read by name.
        skipped = {} if known is not None else dict.fromkeys((kinds.SERVICE.kind, kinds.STATEFULSET.kind, kinds.POD.kind), "")
        rejected = await self._rejected(desired, known or [], unread) if reads_events else {}
        strays = await self._named(desired, assemble.unfound(desired, [*read, *(known or [])]), ChainMap(unread, skipped))
        named = assemble.sort_out(desired, read, known or [], strays)
        return Slow(
            read_at=now,
            objects=dict(named.objects),
            names=frozenset(names),
            secrets=secrets,
            unread=unread,
            name_conflicts=named.name_conflicts,
            pods=named.pods,
            events_were_read=reads_events,
            rejected_pods=rejected,
        )

    async def _rejected(self, desired: Desired, known: Iterable[Obj], unread: MutableMapping[str, str]) -> dict[Ref, str]:
        """Return why a pod cannot be created, by StatefulSet. Only the Events of its controller say so."""
        known, found = [*known], {}
        pods = [obj for obj in known if obj["kind"] == kinds.POD.kind]
        for ref, obj in assemble.by_ref(known, desired.uid).items():
            names = missing_names(obj, pods) if ref.kind == kinds.STATEFULSET.kind else []
            read = partial(self._kube.list_events, desired.key.namespace, obj["metadata"]["uid"])
            for events in await _attempt(read, kinds.EVENT, unread) if names else ():
                if (why := rejection_of(assemble.sound(events, kinds.EVENT.kind, {}), names)) is not None:
                    found[ref] = why
        return found

    async def _named(self, desired: Desired, refs: Iterable[Ref], unread: MutableMapping[str, str]) -> list[Obj]:
        """Return those of these objects that exist, with any labels; note which kinds cannot be read.

        Secrets are left out: they are always read by name.
        """
        requested = [(kind, ref) for ref in refs for kind in kinds.KINDS if kind.kind == ref.kind and ref.kind not in {*unread, "Secret"}]
        gets = (_attempt(partial(self._kube.get, kind, desired.key.namespace, ref.name), kind, unread) for kind, ref in requested)
        found = [obj for one in await asyncio.gather(*gets) for obj in one if obj is not None]
        return [obj for obj in found if assemble.sound([obj], str(obj.get("kind")), unread)]


def _secret_names(desired: Desired) -> frozenset[str]:
    """Return the names of all Secrets that a cluster needs."""
    return frozenset(one.name for one in secret_keys.named(desired))


def _kinds(desired: Desired) -> tuple[Kind, ...]:
    """Return the kinds that no failover depends on, without Secrets."""
    return (kinds.DEPLOYMENT, kinds.PDB, kinds.NETWORKPOLICY, *([kinds.PVC] if desired.storage else []))


def _usable_for(slow: Slow) -> float:
    """Return the seconds for which slow objects that were read may be used."""
    return (pace.SLOW_FOR_A_WHILE if slow.passes else pace.SLOW_FOR).total_seconds()


async def _attempt(read: Callable[[], Awaitable[T]], kind: Kind, unread: MutableMapping[str, str]) -> tuple[T] | tuple[()]:
    """Return the result in a tuple; an empty one if the read failed, which is noted in ``unread``."""
    try:
        return (await read(),)
    except KubeError as error:
        unread.setdefault(kind.kind, str(error))
        return ()
