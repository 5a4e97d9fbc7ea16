"""Leader election by a Lease. It relies on compare-and-swap and the clock of this process only.

It is safe for four reasons. A candidate acquires a record only by its resourceVersion, and only after it *observed the record unchanged*
for its whole duration on its own clock (no timestamp of another machine is ever read). The holder counts its time from *before* the
renewal was sent, so it stops before any candidate can have waited long enough. Work is stopped and awaited before the record is released.
And everything uncertain (a call that timed out, a deleted record, a contradicting event) is read again.

Not covered: the Lease is deleted, and a process starts and reads before the holder has created it again, which the holder does at the next
event of its watch or its next renewal (processes that know the record wait for its duration). And a clock that stands still while others go
on (a virtual machine restored from a snapshot): only the compare-and-swap of each write helps there.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from whatsapp_operator.shell.clock import boottime, micro_time, utc_now

from .errors import AlreadyExists, Conflict, KubeError, NotFound, Unavailable
from .kinds import LEASE, Kind, Obj
from .transport import SentAgain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

logger = logging.getLogger(__name__)

LONGEST = 60
"""Seconds of the longest duration that a process may have. A record with a longer one was edited; its holder goes on for no longer."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Times in seconds. A holder that hangs or dies is replaced `duration` after its last renewal.

    An outage of the API server costs no leadership if it ends a tenth of `retry` before the `renew_deadline` of the last renewal; one of
    1.9 s never does. All candidates wait for the duration in the record.
    """

    duration: float = 4.0
    renew_deadline: float = 3.0
    retry: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError for times that cannot work."""
        if not (LONGEST >= self.duration > self.renew_deadline > self.retry > 0 and self.duration == int(self.duration)):
            msg = (
                f"lease timings {self.duration:g}/{self.renew_deadline:g}/{self.retry:g} s: they must fall from duration over renew "
                f"deadline to retry, and the duration must be whole seconds (the Lease can hold no others), {LONGEST} at most."
            )
            raise ValueError(msg)

    @property
    def call(self) -> float:
        """Return the time-out of one attempt, so that at least two attempts are possible before the deadline."""
        return max(self.retry, (self.renew_deadline - self.retry) / 2)


@dataclass(frozen=True, slots=True)
class Leadership:
    """One term of leadership of one process. `epoch` is compared for equality only."""

    epoch: int
    identity: str


class WorkDidNotStop(RuntimeError):  # noqa: N818  the name says what happened
    """The cancelled work was still running when the Lease had expired: only the end of the process stops it for sure."""


