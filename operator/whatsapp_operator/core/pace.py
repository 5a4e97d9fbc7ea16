"""When to observe a cluster again, and when to ask its client again. Nothing else decides this. Pure.

There are three causes of an observation: an event, a known time at which an observed fact becomes decisive, and a pause. The pause is for
changes without an event. It grows with the age of the current condition. So a recent change is observed often, and a cluster that waits for
a person costs almost nothing. A change without an event is noticed after at most a quarter more than the time that it took, and within
``Tuning.rest``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from . import checksums, evidence, health, holders, missing, objections, rollout, scaling, windows
from .actions import State
from .facts import RETRY_REJECTED_AFTER, Facts
from .reasons import Reason
from .self_check import LEASE_STALE
from .snapshot import Answer

SECOND = timedelta(seconds=1)

# --- retries ------------------------------------------------------------------------------------------------------------

FIRST_RETRY, LAST_RETRY = timedelta(milliseconds=100), timedelta(seconds=5)
"""Pauses after the first observation or action in a row that failed, and after very many."""
LAST_URGENT_RETRY = timedelta(seconds=1)
"""The longest pause after an observation that failed while a failover may depend on it."""
REASSIGN_AFTER = timedelta(milliseconds=500)
"""Longest pause after a Coreapp did not accept its role: messages wait for that."""
FIRST_EVENT_RETRY, LAST_EVENT_RETRY = timedelta(seconds=1), timedelta(minutes=5)
"""The same for Events: nothing depends on them, so the pauses grow longer."""


def retry_after(failures: int, first: timedelta = FIRST_RETRY, last: timedelta = LAST_RETRY) -> timedelta:
    """Return the pause after this many failures in a row, at least one: it doubles from ``first`` up to ``last``."""
    doublings = min(max(failures, 1) - 1, (last // first).bit_length())
    return min(first * (1 << doublings), last)


# --- busy clusters ------------------------------------------------------------------------------------------------------

OBSERVATION_BURST, OBSERVATIONS_PER_SECOND = 30.0, 10.0
"""Observations of one cluster in a row, and per second while its events continue: one busy resource must not delay others."""
MOST_CONFLICTS = 3
"""Consecutive observations that were outdated when they were acted on; then it counts as a failure, with a pause."""


def tokens(left: float, passed: float) -> float:
    """Return how many observations a cluster may have now; ``left``: how many it had some seconds ago."""
    return min(OBSERVATION_BURST, left + passed * OBSERVATIONS_PER_SECOND)


# --- quiet clusters -----------------------------------------------------------------------------------------------------

QUIET_OBSERVATIONS = 10.0
"""Observations per second of all quiet clusters together: the more of them there are, the longer each rests."""
ASK_AGAIN = timedelta(seconds=30)
"""Time between two questions to the client of such a cluster (``Tuning.ask_steady``), asked without an observation."""


def quiet_rest(clusters: int) -> timedelta:
    """Return the minimum rest of a quiet cluster if there are this many clusters in all."""
    return timedelta(seconds=clusters / QUIET_OBSERVATIONS)


# --- objects that no failover depends on --------------------------------------------------------------------------------

SLOW_FOR, SLOW_FOR_A_WHILE = timedelta(seconds=5), timedelta(milliseconds=500)
"""For how long such objects are not read again, unless this process wrote one; the second applies while they are about to change."""

# --- the pause of each rule ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often a cluster is observed, and its client asked, while one of these rules wins and no event comes."""

    rules: frozenset[str]
    first: timedelta
    longest: timedelta
    why: str


REST = timedelta.max
"""As long as ``Tuning.rest``."""

CADENCES: tuple[Cadence, ...] = (
    Cadence(
        rules=frozenset({Reason.VERIFYING, Reason.RESTARTING}),
        first=timedelta(milliseconds=250),
        longest=2 * SECOND,
        why="Only an answer of the client moves it on, and messages wait meanwhile. It ends with the deadline.",
    ),
    Cadence(
        rules=frozenset({Reason.ANSWER_UNKNOWN}),
        first=timedelta(milliseconds=250),
        longest=5 * SECOND,
        why="Only an answer of the client moves it on. It ends with the intent's settleBy.",
    ),
    Cadence(
        rules=frozenset(
            {
                Reason.PAUSED,
                Reason.WINDOW_CLOSED,
                Reason.WINDOW_INVALID,
                Reason.SHARDS_DRIFTED,
                Reason.NAME_CONFLICT,
                Reason.CRD_OUTDATED,
                Reason.LOGIN_REJECTED,
            }
        )
        | frozenset({Reason.PODS_REJECTED, Reason.DELETION_BLOCKED, Reason.REPLICAS_OVERRULED, Reason.READ_FAILED, Reason.EPOCH_REJECTED})
        | frozenset(one.name for one in objections.OBJECTIONS),
        first=SECOND,
        longest=REST,
        why="It waits for a person or for the calendar. An edit has an event, the calendar a known time; a Secret or a right has neither.",
    ),
    Cadence(
        rules=frozenset(),
        first=timedelta(milliseconds=250),
        longest=REST,
        why="It waits for pods, Services or the StatefulSet, which have events. What has none is noticed by the growing pause.",
    ),
)
"""The first entry that names the rule applies; the last one, without names, applies to all others."""


