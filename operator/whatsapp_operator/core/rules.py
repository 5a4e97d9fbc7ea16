"""The main table. Every decision that changes what the cluster does is in this file, in order of priority.

``plan`` checks ``RULES`` from the top. The first rule whose ``when`` holds wins and decides what is done; a requested move wins only if
something can be done for it now. Failover comes first, so a waiting resize never delays a failover.

What existing shards depend on is done in every observation, no matter which rule wins (``always``). The rules for it in this table only
report it, and hold up the rules after them.

``plan`` also keeps the first matching rule that is ``Stuck`` and the first that is still moving, because each condition answers its own
question. While a person must act, only the few rules that need no person and end within seconds count as moving. Otherwise tools would
wait for progress that cannot come.

A rule's name is also the condition's reason, the Event's reason, the metric's label and the test's name, so one search finds everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from . import always, handovers, manifests, missing, objections, pace, rollout, scaling, sentences, set_shards, windows
from .actions import Action, Decision, GetShards, Plan, State
from .desired import Desired
from .facts import Facts
from .names import Ref
from .reasons import Reason
from .snapshot import Answer, Login, Snapshot

WITNESSES = frozenset({"Node", "Lease"})
"""Kinds of objects that are read only to learn more about a Coreapp that does not answer."""


def _nothing(_: Facts) -> tuple[Action, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: when it holds, what is done then, and the sentence for the user."""

    name: Reason
    state: State
    when: Callable[[Facts], bool]
    why: Callable[[Facts], str]
    then: Callable[[Facts], Iterable[Action]] = _nothing
    is_last: bool = False
    """If it holds, no later rule is checked."""
    despite_stall: bool = False
    """It continues, and ends within seconds, even while something else waits for a person."""
    holds_up: bool = True
    """If it holds, no later rule decides, even if nothing can be done for it now."""


# --- order ------------------------------------------------------------------------------------------------------------


def _lacks_coreapps(f: Facts) -> bool:
    if not f.resize_is_wanted or len(f.ready_to_stay) >= f.spec_replicas:
        return False
    without_spares = f.has_held_for("LacksCoreapps", f.desired.restart_timeout) and len(f.ready_to_stay) >= f.desired.shards
    return not without_spares


def _may_shrink(f: Facts) -> bool:
    """Whether laws#7 allows a shrink once the shards are as desired; a call that could still bring others back rules it out (laws#4)."""
    return not set_shards.is_calling(f) and f.shards_are_fresh and not f.missing and not f.too_high and not f.failed and not f.unassigned


def _answer_is(f: Facts, *answers: Answer) -> bool:
    return f.operation is not None and f.operation.answer in answers


def _problem(f: Facts) -> str:
    return f": {f.snapshot.client.problem}" if f.snapshot.client.problem else ""


def _foreign_objects(f: Facts) -> list[Ref]:
    """Return foreign objects with names that this cluster needs."""
    needed = max(f.shards or 0, f.desired.shards)
    routes = (Ref("Service", route.name) for route in f.snapshot.routes if route.foreign and route.shard < needed)
    return [*dict.fromkeys((*f.snapshot.name_conflicts, *routes))]


def _holds_back(f: Facts) -> bool:
    return f.desired.paused and (f.resize_is_wanted or bool(f.changed) or bool(f.outdated) or f.replicas != f.spec_replicas)


