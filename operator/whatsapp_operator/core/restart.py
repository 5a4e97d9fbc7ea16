"""Facts about Set Shards: the client's answers, whether a call is due or waits, and what a restart explains."""

from __future__ import annotations

from datetime import timedelta
from zlib import crc32

from . import windows
from .capacity import Counts
from .snapshot import Answer, Coreapp, Login, Operation


class Restart(Counts):
    """Adds the client's number of shards over time: reported, settled, being changed, and the restart after a change."""

    @property
    def shards_are_fresh(self) -> bool:
        """Whether the number of shards was requested just now, in this leadership (laws#5), and no Coreapp's connection has ended since.

        Each change of the number ends all connections: what was asked for before may be the former number, also once all are back. A
        Coreapp that is still starting has had no connection that could end.
        """
        asked, now = self.snapshot.client.asked_at, self.snapshot.now
        if self.shards is None or asked is None or now - asked > self.desired.tuning.ask_fresh:
            return False
        started = (pod for pod in self.snapshot.coreapps if pod.ready or pod.lost_readiness)
        ended = (*(pod.broken_at for pod in started), *(pod.ended_at for pod in self.snapshot.coreapps))
        return all(at is None or at <= asked for at in ended)

    @property
    def known_shards(self) -> int | None:
        """S; while that is unknown the number last settled, unless a call may have changed it."""
        return self.shards if self.shards is not None or self.call_in_effect is not None else self.settled_shards

    @property
    def has_asked(self) -> bool:
        """Whether this process knows something about the client, even if only that it does not answer; or cannot ask it."""
        client = self.snapshot.client
        if "Secret" in self.snapshot.unread:
            return True
        known = client.asked_at is not None or client.unresponsive_since is not None or client.login is Login.REJECTED
        return known or not self.webapp_ready or self.settled_shards is None

    @property
    def is_logged_off(self) -> bool:
        """Whether a rejected certificate logged the client off; only an accepted Set Shards logs it on again."""
        return self.record.logged_off_at is not None

    @property
    def is_banned(self) -> bool:
        """Whether the client reported that the account is banned; that is final."""
        return self.record.banned_at is not None

    @property
    def is_settled(self) -> bool:
        """Whether the shards are as desired, the client is not logged off, and no call is in progress."""
        return self.operation is None and self.shards == self.desired.shards and not self.is_logged_off

    @property
    def resize_is_due(self) -> bool:
        """Whether the client reports another number than desired, or is logged off."""
        return self.shards is not None and (self.shards != self.desired.shards or self.is_logged_off)

    @property
    def resize_is_wanted(self) -> bool:
        """Whether Set Shards is needed: the client reports another number or is logged off, and nothing is in progress."""
        return self.resize_is_due and self.may_try_again

    @property
    def may_try_again(self) -> bool:
        """Whether no earlier call stands in the way: the pause after a busy answer is over, or an accepted call is overdue."""
        operation = self.operation
        if operation is None:
            return True
        if operation.answer is Answer.BUSY:
            return self.snapshot.now >= operation.started_at + self.backoff
        return self.restart_is_overdue

    @property
    def must_hold_off(self) -> bool:
        """Whether a busy client asked not to be called, and that time is not over. It applies to every number of shards."""
        operation = self.operation
        if operation is None or operation.answer is not Answer.BUSY or operation.retry_after is None:
            return False
        return self.snapshot.now < operation.started_at + operation.retry_after

    @property
    def backoff(self) -> timedelta:
        """Pause after a busy answer: what the client asks for, or the operator's own pause if that is longer.

        The operator's pause doubles with each attempt, up to a minute, give or take a fifth (so that clusters do not call in step).
        """
        operation = self.operation
        if operation is None:
            return timedelta(0)
        pause = min(self.desired.tuning.busy_backoff * (1 << max(0, min(operation.attempts - 1, 10))), timedelta(minutes=1))
        # The random part comes from the attempt's id, so that the same observation gives the same result.
        pause *= 0.8 + 0.4 * (crc32(operation.id.encode()) % 1000) / 1000
        return max(pause, operation.retry_after or timedelta(0))

    @property
    def has_drifted(self) -> bool:
        """Whether something else changed the number of shards: it differs from the settled number, which is the desired one."""
        return self.resize_is_wanted and self.settled_shards == self.desired.shards != self.shards

    @property
    def window_is_shut(self) -> bool:
        """Whether Set Shards waits for a window.

        It does not wait before the first number is settled, for the number that the annotation starts now, or while the client is logged
        off: nothing is served then that the call could interrupt.
        """
        desired = self.desired
        if self.settled_shards is None or desired.reshard_now == desired.shards or self.is_logged_off:
            return False
        return not windows.is_open(desired.windows, self.wall)

    @property
    def call_in_effect(self) -> Operation | None:
        """The noted call, if it may have changed something. A busy client turned it away, and may do so for days."""
        operation = self.operation
        return None if operation is None or operation.answer is Answer.BUSY else operation

    @property
    def restart_is_expected(self) -> bool:
        """Whether a Set Shards restart explains the absence of a Coreapp (laws#9)."""
        operation = self.call_in_effect
        return operation is not None and self.snapshot.now < operation.deadline

    @property
    def restart_is_overdue(self) -> bool:
        """Whether the shards are set but the deadline for the restart has passed."""
        operation = self.operation
        return (
            operation is not None
            and operation.answer is Answer.ACCEPTED
            and self.shards == operation.to
            and self.snapshot.now >= operation.deadline
        )

    @property
    def set_shards_is_open(self) -> bool:
        """Whether a noted call may still take effect, or its restart has time left. Some Coreapps may never come back from it."""
        return self.call_in_effect is not None and not self.restart_is_overdue

    @property
    def is_verified(self) -> bool:
        """Whether the number that GET reports is final: no call in progress, a rejected one, or one that GET confirms."""
        operation = self.call_in_effect
        return operation is None or (operation.answer is Answer.ACCEPTED and self.shards == operation.to)

    def has_restarted(self, pod: Coreapp) -> bool:
        """Return whether a Coreapp reports the number of shards that the client reports.

        A call that logs the client on changes no number: there, a holder is back when it is connected.
        """
        report, operation = pod.report, self.call_in_effect
        if report is None or report.shards != (operation.to if operation else self.shards):
            return False
        return operation is None or not operation.logs_on or report.shard is None or report.gateway == "connected"

    def is_explained_by_restart(self, pod: Coreapp) -> bool:
        """Return whether the restart explains this pod's absence; its window ends when it reports the new number."""
        return self.restart_is_expected and not self.has_restarted(pod)
