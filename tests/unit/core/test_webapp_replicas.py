"""Whose number of Webapps counts: the spec's if it says one; else that of an autoscaler or a person who scales the Deployment."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.core.actions import Action, Create, Replace
from whatsapp_operator.core.names import Obj, Ref
from whatsapp_operator.core.snapshot import Workload
from whatsapp_operator.core.upkeep import mended

from .looks import Look, look

DEPLOYMENT = Ref("Deployment", "acme-webapp")


def of_webapps(actions: tuple[Action, ...]) -> list[Obj]:
    """The Deployments that a plan creates or replaces."""
    written = [action.obj for action in actions if isinstance(action, Create | Replace)]
    return [obj for obj in written if (obj["kind"], obj["metadata"]["name"]) == tuple(DEPLOYMENT)]


def stored(one: Look, obj: Obj, **spec: Any) -> Look:
    """The Deployment as the API server holds it after that write, and after somebody else wrote these parts of its spec."""
    meta = {**obj["metadata"], "uid": "deployment", "resourceVersion": "9"}
    live = {**obj, "metadata": meta, "spec": {"replicas": 1, **obj["spec"], **spec}}
    return one.seeing(
        objects={**one.see.objects, DEPLOYMENT: live},
        webapp=Workload(uid="", resource_version="", replicas=live["spec"]["replicas"], ready=live["spec"]["replicas"]),
    )


def begun() -> tuple[Look, Obj]:
    """A cluster whose spec gives no number, before its first number of shards is known; and the Deployment that it makes."""
    one = look().wanting(webapps=None)
    (made,) = of_webapps(one.plan().actions)
    return one, made


def settled(obj: Obj, **spec: Any) -> Look:
    """The same once its shards are settled, with the Deployment as it was made and as somebody changed it."""
    one = look().settled().seeing()
    return stored(Look(begun()[0].want, one.see), obj, **spec)


def test_the_first_webapp_starts_alone_and_a_second_follows_once() -> None:
    one, made = begun()
    assert made["spec"]["replicas"] == 1
    assert of_webapps(stored(one, made).plan().actions) == []

    one = settled(made)
    (second,) = of_webapps(one.plan().actions)
    assert second["spec"]["replicas"] == 2
    assert of_webapps(stored(one, second).plan().actions) == []


@pytest.mark.parametrize("number", [0, 1, 3, 32])
def test_a_number_that_somebody_chose_is_never_touched(number: int) -> None:
    _, made = begun()
    (second,) = of_webapps(settled(made).plan().actions)
    one = stored(settled(made), second, replicas=number)
    assert of_webapps(one.plan().actions) == []
    # Not with another write of the Deployment either.
    rolled = Look(one.want, one.see).seeing()
    changed = {**second, "metadata": {**second["metadata"], "labels": {}}}
    (again,) = of_webapps(stored(rolled, changed, replicas=number).plan().actions)
    assert again["spec"]["replicas"] == number


def test_a_number_that_an_autoscaler_chose_during_the_first_start_is_not_lowered() -> None:
    _, made = begun()
    (written,) = of_webapps(settled(made, replicas=5).plan().actions)
    assert written["spec"]["replicas"] == 5


def test_what_was_deleted_later_is_made_with_two_at_once() -> None:
    one = look().settled()
    one = Look(begun()[0].want, one.see).without_object(*DEPLOYMENT)
    (made,) = of_webapps(one.plan().actions)
    assert made["spec"]["replicas"] == 2
    assert of_webapps(stored(one, made, replicas=1).plan().actions) == []


def test_a_number_that_is_taken_out_of_the_spec_stays_as_it_is() -> None:
    before = look().settled()
    live = before.see.objects[DEPLOYMENT]
    one = stored(Look(begun()[0].want, before.see), live, replicas=4)
    assert of_webapps(one.plan().actions) == []


def test_a_number_in_the_spec_counts_again() -> None:
    _, made = begun()
    free = settled(made)
    one = stored(Look(look().wanting(webapps=3).settled().want, free.see), made, replicas=7)
    (written,) = of_webapps(one.plan().actions)
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
    obj = look().settled().see.objects[DEPLOYMENT]
    live = {**obj, "metadata": {**obj["metadata"], "managedFields": [{"manager": "kubectl"}]}}
    assert "managedFields" not in mended(live, obj)["metadata"]
