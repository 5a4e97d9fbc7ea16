"""When to observe a cluster again, and when to ask its client again: the one place that says so. Pure; the shell obeys.

Three things bring about an observation: an event, a known time at which something that was seen decides something, and a pause. The pause
is for what has no event. It grows with the time that the present condition has stood, so that what has just changed is looked at often
and what waits for a person costs next to nothing: whatever moves on without an event is noticed after a quarter more of the time that it
took anyway, and within ``Tuning.rest``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from . import checksums, evidence, health, missing, objections, rollout, scaling, windows
from .actions import State
from .facts import RETRY_REJECTED_AFTER, Facts
from .self_check import LEASE_STALE
from .snapshot import Answer, Route

SECOND = timedelta(seconds=1)

# --- retries ------------------------------------------------------------------------------------------------------------

FIRST_RETRY, LAST_RETRY = timedelta(milliseconds=100), timedelta(seconds=5)
"""Pauses after the first observation or action in a row that failed, and after very many."""
LAST_URGENT_RETRY = timedelta(seconds=1)
"""The longest pause after an observation that failed while a failover may depend on it."""
REASSIGN_AFTER = timedelta(milliseconds=500)
"""Pause, at most, after a Coreapp did not take the role that it was assigned: messages wait for that."""
FIRST_EVENT_RETRY, LAST_EVENT_RETRY = timedelta(seconds=1), timedelta(minutes=5)
"""The same for Events: nothing depends on them, so the API server is asked less and less."""


def retry_after(failures: int, first: timedelta = FIRST_RETRY, last: timedelta = LAST_RETRY) -> timedelta:
    """Return the pause after so many failures in a row, at least one: it doubles from ``first`` up to ``last``."""
    return min(first * (1 << min(max(failures, 1) - 1, 16)), last)


# --- busy clusters ------------------------------------------------------------------------------------------------------

OBSERVATION_BURST, OBSERVATIONS_PER_SECOND = 30.0, 10.0
"""Observations of one cluster in a row, and for as long as its events go on: a resource that is written all the time is its own affair."""
MOST_CONFLICTS = 3
"""Observations in a row that were no longer true when they were acted on, before that counts as a failure and is retried after a pause."""


def tokens(left: float, passed: float) -> float:
    """Return how many observations a cluster may have now that had so many left some seconds ago."""
    return min(OBSERVATION_BURST, left + passed * OBSERVATIONS_PER_SECOND)


# --- quiet clusters -----------------------------------------------------------------------------------------------------

QUIET_OBSERVATIONS = 10.0
"""Observations a second, of all clusters together, of those to which nothing happens: with many of them each rests longer."""
ASK_AGAIN = timedelta(seconds=30)
"""Time between two questions to the client of such a cluster (``Tuning.ask_steady``), asked without an observation."""


def quiet_rest(clusters: int) -> timedelta:
    """Return how long a cluster to which nothing happens rests at least, beside so many clusters in all."""
    return timedelta(seconds=clusters / QUIET_OBSERVATIONS)


# --- objects that no failover depends on --------------------------------------------------------------------------------

SLOW_FOR, SLOW_FOR_A_WHILE = timedelta(seconds=5), timedelta(milliseconds=500)
"""For how long such objects are not read again, unless we wrote one; the second while what was read is about to change."""

# --- the pause of each rule ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often a cluster is observed, and its client asked, while one of these rules wins and nothing has an event."""

    rules: frozenset[str]
    first: timedelta
    longest: timedelta
    why: str


REST = timedelta.max
"""As long as ``Tuning.rest``."""

