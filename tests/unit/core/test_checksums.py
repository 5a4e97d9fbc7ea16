"""When the pods of a workload are replaced because a Secret changed, and when they are left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from whatsapp_operator.core import checksums
from whatsapp_operator.core.actions import Replace
from whatsapp_operator.core.desired import Database, PodSettings
from whatsapp_operator.core.names import Ref
from whatsapp_operator.core.snapshot import Answer, Attempt

from .situations import NOW, Situation, situation

WEBAPPS, SIMULATOR = Ref("Deployment", "acme-webapp"), Ref("StatefulSet", "acme-simulator")
NOTE = "multiconnect.dev/secrets-checksum"


def with_taken(one: Situation, ref: Ref, checksum: str | None) -> Situation:
    """The workload carries this checksum of what its pods have taken."""
    live: dict[str, Any] = dict(one.snapshot.objects[ref])
    notes = {key: value for key, value in live["metadata"]["annotations"].items() if key != NOTE}
    live["metadata"] = {**live["metadata"], "annotations": notes if checksum is None else {**notes, NOTE: checksum}}
    return one.seeing(objects={**one.snapshot.objects, ref: live})


def changed(span: float = 10.0, ref: Ref = WEBAPPS) -> Situation:
    """The pods have taken ``old``; the Secret has been ``new`` for so many seconds."""
    one = situation().wanting(database=Database(secret_name="db")).settled()
    fact = f"SecretsChanged/{ref.kind}/{ref.name}/new"
    return with_taken(one, ref, "old").seeing(checksums={ref: "new"}, since={fact: NOW - timedelta(seconds=span)})


def written(one: Situation, ref: Ref) -> dict[str, Any] | None:
    """What is put in the place of the workload, or None."""
    replaced = [dict(action.obj) for action in one.plan().actions if isinstance(action, Replace)]
    found = [obj for obj in replaced if (obj["kind"], obj["metadata"]["name"]) == ref]
    assert len(found) <= 1
    return found[0] if found else None


def notes(obj: Any) -> Any:
    return obj["metadata"].get("annotations") or {}


@pytest.mark.parametrize("ref", [WEBAPPS, SIMULATOR])
def test_the_pods_are_replaced_once_the_secret_has_stayed_as_it_is(ref: Ref) -> None:
    obj = written(changed(ref=ref), ref)

    assert obj is not None
    assert notes(obj)[NOTE] == "new"
    assert notes(obj["spec"]["template"])[NOTE] == "new"
    assert written(changed(span=9.9, ref=ref), ref) is None
    assert changed(span=9.9, ref=ref).plan().wake_after == timedelta(milliseconds=100)


def test_nothing_else_is_replaced() -> None:
    assert [action.obj["metadata"]["name"] for action in changed().plan().actions if isinstance(action, Replace)] == ["acme-webapp"]


def test_what_is_replaced_is_at_rest_again() -> None:
    obj = written(changed(), WEBAPPS)
    assert obj is not None
    done = changed()
    done = done.seeing(objects={**done.snapshot.objects, WEBAPPS: obj}, since={})

    assert done.row() == "UpToDate"
    assert done.facts().stale_workloads == ()
    assert not [action for action in done.plan().actions if isinstance(action, Replace)]


def test_a_workload_that_says_nothing_of_what_its_pods_took_is_marked_and_its_pods_are_left_alone() -> None:
    """As after an upgrade from a release without checksums, or just after it was created."""
    one = with_taken(changed(), WEBAPPS, None)
    obj = written(one, WEBAPPS)

    assert obj is not None
    assert notes(obj)[NOTE] == "new"
    assert obj["spec"]["template"] == one.snapshot.objects[WEBAPPS]["spec"]["template"]


def test_a_workload_without_any_annotation_is_marked_and_its_pods_are_left_alone() -> None:
    """Someone has taken all annotations away."""
    one = changed()
    live: dict[str, Any] = dict(one.snapshot.objects[WEBAPPS])
    live["metadata"] = {key: value for key, value in live["metadata"].items() if key != "annotations"}
    obj = written(one.seeing(objects={**one.snapshot.objects, WEBAPPS: live}), WEBAPPS)

    assert obj is not None
    assert NOTE in notes(obj)
    assert NOTE not in notes(obj["spec"]["template"])


def test_a_workload_that_is_made_is_marked_from_the_beginning() -> None:
    (made,) = (obj for obj in changed().without_object(*WEBAPPS).facts().absent if obj["kind"] == "Deployment")

    assert notes(made)[NOTE] == "new"
    assert NOTE not in notes(made["spec"]["template"]), "its first pods take what is there"
    assert "multiconnect.dev/wanted" in notes(made), "what marks the spec stays"


def test_annotations_that_the_spec_wants_on_pods_are_on_those_that_come_with_the_new_secret() -> None:
    obj = written(with_taken(changed().wanting(webapp_pod=PodSettings(annotations={"scrape": "true"})), WEBAPPS, "old"), WEBAPPS)

    assert obj is not None
    assert notes(obj["spec"]["template"]) == {"scrape": "true", NOTE: "new"}


def test_what_else_was_edited_of_the_workload_is_put_right_by_the_same_write() -> None:
    one = changed()
    live = one.snapshot.objects[WEBAPPS]
    edited = {**live, "spec": {**live["spec"], "strategy": {"type": "Recreate"}}}
    obj = written(one.seeing(objects={**one.snapshot.objects, WEBAPPS: edited}), WEBAPPS)

    assert obj is not None
    assert obj["spec"]["strategy"] == live["spec"]["strategy"]
    assert notes(obj["spec"]["template"])[NOTE] == "new"


def test_secrets_of_which_nothing_is_known_change_nothing() -> None:
    assert written(changed().seeing(checksums={}), WEBAPPS) is None
    assert written(with_taken(changed(), WEBAPPS, None).seeing(checksums={}), WEBAPPS) is None


def test_what_the_user_and_others_noted_on_the_template_stays() -> None:
    one = changed()
    live: dict[str, Any] = dict(one.snapshot.objects[WEBAPPS])
    template = live["spec"]["template"]
    noted = {**template, "metadata": {**template["metadata"], "annotations": {"kubectl.kubernetes.io/restartedAt": "2027"}}}
    live["spec"] = {**live["spec"], "template": noted}
    obj = written(one.seeing(objects={**one.snapshot.objects, WEBAPPS: live}), WEBAPPS)

    assert obj is not None
    assert notes(obj["spec"]["template"]) == {"kubectl.kubernetes.io/restartedAt": "2027", NOTE: "new"}


@pytest.mark.parametrize(
    "one",
    [
        changed().wanting(paused=True),
        changed().noted(2, Answer.UNKNOWN),
        changed().noted(2, Answer.ACCEPTED).all_pods(report=None),
        changed().calling(4),
    ],
    ids=["paused", "answer unknown", "restarting", "calling"],
)
def test_it_waits_while_something_else_is_under_way(one: Situation) -> None:
    one = with_taken(one, WEBAPPS, "old")

    assert written(one, WEBAPPS) is None


def test_it_does_not_wait_for_a_Coreapp_that_never_comes_back_from_a_restart() -> None:  # noqa: N802
    one = changed().noted(2, Answer.ACCEPTED).with_pod(2, report=None)
    assert one.snapshot.record.operation is not None
    overdue = one.seeing(operation=replace(one.snapshot.record.operation, deadline=NOW))

    assert written(with_taken(overdue, WEBAPPS, "old"), WEBAPPS) is not None
    assert written(with_taken(one, WEBAPPS, "old"), WEBAPPS) is None


def test_it_does_not_wait_for_a_client_that_is_busy() -> None:
    """A client without its database says that it is busy, until its pods have the new password."""
    one = changed(ref=SIMULATOR).noted(4, Answer.BUSY).wanting(shards=4)

    assert written(with_taken(one, SIMULATOR, "old"), SIMULATOR) is not None


def test_a_workload_is_replaced_at_most_once_a_minute() -> None:
    lately = Attempt(desired="old", before="older", stored="old", times=1, at=NOW - timedelta(seconds=59))
    one = changed().seeing(written={WEBAPPS: {checksums.PATH: lately}})

    assert written(one, WEBAPPS) is None
    for change in ({"at": NOW - timedelta(seconds=60)}, {"before": None}):
        assert written(one.seeing(written={WEBAPPS: {checksums.PATH: replace(lately, **change)}}), WEBAPPS) is not None, change


def test_a_failover_does_not_wait_for_it() -> None:
    assert changed().holder_deleted(0).row() == "FailingOver"