def cadence(rule: str) -> Cadence:
    """Return the entry of a rule."""
    return next((one for one in CADENCES if rule in one.rules), CADENCES[-1])


def standing(f: Facts, rule: str) -> str:
    """Return the name of the fact that a rule wins without progress; its age is needed."""
    operation = f"{f.operation.id}/{f.operation.answer}" if f.operation is not None else ""
    numbers = (f.shards, f.replicas, len(f.ready), len(f.missing), len(f.updated_by_uid), bool(f.snapshot.client.unresponsive_since))
    return f"Stands/{rule}/{operation}/{'/'.join(map(str, numbers))}"


def is_quiet(f: Facts) -> bool:
    """Return whether nothing is in progress that could change without an event."""
    # The Deployment is not watched: neither what its controller observes nor the number that an autoscaler writes.
    webapps_change = f.snapshot.webapps_change or f.lacks_webapps
    changes = f.is_unsettled or webapps_change or f.snapshot.client.unresponsive_since is not None
    return f.desired.deleting or not changes


UNWATCHED = frozenset({Reason.NAME_CONFLICT, Reason.READ_FAILED, Reason.PODS_REJECTED}) | frozenset(
    one.name for one in objections.OBJECTIONS
)
"""Rules that may hold even in a quiet cluster and end without an event: when a person changes an object, a right, a quota or a Secret."""


def awaited(f: Facts, rule: str, others: Iterable[str] = ()) -> str | None:
    """Return the name of what may end without an event; None: nothing may. ``rule`` has won; ``others`` hold as well."""
    if not is_quiet(f):
        return rule
    objection = objections.objection_to_account(f)
    said = next((one for one in others if one in UNWATCHED), objection.name if objection is not None else None)
    return None if f.desired.deleting else said


def pause(f: Facts, rule: str | None) -> timedelta:
    """Return the longest time until the next observation without known moments: a quarter of the time that ``rule`` was awaited."""
    rest = f.desired.tuning.rest
    if rule is None:
        return rest
    entry = cadence(rule)
    first = entry.first if f.snapshot.client.unresponsive_since is None else max(entry.first, SECOND)
    age = f.snapshot.now - f.snapshot.since.get(standing(f, rule), f.snapshot.now)
    return min(max(first, age / 4), entry.longest, rest)


def observe_after(f: Facts, rule: str, others: Iterable[str] = ()) -> timedelta:
    """Return how long to rest after an observation in which this rule won, if no event comes; ``others``: see ``awaited``."""
    return min([pause(f, awaited(f, rule, others)), *due(f)])


def asks(f: Facts, rule: str, state: State) -> bool:
    """Return whether it is time to ask the client for its number of shards. Without its Secrets there is no password to ask with."""
    client, tuning = f.snapshot.client, f.desired.tuning
    if client.asking or not f.webapp_ready or "Secret" in f.snapshot.unread:
        return False
    if f.snapshot.missing is not None and f.settled_shards is None and f.shards is None:
        # A login without the password would be rejected, and is tried again only after a while.
        return False
    if client.asked_at is None:
        return True
    if is_quiet(f):
        span = tuning.ask_steady
    elif f.operation is not None and client.unresponsive_since is None:
        # This observation may be caused by the effect of the call: that must be known before a Coreapp counts as failed (laws#9).
        span = tuning.ask_busy
    else:
        # While something is in progress, the next event may allow the next step, which needs a fresh number.
        span = min(pause(f, rule), tuning.ask_working if state is State.WORKING else tuning.ask_steady)
    return f.snapshot.now - client.asked_at >= span


# --- facts whose age decides, and known times ---------------------------------------------------------------------------


def held(f: Facts, rule: str, others: Iterable[str] = ()) -> Iterator[str]:
    """Name the facts whose age the next observation wants to know; ``others``: see ``awaited``."""
    yield from _deciding(f)
    if (one := awaited(f, rule, others)) is not None:
        yield standing(f, one)


def _deciding(f: Facts) -> Iterator[str]:
    if (back := f.back_fact) is not None:
        yield back
    if (f.resize_is_wanted or f.settled_shards is None) and len(f.ready_to_stay) < f.spec_replicas:
        yield "LacksCoreapps"
    if f.is_cut_off:
        yield "CutOff"
    if objections.is_secret_missing(f):
        yield "SecretMissing"
    yield from (health.unready_fact(pod) for pod in f.snapshot.coreapps if health.is_unready(pod))
    yield from (f"NodesUnreachable/{pod.uid}" for pod in f.out_of_reach)
    yield from (fact for fact, _ in _disputed(f))
    yield from (rollout.fact(f, pod) for pod in f.outdated)
    yield from (rollout.unready_fact(pod) for pod in f.outdated if rollout.is_unready(f, pod))
    yield from (checksums.fact(ref, checksum) for ref, checksum in f.stale_workloads)
    yield from missing.facts(f)
    yield from map(holders.rejection_fact, f.rejected)
    if f.is_connected and (f.is_logged_off or (f.operation is not None and f.operation.logs_on)):
        yield "Connected"


