"""Whose number of Webapps counts: the spec's if it says one; else that of an autoscaler or a person who scales the Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core.actions import Action, Create, Replace
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.core.snapshot import Workload
from whatsapp_operator.core.upkeep import corrected

from .situations import Situation, situation

DEPLOYMENT = Ref("Deployment", "acme-webapp")


def of_webapps(actions: tuple[Action, ...]) -> list[Obj]:
    """The Deployments that a plan creates or replaces."""
    written = [action.obj for action in actions if isinstance(action, Create | Replace)]
    return [obj for obj in written if (obj["kind"], obj["metadata"]["name"]) == tuple(DEPLOYMENT)]


def stored(one: Situation, obj: Obj, **spec: Any) -> Situation:
    """The Deployment as the API server holds it after that write, and after another party wrote these parts of its spec."""
    meta = {**obj["metadata"], "uid": "deployment", "resourceVersion": "9"}
    live = {**obj, "metadata": meta, "spec": {"replicas": 1, **obj["spec"], **spec}}
    return one.seeing(
        objects={**one.snapshot.objects, DEPLOYMENT: live},
        webapp=Workload(uid="", resource_version="", replicas=live["spec"]["replicas"], ready=live["spec"]["replicas"]),
    )


def begun() -> tuple[Situation, Obj]:
    """A cluster whose spec gives no number, before its first number of shards is known; and the Deployment that it makes."""
    one = situation().wanting(webapps=None)
    (made,) = of_webapps(one.plan().actions)
    return one, made


def settled(obj: Obj, **spec: Any) -> Situation:
    """The same once its shards are settled, with the Deployment as it was made and as a person changed it."""
    one = situation().settled().seeing()
    return stored(Situation(begun()[0].desired, one.snapshot), obj, **spec)


def test_the_first_webapp_starts_alone_and_a_second_follows_once() -> None:
    one, made = begun()
    assert made["spec"]["replicas"] == 1
    assert of_webapps(stored(one, made).plan().actions) == []

    one = settled(made)
    (second,) = of_webapps(one.plan().actions)
    assert second["spec"]["replicas"] == 2
    assert of_webapps(stored(one, second).plan().actions) == []


@pytest.mark.parametrize("number", [0, 1, 3, 32])
def test_a_number_that_a_person_chose_is_never_touched(number: int) -> None:
    _, made = begun()
    (second,) = of_webapps(settled(made).plan().actions)
    one = stored(settled(made), second, replicas=number)
    assert of_webapps(one.plan().actions) == []
    # Not with another write of the Deployment either.
    rolled = Situation(one.desired, one.snapshot).seeing()
    changed = {**second, "metadata": {**second["metadata"], "labels": {}}}
    (again,) = of_webapps(stored(rolled, changed, replicas=number).plan().actions)
    assert again["spec"]["replicas"] == number


def test_a_number_that_an_autoscaler_chose_during_the_first_start_is_not_lowered() -> None:
    _, made = begun()
    (written,) = of_webapps(settled(made, replicas=5).plan().actions)
    assert written["spec"]["replicas"] == 5


def test_what_was_deleted_later_is_made_with_two_at_once() -> None:
    one = situation().settled()
    one = Situation(begun()[0].desired, one.snapshot).without_object(*DEPLOYMENT)
    (made,) = of_webapps(one.plan().actions)
    assert made["spec"]["replicas"] == 2
    assert of_webapps(stored(one, made, replicas=1).plan().actions) == []


def test_a_number_that_is_taken_out_of_the_spec_stays_as_it_is() -> None:
    before = situation().settled()
    live = before.snapshot.objects[DEPLOYMENT]
    one = stored(Situation(begun()[0].desired, before.snapshot), live, replicas=4)
    assert of_webapps(one.plan().actions) == []


def test_a_number_in_the_spec_counts_again() -> None:
    _, made = begun()
    free = settled(made)
    one = stored(Situation(situation().wanting(webapps=3).settled().desired, free.snapshot), made, replicas=7)
    (written,) = of_webapps(one.plan().actions)
    assert written["spec"]["replicas"] == 3


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_new_leader_ends_no_webapp_of_a_cluster_whose_first_number_is_not_reached(number: int) -> None:
    """It waits for a certificate, say. Until its client is asked again, nothing is known of its number of shards."""
    one = situation().settled(shards=1).wanting(shards=4, webapps=3).seeing(settled_shards=None)
    running = stored(one, one.snapshot.objects[DEPLOYMENT], replicas=number)
    assert of_webapps(running.client(shards=None, asked_at=None).plan().actions) == []
    assert [obj["spec"]["replicas"] for obj in of_webapps(running.plan().actions)] == [3] * (number != 3)


def test_the_first_webapp_of_a_number_in_the_spec_starts_alone_too() -> None:
    one = situation().wanting(webapps=3)
    (made,) = of_webapps(one.plan().actions)
    assert made["spec"]["replicas"] == 1
    begun_with_one = stored(one, made)
    assert of_webapps(begun_with_one.plan().actions) == []
    (written,) = of_webapps(begun_with_one.reporting(1).plan().actions)
    assert written["spec"]["replicas"] == 3


def test_the_status_counts_what_the_deployment_says() -> None:
    _, made = begun()
    (second,) = of_webapps(settled(made).plan().actions)
    one = stored(settled(made), second, replicas=5)
    report = one.report()
    assert report["webapp"] == {"desired": 5, "ready": 5}
    assert report["display"]["webapps"] == "5/5"
    fewer = one.seeing(webapp=Workload(uid="", resource_version="", replicas=5, ready=4))
    assert fewer.condition("Reconciling")["message"].startswith("4 of 5 Webapps are ready")


def test_mended_sends_no_managers_back() -> None:
    """The API server would take them for all that there are."""
    obj = situation().settled().snapshot.objects[DEPLOYMENT]
    live = {**obj, "metadata": {**obj["metadata"], "managedFields": [{"manager": "kubectl"}]}}
    assert "managedFields" not in corrected(live, obj)["metadata"]