class Leases(Protocol):
    """The part of the Kubernetes client that an election needs; unfenced, because the fence asks the election."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Obj | None:
        """Return the object, or None if it does not exist."""
        ...

    async def create(self, obj: Obj) -> Obj:
        """Create; AlreadyExists."""
        ...

    async def replace(self, obj: Obj) -> Obj:
        """Replace by resourceVersion; Conflict, NotFound."""
        ...


class Watch(Protocol):
    """A stream of (ADDED | MODIFIED | DELETED, object) that begins with the existing objects."""

    def __call__(self, kind: Kind, namespace: str | None, *, name: str | None, server_timeout: int) -> AsyncGenerator[tuple[str, Obj]]:
        """Open the stream."""
        ...


class Election:
    """Campaigns for a Lease and works while it is held. Also the Fence of all writes: `seconds_left`."""

    def __init__(
        self,
        kube: Leases,
        *,
        namespace: str,
        name: str,
        identity: str,
        watch: Watch | None,
        timings: Timings | None = None,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare; nothing is sent before `run`.

        `identity` must be unique for each process (a pod's name is not: its container restarts). `watch` None: the record is polled each
        `retry` instead, and a released Lease is acquired that much later. `clock` returns seconds that never go back; `wall` the time
        that is written into the record for people to read.
        """
        if not identity:
            msg = "an election needs an identity that is unique for this process."
            raise ValueError(msg)
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._watch = watch
        self._timings = timings or Timings()
        self._clock = clock
        self._wall = wall

        self.sent_again = SentAgain()
        """Of renewals."""

        # All times are of `clock`.
        self._term: Leadership | None = None  # the term that this process claims
        self._renewed_at = 0.0  # before the last successful renewal was sent
        self._own_record: Obj | None = None  # the record as last written by this process; None: read it first
        self._may_hold = False  # a write of this process may have set its identity

        self._last_record: Obj | None = None  # the record as last read; None: it did not exist
        self._changed_at: float | None = None  # when it was last observed to change; None: never read
        self._created_at = clock()
        self._vacant_from = float("-inf")  # until when the holder of a record that is gone may go on
        self._last_epoch = -1  # the highest epoch that was read
        self._asked_at = float("-inf")  # the last read or event
        self._changed = asyncio.Event()
        self._last_error = ""
        self._resign = asyncio.Event()
        self._abstention = 0.0  # how long not to campaign after the term that ends

    # ------------------------------------------------------------------------------------------------------------ answers

    @property
    def leading(self) -> bool:
        """Whether this process is the leader now."""
        return self.seconds_left() > 0

    @property
    def epoch(self) -> int | None:
        """The epoch in which this process leads, or None."""
        return self._term.epoch if self._term and self.leading else None

    def seconds_left(self) -> float:
        """Return for how many seconds no other process can be the leader; 0 or less: not the leader. Also right after a pause."""
        if self._term is None:
            return 0.0
        return self._renewed_at + self._timings.duration - self._clock()

    def seconds_unrenewed(self) -> float:
        """Return for how many seconds no change of the Lease was seen, no matter who holds it; before the first read, since the start."""
        return self._clock() - (self._created_at if self._changed_at is None else self._changed_at)

    def step_down(self, abstain: float = 10.0) -> bool:
        """Give up the leadership: the work is stopped and awaited, then the Lease is released. False: this process does not lead.

        Returns at once, so the work itself may call it. For `abstain` seconds after the release this process does not campaign. Another
        candidate acquires the Lease at once; if there is none, this process leads again after that time.
        """
        if not 0 <= abstain < float("inf"):
            msg = f"cannot abstain for {abstain} s: give a number of seconds of at least 0."
            raise ValueError(msg)
        if self._term is None:
            return False
        self._abstention = max(self._abstention, abstain)
        self._resign.set()
        return True

    # ---------------------------------------------------------------------------------------------------------------- run

    async def run(self, work: Callable[[Leadership], Coroutine[Any, Any, None]]) -> None:
        """Campaign until cancelled. While this process leads, run `work`, which is cancelled and awaited when the Lease is lost.

        When the work returns or raises, which is logged, the Lease is released and the campaign goes on a `retry` later. When this is
        cancelled, the work is stopped, then the Lease is released. Raises WorkDidNotStop and nothing else.
        """
        listening = asyncio.create_task(self._listen(self._watch), name="lease-watch") if self._watch else None
        try:
            while True:
                await self._lead(await self._campaign(), work)
                await asyncio.sleep(max(self._timings.retry, self._abstention))  # another candidate may go first
        finally:
            await _uninterrupted(self._leave(listening))

    async def _leave(self, listening: asyncio.Task[None] | None) -> None:
        await self._release()  # a cancelled campaign may have acquired the Lease without an answer
        if listening:
            listening.cancel()
            await asyncio.wait({listening}, timeout=self._timings.call)

    async def _lead(self, term: Leadership, work: Callable[[Leadership], Coroutine[Any, Any, None]]) -> None:
        logger.info("Leading as %s in epoch %d.", term.identity, term.epoch)
        self._resign.clear()
        self._abstention = 0.0
        working = asyncio.create_task(work(term), name="leader-work")
        keeping = asyncio.create_task(self._renew_until_lost(term), name="lease-keep")
        resigning = asyncio.create_task(self._resign.wait(), name="leader-resigns")
        try:
            await asyncio.wait({working, keeping, resigning}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            resigned = self._term is not None
            self._term = None  # before anything else can run: from here on the fence stops every write
            resigning.cancel()
            await _uninterrupted(self._stop(working, keeping))
            if resigned:
                logger.info("Epoch %d ends, the work has stopped: releasing the Lease.", term.epoch)
            await _uninterrupted(self._release())

    async def _stop(self, working: asyncio.Task[None], keeping: asyncio.Task[None]) -> None:
        ended_by_itself = working.done()
        for task in (working, keeping):
            task.cancel()
        _, running = await asyncio.wait({working, keeping}, timeout=self._timings.duration)
        if running:
            self._may_hold = False  # so that it is not released while the work goes on; it has expired by now
            msg = f"the work of {self._identity} did not stop within {self._timings.duration:g} s of being cancelled; end this process."
            raise WorkDidNotStop(msg)
        for task in (working, keeping):
            error = None if task.cancelled() else task.exception()
            if error is not None:
                logger.error("%s failed: %s.", task.get_name(), type(error).__name__, exc_info=error)
        if ended_by_itself:
            logger.info("The leader's work ended: resigning.")

    # ----------------------------------------------------------------------------------------------------------- campaign

    async def _campaign(self) -> Leadership:
        while True:
            self._changed.clear()
            wake = self._clock() + self._timings.retry
            try:
                async with asyncio.timeout(self._timings.call):
                    term = await self._attempt()
                self._last_error = ""
                if term is not None:
                    return term
                wake = min(self._vacant_at(), self._asked_at + self._patience())
            except Exception as e:  # no answer of the server may end the campaign
                self._log_failure("acquire", e)
            await self._pause(wake)

    async def _attempt(self) -> Leadership | None:
        """Acquire the Lease if it is free; None if it is not."""
        if self._changed_at is None or self._clock() >= self._asked_at + self._patience():
            await self._read()
        while self._clock() >= self._vacant_at():
            found = self._last_record
            epoch = max(_epoch(found), self._last_epoch) + 1
            record = self._record(found, holder=self._identity, epoch=epoch, new_term=True)
            self._may_hold = True
            sent = self._clock()
            try:
                stored = await self._store(found, record)
            except (AlreadyExists, Conflict, NotFound) as e:
                self._raise_if_unusable(found, e)
                await self._read()
                continue
            self._note_record(stored)
            if self._clock() >= sent + self._timings.renew_deadline:  # this process was suspended, and another may hold the Lease by now
                continue
            self._own_record, self._renewed_at = stored, sent
            self._term = Leadership(epoch, self._identity)
            return self._term
        return None

    def _vacant_at(self) -> float:
        """Return when the last known record may be acquired."""
        if self._last_record is None or self._changed_at is None:
            return self._vacant_from
        if _holder(self._last_record) == self._identity:
            return self._vacant_from
        if not _holder(self._last_record):
            return float("-inf")
        return self._changed_at + _duration(self._last_record, self._timings.duration)

    def _patience(self) -> float:
        """Return the seconds without an event after which to read. A holder renews each `retry`, so a working watch has one in two."""
        return self._timings.retry * (2 if self._watch else 1)

    # ---------------------------------------------------------------------------------------------------------------- keep

    async def _renew_until_lost(self, term: Leadership) -> None:
        """Renew until the Lease is lost, then give up the claim."""
        lost = ""
        wake = self._renewed_at + self._timings.retry
        while not lost:
            await self._pause(wake)
            self._changed.clear()
            left = self._renewed_at + self._timings.renew_deadline - self._clock()
            if left <= 0:
                lost = f"not renewed within {self._timings.renew_deadline:g} s{': ' if self._last_error else ''}{self._last_error}"
                break
            try:
                async with asyncio.timeout(min(self._timings.call, left)):
                    lost = await self._renew(term)
                self._last_error = ""
                wake = self._renewed_at + self._timings.retry
            except Exception as e:  # no matter what the server answers: a Lease that cannot be renewed expires
                self._log_failure("renew", e)
                wake = min(self._clock() + self._timings.retry / 10, self._renewed_at + self._timings.renew_deadline)
        self._term = None
        logger.warning("Lost the Lease in epoch %d: %s.", term.epoch, lost)

    async def _renew(self, term: Leadership) -> str:
        """Renew once; return why the Lease is lost, or an empty string."""
        while True:
            found = self._own_record or await self._read()
            if found is not None and (_holder(found), _epoch(found)) != (term.identity, term.epoch):
                return f"{_holder(found) or 'nobody'} holds it in epoch {_epoch(found)}"
            record = self._record(found, holder=term.identity, epoch=term.epoch, new_term=found is None)
            sent = self._clock()
            try:
                self._own_record = await self._store(found, record)
            except (AlreadyExists, Conflict, NotFound) as e:
                self._raise_if_unusable(found, e)
                self._own_record = None
                continue
            self._note_record(self._own_record)
            self._renewed_at = sent
            return ""

    async def _store(self, found: Obj | None, record: Obj) -> Obj:
        """Write a record over ``found``, once more if half of the time for it has passed without an answer.

        Of several API servers behind a load balancer one may hang. By the resourceVersion only one of the two writes takes effect. That one
        of them gets no answer says nothing about the other.
        """

        def write() -> asyncio.Task[Obj]:
            return asyncio.ensure_future(self._kube.create(record) if found is None else self._kube.replace(record))

        writes, answered = [write()], None
        try:
            if not (await asyncio.wait(writes, timeout=self._timings.call / 2))[0]:
                writes.append(write())
            done, left = await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
            if left and all(isinstance(one.exception(), Unavailable) for one in done):
                done, _ = await asyncio.wait(writes)
            # Of two that ended, the one that took effect counts.
            ended = min(done, key=lambda one: one.exception() is not None)
            answered = None if isinstance(ended.exception(), Unavailable) else ended
            return ended.result()
        finally:
            self.sent_again.note(writes, answered)
            for one in writes:
                one.cancel()
            await asyncio.gather(*writes, return_exceptions=True)

    async def _release(self) -> None:
        """Remove this process's identity from the record, so that others need not wait."""
        try:
            async with asyncio.timeout(self._timings.call):
                while self._may_hold:
                    found = self._own_record or await self._read()
                    self._own_record = None
                    if found is not None and _holder(found) == self._identity:
                        with suppress(Conflict, NotFound):
                            self._note_record(await self._kube.replace(self._record(found, holder="", epoch=_epoch(found), new_term=False)))
                            self._may_hold = False
                    else:
                        self._may_hold = False
        except Exception as e:
            logger.warning("The Lease is not released (%s): others wait until it expires.", str(e) or type(e).__name__)

    # --------------------------------------------------------------------------------------------------------------- read

    async def _read(self) -> Obj | None:
        found = await self._kube.get(LEASE, self._namespace, self._name)
        self._note_record(found)
        return found

    def _note_record(self, found: Obj | None) -> None:
        now = self._clock()
        if found is None and self._last_record is not None:
            self._vacant_from = now + _duration(
                self._last_record, self._timings.duration
            )  # its holder may have renewed just before it was deleted
        if found is not None and _holder(found) == self._identity:
            # Not of an acquisition, it was created late, after the last record was deleted, whose holder may go on.
            self._vacant_from = max(self._vacant_from, self._vacant_at())
        if self._changed_at is None or _version(found) != _version(self._last_record):  # not by the times in it: they could be equal
            self._changed_at = now
        self._last_record = found
        self._asked_at = now
        self._last_epoch = max(self._last_epoch, _epoch(found))

    async def _listen(self, watch: Watch) -> None:
        """Keep a watch open. Its events only make this process read sooner; compare-and-swap confirms everything."""
        trouble = ""
        while True:
            opened = self._clock()
            try:
                async with aclosing(watch(LEASE, self._namespace, name=self._name, server_timeout=60)) as events:
                    while True:
                        async with asyncio.timeout(self._timings.duration):  # longer silence: no holder, or a dead connection
                            what, found = await anext(events)
                        trouble = ""
                        self._on_event(None if what == "DELETED" else found)
            except (TimeoutError, StopAsyncIteration):
                pass
            except Exception as e:
                if str(e) != trouble:
                    logger.warning("The Lease cannot be watched, so it is polled: %s", e, exc_info=None if isinstance(e, KubeError) else e)
                trouble = str(e)
            if self._clock() < opened + self._timings.retry:
                await asyncio.sleep(self._timings.retry)

    def _on_event(self, found: Obj | None) -> None:
        self._note_record(found)
        term = self._term
        if term is None or found is None or (_holder(found), _epoch(found)) != (term.identity, term.epoch):
            self._changed.set()

    async def _pause(self, until: float) -> None:
        """Wait for a change, at most until that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, until - self._clock())):  # never a busy loop, even if the two clocks differ
                await self._changed.wait()

    def _log_failure(self, doing: str, error: Exception) -> None:
        text = str(error) or f"no answer within {self._timings.call:g} s"
        logger.log(logging.DEBUG if self._last_error else logging.WARNING, "Could not %s the Lease: %s", doing, text)
        self._last_error = text

    def _raise_if_unusable(self, found: Obj | None, error: KubeError) -> None:
        """Raise an error that another read does not resolve: the namespace of a Lease to create is missing."""
        if found is None and isinstance(error, NotFound):
            raise error

    # -------------------------------------------------------------------------------------------------------------- record

    def _record(self, found: Obj | None, *, holder: str, epoch: int, new_term: bool) -> Obj:
        """Return the Lease to write over `found`; foreign fields stay."""
        record: Obj = {**found} if found is not None else {"metadata": {"namespace": self._namespace, "name": self._name}}
        spec = {**_spec(found)}
        record |= {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "spec": spec}
        now = self._wall()
        # The server drops a write that changes nothing, and then no candidate would see a renewal.
        if micro_time(now) == spec.get("renewTime"):
            now += timedelta(microseconds=1)
        spec |= {
            "holderIdentity": holder,
            "leaseDurationSeconds": int(self._timings.duration),
            "leaseTransitions": epoch,
            "renewTime": micro_time(now),
        }
        if new_term:
            spec["acquireTime"] = micro_time(now)
        return record


# ------------------------------------------------------------------------------------------------------ reading a record


def _spec(record: Obj | None) -> dict[str, Any]:
    return (record or {}).get("spec") or {}


def _holder(record: Obj) -> str:
    return _spec(record).get("holderIdentity") or ""


def _epoch(record: Obj | None) -> int:
    """Return the epoch of a record; -1 if there is none, so that the first one is 0."""
    return int(_spec(record).get("leaseTransitions") or 0) if record else -1


def _version(record: Obj | None) -> str:
    """Return what compare-and-swap compares: so the record that is acquired is the one that was observed unchanged."""
    return str(record["metadata"].get("resourceVersion")) if record else ""


def _duration(record: Obj, otherwise: float) -> float:
    """Return how long the holder of a record may go on without renewing; its timings may differ from those of this process."""
    return min(float(_spec(record).get("leaseDurationSeconds") or otherwise), LONGEST)


# --------------------------------------------------------------------------------------------------------------- tasks


async def _uninterrupted(ending: Coroutine[Any, Any, None]) -> None:
    """Await it to its end even if this task is cancelled meanwhile; then raise the cancellation."""
    task = asyncio.create_task(ending)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as e:
            cancelled = e
    task.result()
    if cancelled is not None:
        raise cancelled