def _disputed(f: Facts) -> Iterator[tuple[str, timedelta]]:
    """Yield the facts that speak against holders, and for how long each is accepted."""
    for route in f.routes:
        if route.copied_by is not None:
            yield evidence.conflict_fact(route)
        if (pod := f.holder(route)) is not None:
            yield from ((fact, patience) for fact, patience, _ in evidence.disputes(f, route, pod))


def due(f: Facts) -> Iterator[timedelta]:
    """Yield the time until each known decisive moment."""
    yield from (left for left in (*_facts_due(f), *_times_due(f), *_silences_due(f)) if left > timedelta(0))


def _facts_due(f: Facts) -> Iterator[timedelta]:
    """Yield the time until a fact is old enough."""
    tuning = f.desired.tuning
    spans = {
        "NotReady": (f.desired.unhealthy_after, 2 * f.desired.unhealthy_after, f.desired.restart_timeout),
        "NodesUnreachable": (health.OUT_OF_REACH,),
        "CutOff": (tuning.connection,),
        "Connected": (tuning.connection,),
        "Outdated": (rollout.ROUTES_SETTLE,),
        "OutdatedUnready": (f.desired.restart_timeout,),
        "SecretsChanged": (checksums.SETTLED_AFTER,),
        "EnoughAreBack": (tuning.missing_holder,),
        "LacksCoreapps": (f.desired.restart_timeout,),
        **missing.SPANS,
        "SecretMissing": (objections.SECRET_AWAITED,),
    }
    for fact in _deciding(f):
        age = f.snapshot.now - f.snapshot.since.get(fact, f.snapshot.now)
        yield from (span - age for span in spans.get(fact.partition("/")[0], ()))
    for fact, span in _disputed(f):
        yield span - (f.snapshot.now - f.snapshot.since.get(fact, f.snapshot.now))


def _times_due(f: Facts) -> Iterator[timedelta]:
    """Yield the time until a moment that the resource, a Secret or the calendar names."""
    now, operation = f.snapshot.now, f.operation
    if operation is not None:
        if operation.answer is Answer.ACCEPTED or not all(map(f.is_responding, f.snapshot.coreapps)):
            # The deadline ends the restart that explains the absence of a Coreapp.
            yield operation.deadline - now
        yield operation.settle_by - now
        if operation.answer is Answer.BUSY:
            yield operation.started_at + f.backoff - now
    if f.resize_is_wanted and f.window_is_shut and (opening := windows.next_opening(f.desired.windows, f.wall)) is not None:
        yield opening - f.wall
    if f.snapshot.account is not None and f.snapshot.account.expires_at is not None:
        yield f.snapshot.account.expires_at - f.desired.tuning.certificate_margin - f.latest
    if f.desired.account is not None and f.desired.account.registered_at is not None:
        yield f.desired.account.registered_at + objections.REGISTRATION_GRACE - f.latest
    if (lowers := scaling.lowers_after(f)) is not None:
        yield lowers - now
    if f.snapshot.overruled is not None:
        # It is reported until then.
        yield f.snapshot.overruled.at + scaling.REMEMBERED - now
    yield from (RETRY_REJECTED_AFTER - (now - one.at) for one in f.snapshot.rejected.values())


def _silences_due(f: Facts) -> Iterator[timedelta]:
    """Yield the time until a silence is long enough, or until the state of the node may have changed.

    The prober wakes the loop when a holder has been unresponsive long enough. Other consequences have no event: the deletion of a hung pod,
    and the end of a failed self-check, which answers to other clusters may bring.
    """
    now, ages = f.snapshot.now, []
    for pod in f.snapshot.coreapps:
        if pod.unresponsive_since is None:
            continue
        age = now - pod.unresponsive_since
        ages.append(age)
        spans = (f.desired.unhealthy_after, 2 * f.desired.unhealthy_after, LEASE_STALE, f.desired.restart_timeout)
        yield from (span - age for span in spans)
        if (node := health.node_of(f, pod)) is not None and node.renewed_at is not None:
            yield LEASE_STALE - (now - node.renewed_at)
    if ages:
        again = max(SECOND, min(ages) / 4)
        yield min(again, 5 * SECOND) if f.self_check is not None else again
    elif f.self_check is not None and any(health.is_unready(pod) for pod in f.snapshot.coreapps):
        yield 5 * SECOND