CADENCES: tuple[Cadence, ...] = (
    Cadence(
        rules=frozenset({"Verifying", "Restarting"}),
        first=timedelta(milliseconds=250),
        longest=2 * SECOND,
        why="Only an answer of the client moves it on, and messages wait meanwhile. It ends with the deadline.",
    ),
    Cadence(
        rules=frozenset({"AnswerUnknown"}),
        first=timedelta(milliseconds=250),
        longest=5 * SECOND,
        why="Only an answer of the client moves it on. It ends with the intent's settleBy.",
    ),
    Cadence(
        rules=frozenset({"Paused", "WindowClosed", "WindowInvalid", "ShardsDrifted", "NameConflict", "CrdOutdated", "LoginRejected"})
        | frozenset({"PodsRejected", "DeletionBlocked", "ReplicasOverruled"})
        | frozenset(one.name for one in objections.OBJECTIONS),
        first=SECOND,
        longest=REST,
        why="It waits for a person or for the calendar. An edit has an event, the calendar a known time; a Secret has neither.",
    ),
    Cadence(
        rules=frozenset(),
        first=timedelta(milliseconds=250),
        longest=REST,
        why="It waits for pods, Services or the StatefulSet, which have events. What has none is noticed by the growing pause.",
    ),
)
"""The first row that names the rule speaks; the last one, which names none, for all others."""


def cadence(rule: str) -> Cadence:
    """Return the row of a rule."""
    return next((one for one in CADENCES if rule in one.rules), CADENCES[-1])


def standing(f: Facts, rule: str) -> str:
    """Return the name of the fact that a rule wins and that nothing moves on; its age is asked for."""
    operation = f"{f.operation.id}/{f.operation.answer}" if f.operation is not None else ""
    numbers = (f.shards, f.replicas, len(f.ready), len(f.missing), len(f.updated_by_uid), f.snapshot.client.unresponsive_since is None)
    return f"Stands/{rule}/{operation}/{'/'.join(map(str, numbers))}"


def is_quiet(f: Facts) -> bool:
    """Return whether nothing is under way that could move on without an event."""
    return f.desired.deleting or (not f.is_unsettled and f.snapshot.client.unresponsive_since is None)


def pause(f: Facts, rule: str) -> timedelta:
    """Return the longest time until the next observation, whatever is known of coming times: a quarter of what has passed already."""
    rest = f.desired.tuning.rest
    if is_quiet(f):
        return rest
    row = cadence(rule)
    first = row.first if f.snapshot.client.unresponsive_since is None else max(row.first, SECOND)
    stood = f.snapshot.now - f.snapshot.since.get(standing(f, rule), f.snapshot.now)
    return min(max(first, stood / 4), row.longest, rest)


def observe_after(f: Facts, rule: str) -> timedelta:
    """Return how long to rest after an observation in which this rule won, if no event comes."""
    return min([pause(f, rule), *due(f)])


def asks(f: Facts, rule: str, state: State) -> bool:
    """Return whether it is time to ask the client for its number of shards. Without its Secrets there is no password to ask with."""
    client, tuning = f.snapshot.client, f.desired.tuning
    if client.asking or not f.webapp_ready or "Secret" in f.snapshot.unread:
        return False
    if f.snapshot.missing is not None and f.settled_shards is None and f.shards is None:
        # A login without the password would be refused, and is tried again only after a while.
        return False
    if client.asked_at is None:
        return True
    if is_quiet(f):
        span = tuning.ask_steady
    elif f.operation is not None and client.unresponsive_since is None:
        # What brought about this observation may be the call taking effect: to be known before anybody is taken for failed (laws#9).
        span = tuning.ask_busy
    else:
        # While something is done, an event may be all that was missing for the next step: then the number has to be a fresh one.
        span = min(pause(f, rule), tuning.ask_working if state is State.WORKING else tuning.ask_steady)
    return f.snapshot.now - client.asked_at >= span


# --- facts whose age decides, and known times ---------------------------------------------------------------------------


def held(f: Facts, rule: str) -> Iterator[str]:
    """Name the facts whose age the next observation wants to know."""
    yield from _deciding(f)
    if not is_quiet(f):
        yield standing(f, rule)