RULES: tuple[Rule, ...] = (
    # --- failover: before everything else
    Rule(
        name=Reason.FAILING_OVER,
        state=State.WORKING,
        despite_stall=True,
        when=lambda f: not f.desired.manual and bool(handovers.failovers(f)),
        then=handovers.failovers,
        why=lambda f: (
            "; ".join(
                f"Shard {move.route.shard}: {move.route.holder} failed ({move.evidence}), {move.to.name} is taking over"
                for move in handovers.failovers(f)
            )
            + "."
        ),
    ),
    Rule(
        name=Reason.SWITCHOVER_REQUESTED,
        state=State.WORKING,
        despite_stall=True,
        # It may wait for a Coreapp that only a later rule can help.
        holds_up=False,
        when=lambda f: bool(f.desired.switchovers or f.desired.switchover_problem) and f.shards is not None and not f.set_shards_is_open,
        then=handovers.switch_over,
        why=sentences.switchovers,
    ),
    Rule(
        name=Reason.DRAINING,
        state=State.WORKING,
        despite_stall=True,
        # A pause does not hold it back: it saves a failover.
        when=lambda f: not f.desired.manual and bool(handovers.drain_switchovers(f)),
        then=handovers.drain_switchovers,
        why=lambda f: (
            "; ".join(f"Shard {move.route.shard}: {move.route.holder} -> {move.to.name}" for move in handovers.drain_switchovers(f))
            + ", before the node is drained."
        ),
    ),
    # --- guard: later rules would create objects that the garbage collector must remove
    Rule(
        name=Reason.DELETING,
        state=State.WORKING,
        when=lambda f: f.desired.deleting,
        why=sentences.deleting,
        is_last=True,
    ),
    # --- order: as many Coreapps as shards
    Rule(
        name=Reason.SCALING_UP,
        state=State.WORKING,
        # With more shards than pods, this is reported first, even while a person must act (laws#4).
        when=scaling.are_too_few,
        why=lambda f: f"Coreapps {f.replicas} -> {scaling.raised(f)}{scaling.whose(f)}.",
    ),
    # --- order: what must exist
    Rule(
        name=Reason.LOGIN_REJECTED,
        state=State.STUCK,
        when=lambda f: (
            f.snapshot.client.login is Login.REJECTED
            # A missing Secret is the better reason: the password may be in it.
            and f.snapshot.missing is None
            and (f.shards is None or (f.resize_is_wanted and not f.shards_are_fresh))
        ),
        why=sentences.login_advice,
    ),
    Rule(
        name=Reason.OBJECTS_REJECTED,
        state=State.STUCK,
        when=lambda f: f.rejection(f.absent) is not None,
        why=lambda f: (
            "The API server rejects an object of this cluster; the operator retries. Make room in the quota, or correct what is named: "
            f"{f.rejection(f.absent)}"
        ),
    ),
    Rule(
        name=Reason.BOOTSTRAPPING,
        state=State.WORKING,
        when=lambda f: bool(f.absent) or (f.shards is None and f.settled_shards is None and not f.must_wait_for_names),
        why=lambda f: (
            f"Creating the first pods; the client has not reported its shards yet{_problem(f)}{sentences.pending(f)}."
            if f.settled_shards is None
            else "Recreating deleted objects: " + ", ".join(f"{obj['kind']} {obj['metadata']['name']}" for obj in f.absent) + "."
        ),
    ),
    Rule(
        name=Reason.NAME_CONFLICT,
        state=State.STUCK,
        when=lambda f: bool(_foreign_objects(f)),
        why=lambda f: sentences.foreign(_foreign_objects(f)),
    ),
    # --- order: every shard has a holder, on pods that stay
    Rule(
        name=Reason.ASSIGNING_SHARDS,
        state=State.WORKING,
        # It holds no matter what is in progress, because these shards exist.
        when=lambda f: bool([*f.shards_without_service(f.known_shards)]) or bool(handovers.assignments(f)),
        why=lambda f: (
            "Assigning holders to shards "
            f"{', '.join(map(str, [*f.shards_without_service(f.known_shards), *(route.shard for route in f.unassigned)]))}."
        ),
    ),
    Rule(
        name=Reason.CONSOLIDATING_SHARDS,
        state=State.WORKING,
        # Before the high holders get a role after the restart: they restart anyway, so the move costs no further downtime.
        when=lambda f: f.is_verified and not f.desired.paused and bool(handovers.consolidations(f)),
        then=handovers.consolidations,
        why=lambda f: (
            f"Moving shards {', '.join(str(route.shard) for route in f.too_high)} to low ordinals before Coreapps "
            f"{f.replicas} -> {f.spec_replicas}."
        ),
    ),
    # --- order: a call under way
    Rule(
        name=Reason.LOGGING_IN,
        state=State.WORKING,
        when=lambda f: f.shards is None and f.has_asked,
        why=lambda f: f"Asking the Webapp for the number of shards{_problem(f)}{sentences.pending(f)}.",
    ),
    Rule(
        name=Reason.ANSWER_UNKNOWN,
        state=State.WAITING,
        when=lambda f: _answer_is(f, Answer.UNKNOWN),
        why=lambda f: (
            f"Set Shards {sentences.span(f)} got no clear answer; only GET is sent until its outcome is known, at the latest at "
            f"{manifests.timestamp(f.operation.settle_by) if f.operation else ''}."
        ),
    ),
    Rule(
        name=Reason.VERIFYING,
        state=State.WORKING,
        when=lambda f: _answer_is(f, Answer.ACCEPTED) and f.operation is not None and f.shards != f.operation.to,
        why=sentences.verifying,
    ),
    Rule(
        name=Reason.RESTARTING,
        state=State.WORKING,
        when=lambda f: _answer_is(f, Answer.ACCEPTED) and not f.restart_is_overdue and bool(f.missing),
        why=lambda f: (
            f"Set Shards {sentences.span(f)} was accepted; the Coreapps restart, deadline "
            f"{manifests.timestamp(f.operation.deadline) if f.operation else ''}."
        ),
    ),
    # --- order: a change of shards
    Rule(
        name=Reason.PAUSED,
        state=State.WAITING,
        when=_holds_back,
        why=lambda f: f"Changes are held while spec.paused or annotation {manifests.PAUSED_ANNOTATION} is true.",
    ),
    Rule(
        name=Reason.SCALING_DOWN,
        state=State.WORKING,
        # A requested move comes first, even while it waits: its target may be a pod that would go.
        when=lambda f: f.is_settled and f.replicas > f.desired_replicas and scaling.may_lower(f) and not f.desired.switchovers,
        then=lambda f: scaling.lowering(f) if _may_shrink(f) else (),
        why=lambda f: (
            f"Coreapps {f.replicas} -> {f.wanted_replicas}{scaling.whose(f)}"
            + (
                f", once {sentences.names_of(f.missing)} {'is' if len(f.missing) == 1 else 'are'} back."
                if f.missing
                else ", once every shard is served."
                if f.too_high or f.failed or f.unassigned
                else "."
            )
        ),
    ),
    Rule(
        name=Reason.ROLLING_OUT,
        state=State.WORKING,
        # A step that is possible now comes before a change of shards, and is taken although a restart is overdue: only the new template may
        # let Coreapps come back. A roll-out that waits does not hold up a change of shards.
        when=lambda f: bool(f.outdated) and (bool(rollout.steps(f)) or (f.call_in_effect is None and not f.resize_is_wanted)),
        then=rollout.steps,
        why=lambda f: rollout.why(f, sentences.awaited(f)),
    ),
    Rule(
        name=Reason.SERVER_BUSY,
        state=State.WAITING,
        when=lambda f: _answer_is(f, Answer.BUSY) and not f.may_try_again,
        why=lambda f: (
            f"Set Shards {sentences.span(f)} was turned away {sentences.attempts(f)}{sentences.client_said(f)}; it is tried again"
            + (f", not before {sentences.retry_at(f)} as the client asks." if f.must_hold_off else ".")
        ),
    ),
    Rule(
        name=Reason.SHARDS_DRIFTED,
        state=State.STUCK,
        when=lambda f: f.has_drifted and not f.desired.repairs_drift,
        why=lambda f: (
            f"Something other than the operator changed the shards from {f.settled_shards} to {f.shards}. Set spec.shards to {f.shards} "
            "to keep that, or set spec.reshard.drift to Repair to have the operator undo it."
        ),
    ),
    *(
        Rule(
            name=one.name,
            state=one.state,
            # Whether it is the first is checked only if it holds.
            when=lambda f, one=one: (  # type: ignore[misc]
                one.when(f) and (f.resize_is_wanted or one.name in objections.ALWAYS_REPORTED) and objections.objection(f) is one
            ),
            why=one.why,
        )
        for one in objections.OBJECTIONS
    ),
    Rule(
        name=Reason.AWAITING_COREAPPS,
        state=State.WAITING,
        when=_lacks_coreapps,
        why=lambda f: (
            f"{len(f.ready_to_stay)} of {f.spec_replicas} Coreapps are ready for {f.desired.shards} shards: {sentences.awaited(f)}."
        ),
    ),
    Rule(
        name=Reason.WINDOW_INVALID,
        state=State.STUCK,
        when=lambda f: windows.problem(f.desired.windows) is not None and not set_shards.is_calling(f),
        why=lambda f: f"{windows.problem(f.desired.windows)} Set Shards waits for a window. Correct spec.reshard.windows.",
    ),
    Rule(
        name=Reason.WINDOW_CLOSED,
        state=State.WAITING,
        when=lambda f: f.resize_is_wanted and f.window_is_shut and not set_shards.is_calling(f),
        why=lambda f: (
            f"Set Shards {f.shards} -> {f.desired.shards} waits for a window; the next one opens at {sentences.opening(f)}. "
            f'Annotation {manifests.RESHARD_NOW_ANNOTATION}: "{f.desired.shards}" starts it now.'
        ),
    ),
    Rule(
        name=Reason.CRD_OUTDATED,
        state=State.STUCK,
        # An intent that is stored only in part does not count (laws#6). Failovers note none, so they go on.
        when=lambda f: bool(f.snapshot.not_kept) and (set_shards.is_calling(f) or f.resize_is_wanted),
        why=lambda f: (
            f"Set Shards waits: the API server drops {', '.join(f.snapshot.not_kept)} from status.operation, so its "
            "WhatsAppCluster CRD does not match this operator. Apply the CRD of this release (helm upgrade, or kubectl apply "
            "--server-side -f crds/)."
        ),
    ),
    Rule(
        name=Reason.SETTING_SHARDS,
        state=State.WORKING,
        when=lambda f: set_shards.is_calling(f) or f.resize_is_wanted,
        then=lambda f: set_shards.call_for(f) if set_shards.may_call(f) else (),
        why=lambda f: (
            f"Set Shards {f.shards} -> {f.operation.to if f.operation else f.desired.shards}: all Coreapps will restart"
            + (", which logs the client on again" if f.is_logged_off else "")
            + (", because something other than the operator changed the shards" if f.has_drifted else "")
            + (", with enough Coreapps for the shards but without the spares." if len(f.ready) < f.spec_replicas else ".")
        ),
    ),
    # --- upkeep
    Rule(
        name=Reason.RESTART_OVERDUE,
        state=State.WORKING,
        when=lambda f: f.restart_is_overdue,
        why=lambda f: (
            f"The restart after Set Shards {sentences.span(f)} is overdue; "
            # They may all answer, and not be ready.
            f"{f'not back: {sentences.names_of(f.missing)}' if f.missing else sentences.awaited(f)}."
        ),
    ),
    Rule(
        name=Reason.NODES_UNREACHABLE,
        state=State.WAITING,
        when=lambda f: bool(f.compensated),
        why=lambda f: f"Unreachable on lost nodes: {sentences.places_of(f.compensated)}; the same number of extra Coreapps replaces them.",
    ),
    Rule(
        name=Reason.REPLACING_PODS,
        state=State.WORKING,
        when=lambda f: len(f.ready_to_stay) < f.replicas or f.lacks_webapps or f.snapshot.webapps_change,
        why=lambda f: (
            f"{len(f.ready_to_stay)} of {f.replicas} Coreapps are ready: {sentences.awaited(f)}."
            if len(f.ready_to_stay) < f.replicas
            else f"{f.webapps_ready} of {f.desired_webapps} Webapps are ready"
            + (" while they are replaced" if f.snapshot.webapps_change else "")
            + f"{sentences.pending(f)}."
        ),
    ),
    # The following rules are reported no matter which rule wins, and block none.
    Rule(
        name=Reason.EPOCH_REJECTED,
        state=State.STUCK,
        when=lambda f: bool(f.rejected),
        why=sentences.rejected_epochs,
    ),
    Rule(
        name=Reason.CHANGE_REJECTED,
        state=State.STUCK,
        when=lambda f: f.snapshot.denied is not None or f.rejection(f.changed) is not None,
        why=lambda f: (
            "The API server rejects a write of the operator, which retries it. Give the operator its rights back, or correct what is "
            f"named: {f.snapshot.denied}"
            if f.snapshot.denied is not None
            else "The API server rejects a change of this cluster's objects, which keep running as they were. Correct in the spec what is "
            f"named: {f.rejection(f.changed)}"
        ),
    ),
    Rule(
        name=Reason.FIELD_INVALID,
        state=State.STUCK,
        when=lambda f: f.desired.invalid is not None,
        why=lambda f: f.desired.invalid or "",
    ),
    Rule(
        name=Reason.READ_FAILED,
        state=State.STUCK,
        # Only what needs these objects waits; failovers do not.
        when=lambda f: bool(f.snapshot.failed_reads),
        why=lambda f: (
            f"The operator cannot read objects of kind {', '.join(sorted(f.snapshot.failed_reads))}"
            + (", so it neither makes nor changes them" if f.snapshot.failed_reads.keys() - WITNESSES - {"Event"} else "")
            + (", so it cannot tell why pods are missing" if "Event" in f.snapshot.failed_reads else "")
            + (", so it cannot tell a lost node from a Coreapp that does not answer" if f.snapshot.failed_reads.keys() & WITNESSES else "")
            + (", and moves no shard off a drained or dead node before its pod fails" if "Node" in f.snapshot.failed_reads else "")
            + (", and sends nothing to the client" if "Secret" in f.snapshot.failed_reads else "")
            + f". Give it its rights back, or correct what is named: {next(why for _, why in sorted(f.snapshot.failed_reads.items()))}"
        ),
    ),
    Rule(
        name=Reason.IMAGE_UNAVAILABLE,
        state=State.STUCK,
        when=lambda f: f.snapshot.image_problem is not None,
        why=lambda f: f"An image cannot be pulled: {f.snapshot.image_problem}. Put the right name or the pull secret into spec.client.",
    ),
    Rule(
        name=Reason.PODS_REJECTED,
        state=State.STUCK,
        when=missing.are_rejected,
        why=lambda f: (
            f"Pods cannot be created: {f.snapshot.rejected_pods}. Make room, or correct what is named (your additions to pods are in "
            "spec.coreapp.pod and spec.webapp.pod). Kubernetes then retries by itself, only after minutes if it has failed for long."
        ),
    ),
    Rule(
        name=Reason.DELETION_BLOCKED,
        state=State.STUCK,
        when=lambda f: bool(missing.held(f)),
        why=lambda f: (
            f"Deleted pods stay, so no new ones can take their place: {missing.describe_held(f)}. Ask the owner of the finalizer "
            "to remove it, or remove it with kubectl edit pod."
        ),
    ),
    Rule(
        name=Reason.REPLICAS_OVERRULED,
        state=State.STUCK,
        when=scaling.is_insisted_on,
        why=scaling.tell,
    ),
    Rule(
        name=Reason.CHANGED_BY_ADMISSION,
        # Harmless by itself: a mesh adds containers, a mirror rewrites images. So it is reported but affects neither Ready nor Reconciling.
        state=State.READY,
        when=lambda f: bool(f.altered),
        why=lambda f: (
            "Nothing waits for a person. But admission, or a client that writes after the operator, changed these fields. The operator "
            f"leaves them so until one of the two sides changes: {sentences.altered(f)}."
        ),
    ),
    Rule(
        name=Reason.UP_TO_DATE,
        state=State.READY,
        when=lambda _: True,
        why=lambda _: "Nothing to do.",
    ),
)


