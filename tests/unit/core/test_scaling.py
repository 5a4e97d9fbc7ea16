"""Another party scales the Coreapps: the spec's number is restored, with pauses where that does no harm, and it is said."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from whatsapp_operator.core import scaling
from whatsapp_operator.core.actions import Scale
from whatsapp_operator.core.snapshot import Overruled

from .situations import NOW, Situation, seconds, situation

HPA = "kube-controller-manager"
HALF_AN_HOUR = 1800.0


def scaled(number: int, *, by: str = HPA, last: Overruled | None = None) -> Situation:
    """A settled cluster of 2 + 1 Coreapps whose StatefulSet a person scaled, with the pods that came of it."""
    one = situation().settled()
    pods = one.with_pods(range(3, number)).retiring(*range(3, number)) if number > 3 else one
    assert pods.snapshot.statefulset is not None
    return pods.seeing(statefulset=replace(pods.snapshot.statefulset, replicas=number, scaled_by=by), overruled=last)


def scales(one: Situation) -> list[int]:
    return [action.replicas for action in one.plan().actions if isinstance(action, Scale)]


def insistent(times: int, at: float = 0.0) -> Overruled:
    return Overruled(by=HPA, replicas=5, times=times, at=NOW - seconds(at))


def test_a_number_of_another_party_is_set_back_and_it_is_said_whose_and_why() -> None:
    one = scaled(5)
    assert scales(one) == [3]
    why = one.plan().decision.why
    assert "Coreapps 5 -> 3" in why
    assert f"{HPA} wrote 5; the number follows from spec.shards and spec.spares" in why


def test_a_number_that_is_too_low_is_raised_at_once_however_often() -> None:
    for times in (0, 1, 50):
        assert scales(scaled(1, last=insistent(times) if times else None)) == [3]


def test_our_own_number_is_lowered_at_once() -> None:
    one = scaled(5, last=insistent(50))
    assert one.snapshot.statefulset is not None
    assert scales(one.seeing(statefulset=replace(one.snapshot.statefulset, scaled_by=None))) == [3]
    assert scales(one.seeing(statefulset=replace(one.snapshot.statefulset, scaled_by="kubectl"))) == [3], "another one is no repetition"


def test_a_pause_has_its_time_and_holds_up_nothing_else() -> None:
    one = scaled(5, last=insistent(3, at=12.5))
    plan = one.plan()
    assert scales(one) == []
    assert plan.decision.rule == "ReplicasOverruled"
    assert plan.wake_after is not None
    assert plan.wake_after <= seconds(17.5)
    assert scales(one.later(17.5)) == [3]


def test_who_insists_is_named_with_what_to_do_until_it_has_ended() -> None:
    once, again = situation().settled().seeing(overruled=insistent(1)), situation().settled().seeing(overruled=insistent(2))
    assert once.condition("Stalled")["status"] == "False"
    said = again.condition("Stalled")
    assert (said["status"], said["reason"]) == ("True", "ReplicasOverruled")
    for part in (
        HPA,
        "StatefulSet acme-coreapp",
        "3 Coreapps follow from spec.shards and spec.spares",
        "Delete the HorizontalPodAutoscaler",
    ):
        assert part in said["message"]
    assert again.plan().wake_after == seconds(30)
    more = again.with_pods([3]).with_pod(0, ready=False)
    assert more.facts().desired_replicas == 4
    assert more.condition("Stalled")["message"] == said["message"], "one more that stays for now does not follow from the spec"


@pytest.mark.parametrize("period", [0.1, 15.0])
def test_a_fight_costs_few_writes(period: float) -> None:
    """A person writes 5 again some seconds after each time that 3 was written; observed every ten seconds for half an hour."""
    now, last, writes = 0.0, None, 0
    while now < HALF_AN_HOUR:
        if scales(scaled(5, last=last).later(now)):
            writes += 1
            last = scaling.noted(last, by=HPA, replicas=5, now=NOW + seconds(now))
            now += period
        else:
            now += 10.0
    assert 5 <= writes <= 12


def test_what_was_long_ago_is_forgotten() -> None:
    last = insistent(7)
    assert scaling.noted(last, by=HPA, replicas=5, now=NOW + timedelta(minutes=16)).times == 1
    assert scaling.noted(last, by="kubectl", replicas=5, now=NOW).times == 1
    assert scaling.noted(last, by=HPA, replicas=4, now=NOW + seconds(15)) == Overruled(by=HPA, replicas=4, times=8, at=NOW + seconds(15))
