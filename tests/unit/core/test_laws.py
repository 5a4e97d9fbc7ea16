"""Every law on random snapshots; and for every part of a law, plans that break it and are caught by just that part of its check."""

from __future__ import annotations

import ast
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from whatsapp_operator.core import facts, rules
from whatsapp_operator.core.actions import GetShards, Replace
from whatsapp_operator.core.snapshot import Answer

from . import laws
from .laws import CHECKS, Check, LawBroken
from .mutants import MUTANTS, Mutant, patched
from .random_situations import any_observations
from .situations import NOW, Situation, epoch_of, labels_for, situation
from .witnesses import WITNESSES, restarting

SNAPSHOTS = 2000
LEAST = 30
"""In how many of the snapshots each law must have had something to judge; half of the fewest that were seen in 13 runs."""
ROUNDS = 5
"""How often as many snapshots are tried while one of the broken plans was not seen to be broken, or a law had too few to judge on average.

The first is mostly enough. Hypothesis varies what it has drawn, so one round may have few snapshots of a kind.
"""
SEED = int(os.environ.get("LAW_SEED") or secrets.randbelow(2**32))
"""Another one in each run; a failure says how to have the same snapshots again."""
many = settings(
    max_examples=250,
    deadline=None,
    database=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def for_each_snapshot(judge: Callable[[Situation], None], round_: int) -> None:
    """Call ``judge`` with random snapshots; what it raises names the seed."""
    try:
        seed(SEED + round_)(settings(many, max_examples=SNAPSHOTS)(given(one=any_observations())(judge)))()
    except BaseException as error:
        error.add_note(f"the same snapshots again: LAW_SEED={SEED}")
        raise


@pytest.mark.slow
def test_every_law_holds_in_any_snapshot_and_would_have_caught_each_mutant() -> None:
    applied, uncaught = Counter[str](), {mutant.name: mutant for mutant in MUTANTS}

    def judge(one: Situation) -> None:
        laws.plan_is_total(rules.plan, one)
        made = rules.plan(one.desired, one.snapshot)
        for check in CHECKS:
            applied[check.__name__] += check(lambda _, __: made, one)
        noted = one.snapshot.record.operation
        if noted is not None and noted.answer is Answer.ACCEPTED:
            applied["law_9 once accepted"] += laws.law_9_a_restart_is_no_failure(lambda _, __: made, one)
        for mutant in [*uncaught.values()]:
            try:
                mutant.check(mutant.plan, one)
            except LawBroken:
                del uncaught[mutant.name]
            except Exception:
                # A broken plan may raise in a snapshot that it was not broken for. That is no finding, and shows nothing of the law.
                continue

    rounds = 0

    def seldom() -> dict[str, int]:
        return {
            check: applied[check] for check in [*(one.__name__ for one in CHECKS), "law_9 once accepted"] if applied[check] < LEAST * rounds
        }

    while rounds == 0 or (rounds < ROUNDS and (uncaught or seldom())):
        for_each_snapshot(judge, rounds)
        rounds += 1
    assert seldom() == {}, f"too seldom in {rounds} rounds (LAW_SEED={SEED}): {applied}"
    assert list(uncaught) == [], f"broken plans that no snapshot shows (LAW_SEED={SEED})"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", WITNESSES)
def test_law_holds_where_each_row_wins(check: Check, name: str) -> None:
    check(rules.plan, WITNESSES[name])


@pytest.mark.parametrize(
    "one",
    [
        restarting().restarted(4).with_pod(3, phase="Pending", ready=False, report=None, terminated=True),
        restarting().restarted(4, [4]).with_route(2, foreign=True).with_holder(1, labels=labels_for(2, epoch_of(2))),
    ],
    ids=["its pod is pending again", "it carries the epoch of a Service of another owner"],
)
def test_law_9_a_holder_keeps_its_shard_in_a_restart(one: Situation) -> None:
    """Random snapshots found both."""
    assert laws.law_9_a_restart_is_no_failure(rules.plan, one)


@many
@given(shards=st.sampled_from([1, 2, 4, 8, 16, 32]), spares=st.integers(0, 4))
def test_law_11_a_converged_cluster_is_left_alone(shards: int, spares: int) -> None:
    plan = situation().settled(shards=shards, spares=spares).plan()

    assert (plan.decision.rule, plan.actions) == ("UpToDate", ())


def test_law_11_only_a_question_is_asked_now_and_then() -> None:
    assert situation().settled().client(asked_at=NOW - timedelta(minutes=5)).plan().actions == (GetShards(quiet=True),)


# --- mutants --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    mutant.check(rules.plan, mutant.one)

    with pytest.raises(LawBroken) as caught:
        mutant.check(mutant.plan, mutant.one)
    assert str(caught.value) == f"{mutant.check.__name__}: {mutant.how}"


def test_everything_that_a_check_can_say_is_said_of_a_mutant() -> None:
    said = {(mutant.check.__name__, mutant.how) for mutant in MUTANTS}
    unsaid = [(check, how) for check, how in clauses() if not any(check == name and re.fullmatch(how, text) for name, text in said)]

    assert unsaid == []
    assert {name for name, _ in clauses()} == {check.__name__ for check in CHECKS}


def clauses() -> Iterator[tuple[str, str]]:
    """What each check says when a part of its law is broken, as a pattern."""
    module = ast.parse(Path(laws.__file__).read_text(encoding="utf-8"))
    for function in (one for one in module.body if isinstance(one, ast.FunctionDef)):
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "_must":
                how = call.args[1]
                parts = how.values if isinstance(how, ast.JoinedStr) else [how]
                yield function.name, "".join(re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in parts)


def test_a_mutant_of_law_11_is_caught() -> None:
    touchy = patched((facts, "covers", lambda _, __: False))
    one = situation().settled()

    assert {type(action) for action in touchy(one.desired, one.snapshot).actions} == {Replace}