def _deciding(f: Facts) -> Iterator[str]:
    if f.operation is not None and f.enough_are_back:
        yield "EnoughAreBack"
    if (f.resize_is_wanted or f.settled_shards is None) and len(f.ready) < f.spec_replicas:
        yield "LacksCoreapps"
    if f.is_cut_off:
        yield "CutOff"
    if objections.is_secret_missing(f):
        yield "SecretMissing"
    yield from (health.unready_fact(pod) for pod in f.snapshot.coreapps if health.is_unready(pod))
    yield from (f"NodesUnreachable/{pod.uid}" for pod in f.out_of_reach)
    yield from map(evidence.disagreement_fact, _disputed(f))
    yield from (rollout.fact(f, pod) for pod in f.outdated)
    yield from (checksums.fact(ref, checksum) for ref, checksum in f.stale_workloads)
    yield from missing.facts(f)
    if f.is_connected and (f.is_logged_off or (f.operation is not None and f.operation.logs_on)):
        yield "Connected"


def _disputed(f: Facts) -> Iterator[Route]:
    """Yield the routes whose holder says that it does not hold the shard."""
    for route in f.routes:
        pod = f.holder(route)
        if pod is not None and not f.is_explained_by_restart(pod) and evidence.disagrees(f, route, pod):
            yield route


def due(f: Facts) -> Iterator[timedelta]:
    """Yield how long it is until each time that is known to decide something."""
    yield from (left for left in (*_facts_due(f), *_times_due(f), *_silences_due(f)) if left > timedelta(0))


def _facts_due(f: Facts) -> Iterator[timedelta]:
    """Yield how long it is until a fact is old enough."""
    tuning = f.desired.tuning
    spans = {
        "NotReady": (f.desired.unhealthy_after, 2 * f.desired.unhealthy_after),
        "NodesUnreachable": (health.OUT_OF_REACH,),
        "CutOff": (tuning.connection,),
        "Connected": (tuning.connection,),
        "Outdated": (rollout.ROUTES_SETTLE,),
        "SecretsChanged": (checksums.SETTLED_AFTER,),
        "EnoughAreBack": (tuning.missing_holder,),
        "LacksCoreapps": (f.desired.restart_timeout,),
        **missing.SPANS,
        "SecretMissing": (objections.SECRET_AWAITED,),
    }
    for fact in _deciding(f):
        age = f.snapshot.now - f.snapshot.since.get(fact, f.snapshot.now)
        yield from (span - age for span in spans.get(fact.partition("/")[0], ()))
    for route in _disputed(f):
        yield evidence.patience_with(route) - (f.snapshot.now - f.snapshot.since.get(evidence.disagreement_fact(route), f.snapshot.now))


def _times_due(f: Facts) -> Iterator[timedelta]:
    """Yield how long it is until a time that stands in the resource, in a Secret or in the calendar."""
    now, operation = f.snapshot.now, f.operation
    if operation is not None:
        if operation.answer is Answer.ACCEPTED or not all(map(f.is_responding, f.snapshot.coreapps)):
            # It ends a restart, and what excuses a Coreapp that is away.
            yield operation.deadline - now
        yield operation.settle_by - now
        if operation.answer is Answer.BUSY:
            yield operation.started_at + f.backoff - now
    if f.resize_is_wanted and f.window_is_shut and (opening := windows.next_opening(f.desired.windows, f.wall)) is not None:
        yield opening - f.wall
    if f.snapshot.account is not None and f.snapshot.account.expires_at is not None:
        yield f.snapshot.account.expires_at - f.desired.tuning.certificate_margin - f.wall
    if f.desired.account is not None and f.desired.account.registered_at is not None:
        yield f.desired.account.registered_at + objections.REGISTRATION_GRACE - f.wall
    if (lowers := scaling.lowers_after(f)) is not None:
        yield lowers - now
    if f.snapshot.overruled is not None:
        # Until then it is said.
        yield f.snapshot.overruled.at + scaling.REMEMBERED - now
    if not f.may_write_objects and f.snapshot.rejected_at is not None:
        yield RETRY_REJECTED_AFTER - (now - f.snapshot.rejected_at)


def _silences_due(f: Facts) -> Iterator[timedelta]:
    """Yield how long it is until a silence is long enough, or its second witness may have changed its mind.

    The prober wakes us when a holder is silent for long enough. What else follows from it has no event: the end of a hung pod, and our
    doubt, which answers to other clusters may end.
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
