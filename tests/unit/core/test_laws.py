"""Every law on random looks; and for every law, plans that break it and are caught by the same check."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from whatsapp_operator.core import duties, evidence, facts, handovers, objections, operation, rules
from whatsapp_operator.core.facts import Facts
from whatsapp_operator.core.model import Answer, Ask, Call, Coreapp, Desired, Epoch, Observed, Plan, Report, SetShards, Tell

from . import laws
from .laws import CHECKS, Check, LawBroken, PlanOf
from .looks import NOW, Look, labels_for, look, seconds
from .random_looks import any_looks
from .witnesses import WITNESSES, growing, restarting

LEAST = {
    "law_4_enough_replicas": 8,
    "law_5_set_shards_only_if": 8,
    "law_7_shrink_last": 5,
    "law_8_fit_certificate": 5,
}
"""How many of the snapshots a law must have had something to judge in; of the others, 15. About a third of what is usual."""
SEED = int(os.environ.get("LAW_SEED") or secrets.randbelow(2**32))
"""Another one in each run; a failure says how to have the same snapshots again."""
many = settings(
    max_examples=400,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_law_holds_in_any_look(check: Check) -> None:
    applied = 0

    @seed(SEED)
    @many
    @given(one=any_looks())
    def judge(one: Look) -> None:
        nonlocal applied
        applied += check(rules.plan, one)

    try:
        judge()
    except BaseException as error:
        error.add_note(f"the same snapshots again: LAW_SEED={SEED}")
        raise
    assert applied >= LEAST.get(check.__name__, 15), f"it had something to judge {applied} times only (LAW_SEED={SEED})"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", WITNESSES)
def test_law_holds_where_each_row_wins(check: Check, name: str) -> None:
    check(rules.plan, WITNESSES[name])


@many
@given(shards=st.sampled_from([1, 2, 4, 8, 16, 32]), spares=st.integers(0, 4))
def test_law_11_a_converged_cluster_is_left_alone(shards: int, spares: int) -> None:
    plan = look().settled(shards=shards, spares=spares).plan()

    assert (plan.verdict.row, plan.actions) == ("Settled", ())


def test_law_11_only_a_question_is_asked_now_and_then() -> None:
    assert look().settled().client(asked_at=NOW - timedelta(minutes=5)).plan().actions == (Ask(quiet=True),)


# --- mutants --------------------------------------------------------------------------------------------------------------


Patch = tuple[Any, str, Any]


def row(name: str, **changes: Any) -> Patch:
    """One row changed."""
    return (rules, "ROWS", tuple(replace(one, **changes) if one.name == name else one for one in rules.ROWS))


def patched(*patches: Patch) -> PlanOf:
    """The planner with some functions, properties or tables replaced."""

    def plan(want: Desired, see: Observed) -> Plan:
        with ExitStack() as stack:
            for where, name, value in patches:
                stack.enter_context(mock.patch.object(where, name, value))
            return rules.plan(want, see)

    return plan


def without_objection(name: str) -> PlanOf:
    """The planner that does not object for one reason."""
    return patched(
        (objections, "OBJECTIONS", tuple(one for one in objections.OBJECTIONS if one.name != name)),
        (rules, "ROWS", tuple(one for one in rules.ROWS if one.name != name)),
    )


def _claim_nothing(_: Facts, __: Coreapp) -> str:
    return "none"


def _epoch_of_yesterday(f: Facts, moves: Any, *, only: Coreapp | None = None) -> Any:
    for move in HANDOVERS(f, moves, only=only):
        yield replace(move, epoch=Epoch(move.route.version - 1, move.epoch.random))


def _one_pod_for_all(f: Facts, moves: Any, *, only: Coreapp | None = None) -> Any:
    made = list(HANDOVERS(f, moves, only=only))
    yield from (replace(move, to=made[0].to) for move in made)


def _raising(_: Facts) -> bool:
    msg = "a row that raises"
    raise ValueError(msg)


HANDOVERS = handovers.paired
NO_EXCUSE: Callable[[Facts, Coreapp], bool] = lambda _, __: False  # noqa: E731
ALWAYS: Callable[[Facts], bool] = lambda _: True  # noqa: E731
NEVER: Callable[[Facts], bool] = lambda _: False  # noqa: E731


def property_of(function: Callable[[Facts], Any]) -> property:
    return property(function)


CALL_ANYWAY = patched((operation, "may_call", lambda f: f.resize_is_wanted))
SHRINK_ANYWAY = patched((rules, "_may_shrink", ALWAYS))

MUTANTS: list[tuple[str, Check, PlanOf, Look]] = [
    ("a row raises", laws.plan_is_total, patched(row("Refilling", when=_raising)), look().settled()),
    (
        "one pod for two shards",
        laws.law_1_one_holder,
        patched((handovers, "paired", _one_pod_for_all)),
        look().settled(shards=4, spares=2).holder_deleted(0).holder_deleted(1),
    ),
    ("n is not the version", laws.law_2_prepare_then_commit, patched((handovers, "paired", _epoch_of_yesterday)), WITNESSES["FailingOver"]),
    (
        "a pending pod is taken",
        laws.law_2_prepare_then_commit,
        patched((Facts, "claim", _claim_nothing)),
        WITNESSES["FailingOver"].with_pod(2, labels=labels_for(0, "100-mine")),
    ),
    (
        "an orphan is taken",
        laws.law_2_prepare_then_commit,
        patched((Facts, "claim", _claim_nothing)),
        WITNESSES["FailingOver"].with_pod(2, labels=labels_for(9, "1-mine")),
    ),
    (
        "a holder is taken",
        laws.law_2_prepare_then_commit,
        patched((Facts, "holder_uids", property_of(lambda _: frozenset()))),
        WITNESSES["FailingOver"].without_pod(2).with_holder(1, labels={}),
    ),
    (
        "everybody is told to serve",
        laws.only_the_named_pod_is_told_to_serve,
        patched((duties, "tells", lambda f, _, __: (Tell(coreapp=one, shards=2, shard=0, epoch="9-x") for one in f.see.coreapps))),
        look().settled().held_by(0, 2).with_pod(0, report=Report(shard=0, epoch="10-first", shards=2)),
    ),
    (
        "S is forgotten",
        laws.law_4_enough_replicas,
        patched((Facts, "needed_pods", property_of(lambda f: f.want.shards))),
        look().settled().with_pods([3, 4]),
    ),
    (
        "the intent is forgotten",
        laws.law_4_enough_replicas,
        patched((Facts, "floor", property_of(lambda f: f.shards or 0))),
        growing().noted(4, Answer.UNKNOWN).wanting(shards=2).without_object("StatefulSet", "acme-coreapp"),
    ),
    (
        "not enough Coreapps are ready",
        laws.law_5_set_shards_only_if,
        patched(row("AwaitingCoreapps", when=NEVER), (operation, "may_call", lambda f: f.resize_is_wanted)),
        WITNESSES["AwaitingCoreapps"],
    ),
    ("GET is stale", laws.law_5_set_shards_only_if, CALL_ANYWAY, growing().client(asked_at=NOW - seconds(9))),
    ("a call is running", laws.law_5_set_shards_only_if, CALL_ANYWAY, growing().client(call=Call(id="4-x"))),
    ("a pause means nothing", laws.law_5_set_shards_only_if, patched(row("Paused", when=NEVER)), growing().wanting(paused=True)),
    ("three shards", laws.law_5_set_shards_only_if, CALL_ANYWAY, growing().wanting(shards=3)),
    (
        "no lowering was voided",
        laws.law_5_set_shards_only_if,
        patched((operation, "call_for", lambda f: (SetShards(operation=operation.next_operation(f)),))),
        growing().seeing(anchored_for=None),
    ),
    (
        "the note comes later",
        laws.law_5_set_shards_only_if,
        lambda want, see: replace(rules.plan(want, see), operation=None),
        growing(),
    ),
    (
        "unknown is no",
        laws.law_6_unknown_is_a_value,
        patched(row("AnswerUnknown", when=NEVER), (Facts, "may_try_again", property_of(lambda _: True))),
        growing().noted(4, Answer.UNKNOWN),
    ),
    (
        "silence settles",
        laws.law_6_unknown_is_a_value,
        patched((operation, "_settled_by_get", lambda _, see, __: replace(see, operation=None))),
        growing().noted(4, Answer.UNKNOWN),
    ),
    (
        "a restarted operator forgets",
        laws.law_6_unknown_is_a_value,
        patched((operation, "judge", lambda _, see: replace(see, operation=None))),
        growing().noted(4),
    ),
    ("a Coreapp is not back", laws.law_7_shrink_last, SHRINK_ANYWAY, WITNESSES["ScalingDown"].with_pod(1, report=None)),
    ("GET was long ago", laws.law_7_shrink_last, SHRINK_ANYWAY, WITNESSES["ScalingDown"].client(asked_at=NOW - seconds(9))),
    (
        "a holder would go",
        laws.law_7_shrink_last,
        patched((Facts, "too_high", property_of(lambda _: ()))),
        look().settled().with_pods([3]).held_by(0, 3),
    ),
    *(
        (f"no word of {name}", laws.law_8_fit_certificate, without_objection(name), WITNESSES[name])
        for name in (
            "Banned",
            "RegistrationTooOld",
            "CertificateMissing",
            "CertificateMalformed",
            "CertificateExpiryUnknown",
            "CertificateExpired",
            "CertificateRefused",
        )
    ),
    (
        "a restart is a failure",
        laws.law_9_a_restart_is_no_failure,
        patched((Facts, "is_excused", NO_EXCUSE)),
        growing().noted(4, Answer.UNKNOWN).with_holder(0, terminated=True, ready=False),
    ),
    (
        "everything is excused",
        laws.law_9_what_is_certain_is_not_excused,
        patched((evidence, "EVIDENCE", ())),
        WITNESSES["FailingOver"],
    ),
    (
        "order stands above failover",
        laws.law_9_what_is_certain_is_not_excused,
        patched((rules, "ROWS", tuple(row for row in rules.ROWS if row.name != "FailingOver"))),
        restarting().restarted(4, [4]).holder_deleted(0),
    ),
]


@pytest.mark.parametrize(("check", "mutant", "one"), [mutant[1:] for mutant in MUTANTS], ids=[mutant[0] for mutant in MUTANTS])
def test_a_mutant_is_caught(check: Check, mutant: PlanOf, one: Look) -> None:
    check(rules.plan, one)

    with pytest.raises(LawBroken) as caught:
        check(mutant, one)
    assert caught.value.law == check.__name__


def test_a_mutant_of_law_11_is_caught() -> None:
    touchy = patched((facts, "covers", lambda _, __: False))
    one = look().settled()

    assert touchy(one.want, one.see).actions != ()


def test_every_check_has_a_mutant() -> None:
    assert {mutant[1] for mutant in MUTANTS} == set(CHECKS)
