"""The parts of the sentences that people read: names, numbers, times, and what others said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from whatsapp_operator.core import manifests, sentences
from whatsapp_operator.core.snapshot import Answer, Call
from whatsapp_operator.core.upkeep import attempted
from whatsapp_operator.core.windows import Window

from .situations import NOW, Situation, situation
from .witnesses import WITNESSES, growing, restarting

SETTLED = situation().settled()


def why(one: Situation, rule: str) -> str:
    """The sentence of the rule that wins."""
    decision = one.plan().decision
    assert decision.rule == rule
    return decision.why


# --- which Coreapps are waited for


def waiting(late: int) -> Situation:
    """Eight shards are wanted; so many of the nine Coreapps are not ready."""
    one = SETTLED.wanting(shards=8).with_pods(range(3, 9))
    for ordinal in range(9 - late, 9):
        one = one.with_pod(ordinal, ready=False, phase="Pending")
    return one


@pytest.mark.parametrize(("late", "named"), [(1, "8"), (5, "45678"), (6, "34567")])
def test_five_Coreapps_at_most_are_named(late: int, named: str) -> None:  # noqa: N802
    names = ", ".join(f"acme-coreapp-{ordinal}" for ordinal in named)

    assert why(waiting(late), "AwaitingCoreapps") == f"{9 - late} of 9 Coreapps are ready for 8 shards: waiting for {names}."


def test_the_first_sentence_of_the_scheduler_is_passed_on() -> None:
    one = waiting(3).with_pod(7, pending_because="0/3 nodes: Insufficient cpu").with_pod(8, pending_because="another")

    assert why(one, "AwaitingCoreapps").endswith("acme-coreapp-8 (0/3 nodes: Insufficient cpu).")


def test_why_no_pod_can_be_created_is_passed_on_only_where_pods_do_not_exist() -> None:
    """The pods that exist were not rejected."""
    rejected = "exceeded quota: compute"
    some = waiting(1).seeing(rejected_coreapp=rejected)
    none = SETTLED.wanting(shards=8).replicas(9).seeing(rejected_coreapp=rejected)

    assert "quota" not in why(some, "AwaitingCoreapps")
    assert why(none, "AwaitingCoreapps") == (
        "3 of 9 Coreapps are ready for 8 shards: waiting for pods that do not exist yet (exceeded quota: compute)."
    )
    assert why(none.seeing(rejected_coreapp=None), "AwaitingCoreapps").endswith("waiting for pods that do not exist yet.")


# --- the call


def busy(call: Call | None = None) -> Situation:
    return growing().noted(4, Answer.BUSY).client(call=call)


TURNED_AWAY = "Set Shards 2 -> 4 was turned away once"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Call(id="4-noted", answer=Answer.BUSY, detail="403: temporarily unavailable"), " (403: temporarily unavailable)"),
        (Call(id="4-noted", answer=Answer.BUSY), ""),
        (Call(id="8-before", answer=Answer.BUSY, detail="403: temporarily unavailable"), ""),
        (None, ""),
    ],
    ids=["this call", "nothing said", "another call", "a leader before"],
)
def test_what_the_client_said_of_this_very_call_is_passed_on(call: Call | None, said: str) -> None:
    assert why(busy(call), "ServerBusy") == f"{TURNED_AWAY}{said}; it is tried again."


@pytest.mark.parametrize(("attempts", "said"), [(0, "0 times"), (1, "once"), (2, "2 times")])
def test_it_is_said_how_often_a_call_was_turned_away(attempts: int, said: str) -> None:
    assert f"was turned away {said};" in why(growing().noted(4, Answer.BUSY, attempts=attempts), "ServerBusy")


def test_a_call_from_an_unknown_number_says_so() -> None:
    assert why(growing().noted(4, Answer.UNKNOWN, origin=None), "AnswerUnknown").startswith("Set Shards ? -> 4 ")


def test_a_restart_names_the_numbers_and_its_deadline() -> None:
    assert why(restarting(), "Restarting") == ("Set Shards 2 -> 4 was accepted; the Coreapps restart, deadline 2027-01-04T12:02:59Z.")


# --- windows


def test_a_closed_window_says_when_the_next_one_opens_and_how_not_to_wait_for_it() -> None:
    assert why(WITNESSES["WindowClosed"], "WindowClosed") == (
        "Set Shards 2 -> 4 waits for a window; the next one opens at 2027-01-05T00:00:00Z. "
        'Annotation multiconnect.dev/reshard-now: "4" starts it now.'
    )


def test_a_window_that_never_opens_again_says_what_is_wrong() -> None:
    never = Window(name="never", schedule="0 3 30 2 *", duration=timedelta(hours=1))

    assert why(growing().wanting(windows=(never,)), "WindowInvalid").startswith("Window never: schedule '0 3 30 2 *'")


def test_where_no_window_ever_opens_no_time_is_made_up() -> None:
    unmet = Window(name="never", schedule="0 0 */15 4 3#5", duration=timedelta(hours=1))

    assert sentences.opening(growing().wanting(windows=(unmet,)).facts()) == "an unknown time"


# --- objects


PATH = "spec.template.spec.containers"


def altered(*names: str) -> str:
    """The fields that are named when admission added these containers to the Coreapps."""
    one, ref = SETTLED, manifests.coreapp_statefulset("acme")
    desired = one.snapshot.objects[ref]
    template: dict[str, Any] = desired["spec"]["template"]
    containers = [*template["spec"]["containers"], *({"name": name, "image": "mesh"} for name in names)]
    stored = {**desired, "spec": {**desired["spec"], "template": {**template, "spec": {**template["spec"], "containers": containers}}}}
    written = {ref: attempted({}, before=None, desired=desired, stored=stored, now=NOW)}
    ready = one.seeing(objects={**one.snapshot.objects, ref: stored}, written=written).plan().ready
    assert ready is not None
    return ready.why.partition("StatefulSet acme-coreapp: ")[2]


@pytest.mark.parametrize(("count", "more"), [(1, ""), (6, ""), (7, "; and 1 more"), (9, "; and 3 more")])
def test_six_fields_at_most_are_named(count: int, more: str) -> None:
    names = [f"c{number}" for number in range(count)]

    assert altered(*names) == ", ".join(f"{PATH}[{name}]" for name in names[:6]) + more + "."


@pytest.mark.parametrize(("length", "kept"), [(120, 120), (121, 120), (300, 120)])
def test_the_beginning_of_a_long_field_is_named(length: int, kept: int) -> None:
    path = f"{PATH}[{'x' * (length - len(PATH) - 2)}]"

    assert altered(path.removeprefix(f"{PATH}[").removesuffix("]")) == f"{path[:kept]}."


@pytest.mark.parametrize(
    ("shard", "desired", "reported", "says"),
    [(2, 2, 2, False), (1, 2, 2, True), (2, 4, 2, True), (2, 2, 4, True), (1, 2, None, True), (2, 2, None, False)],
)
def test_a_foreign_Service_matters_if_a_shard_that_exists_or_is_wanted_needs_its_name(  # noqa: N802
    shard: int, desired: int, reported: int | None, says: bool
) -> None:
    one = SETTLED.wanting(shards=desired).reporting(reported).with_route(shard, foreign=True)
    stuck = one.plan().stuck

    assert (stuck is not None and stuck.rule == "NameConflict" and f"Service acme-shard-{shard}" in stuck.why) is says