def facts(desired: Desired, snapshot: Snapshot) -> Facts:
    """Return the facts about an observation, with the record after the newest answer."""
    return Facts(desired, snapshot, set_shards.judge(desired, snapshot))


def plan(desired: Desired, snapshot: Snapshot) -> Plan:
    """Return what to do after one observation. Pure and total: no input raises, equal input gives equal output."""
    return plan_of(facts(desired, snapshot))


def plan_of(f: Facts) -> Plan:
    """Return what to do after the observation with these facts."""
    matches = [*_matching(f)]
    names = [rule.name for rule in matches]
    winner, actions = next((rule, found) for rule in matches if (found := [*rule.then(f)]) or rule.holds_up)
    actions = always.adding(f, actions)
    if pace.asks(f, winner.name, winner.state):
        actions.append(GetShards(quiet=winner.state is State.READY and not f.is_unsettled))
    stuck = _first(f, matches, State.STUCK)
    in_motion = [rule for rule in matches if rule.state in {State.WORKING, State.WAITING}]
    # A move of a shard ends within seconds, but not if its writes are rejected.
    moving = in_motion if stuck is None else [rule for rule in in_motion if rule.despite_stall and f.snapshot.denied is None]
    return Plan(
        decision=Decision(rule=winner.name, state=winner.state, why=winner.why(f)),
        moving=_first(f, moving, *State),
        stuck=stuck,
        is_held_up=bool(in_motion) and not moving,
        ready=_first(f, matches, State.READY),
        actions=tuple(actions),
        record=f.record,
        next_window_at=windows.next_opening(f.desired.windows, f.wall) if winner.name == Reason.WINDOW_CLOSED else None,
        is_settled=f.is_settled,
        # "Nothing to do" is not reported while a change is still being written or its controller has not observed it yet. Nothing at all
        # is reported while objects are still being read.
        is_reportable=f.has_asked
        and f.snapshot.failed_reads.keys() == f.snapshot.unread.keys()
        and not (winner.state is State.READY and (f.is_template_settling or bool(f.changed))),
        holds=frozenset(pace.held(f, winner.name, names)),
        wake_after=pace.observe_after(f, winner.name, names),
    )


def _matching(f: Facts) -> Iterator[Rule]:
    for rule in RULES:
        if rule.when(f):
            yield rule
            if rule.is_last:
                return


def _first(f: Facts, matches: list[Rule], *states: State) -> Decision | None:
    rule = next((rule for rule in matches if rule.state in states), None)
    return Decision(rule=rule.name, state=rule.state, why=rule.why(f)) if rule else None
