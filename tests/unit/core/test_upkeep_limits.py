"""Objects of others' making next to desired ones: what is kept, what is put right, and how often."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from whatsapp_operator.core.snapshot import Attempt
from whatsapp_operator.core.upkeep import Difference, attempted, corrected, covers, differences, is_settled, marked

from .situations import NOW

HOUR = timedelta(hours=1)
MOMENT = timedelta(seconds=1)
OWNER = [{"kind": "WhatsAppCluster", "name": "acme", "uid": "cluster-uid"}]


def obj(spec: Any = None, **metadata: Any) -> dict[str, Any]:
    meta = {"name": "acme", "labels": {"app": "acme"}, "ownerReferences": OWNER, **metadata}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {"a": 1} if spec is None else spec}


def notes(one: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = one["metadata"]["annotations"]
    return found


# --- marks


def test_the_mark_depends_on_what_is_desired_and_not_on_how_it_is_kept() -> None:
    plain, frozen = marked(obj({"a": {"b": 1, "c": 2}})), marked(obj({"a": MappingProxyType({"c": 2, "b": 1})}))

    assert notes(plain) == notes(frozen)
    assert notes(plain) != notes(marked(obj({"a": {"b": 1, "c": 3}})))
    assert len(notes(plain)["multiconnect.dev/wanted"]) == 16


def test_the_names_of_the_users_annotations_are_noted_in_their_order() -> None:
    template = {"metadata": {"annotations": dict.fromkeys("hgfe", "")}}
    names = notes(marked(obj({"template": template}), dict.fromkeys("dcba", "")))["multiconnect.dev/annotations"]

    assert names == "a,b,c,d,e,f,g,h"
    assert "multiconnect.dev/annotations" not in notes(marked(obj()))


# --- what replaces an object


def test_all_annotations_go_that_the_user_took_away() -> None:
    live = obj(annotations={"multiconnect.dev/annotations": "a,b", "a": "1", "b": "2", "of-another": "3"})

    assert notes(corrected(live, obj())) == {"of-another": "3"}


def test_an_object_without_spec_labels_or_annotations_gets_them() -> None:
    live = obj(labels=None, annotations=None)
    for spec in ({"spec": None}, {}):
        bare = {**{key: value for key, value in live.items() if key != "spec"}, **spec}
        after = corrected(bare, obj({"template": {"metadata": {"labels": {"app": "acme"}}}}))

        assert after["spec"] == {"template": {"metadata": {"labels": {"app": "acme"}}}}
        assert after["metadata"]["labels"] == {"app": "acme"}


def test_labels_of_others_stay_and_the_owner_is_put_right() -> None:
    after = corrected(obj(labels={"app": "changed", "team": "a"}, ownerReferences=[]), obj())

    assert after["metadata"]["labels"] == {"app": "acme", "team": "a"}
    assert after["metadata"]["ownerReferences"] == OWNER


# --- is a field as desired


@pytest.mark.parametrize("empty", [False, "", {}, [], ()])
def test_an_empty_value_is_there_where_nothing_is(empty: Any) -> None:
    """The API server leaves it out."""
    assert covers(None, empty)
    assert covers({}, {"a": empty})


@pytest.mark.parametrize(
    ("live", "desired"),
    [(None, 0), (True, False), ("x", ""), ([1], []), ([1, 2], [1, 3]), ([3, 2], [1, 2]), ({"a": 1}, [1]), (1, "1")],
    ids=["no number for 0", "true", "text", "one more", "another last one", "another first one", "another form", "another type"],
)
def test_another_value_is_not_as_desired(live: Any, desired: Any) -> None:
    assert not covers(live, desired)


@pytest.mark.parametrize(
    ("live", "desired", "paths"),
    [
        ({"m": {"x/y": "1"}}, {"m": {"x/y": "2"}}, ["m[x/y]"]),
        ({"m": {"x.y": "1"}}, {"m": {"x.y": "2"}}, ["m[x.y]"]),
        ({"limits": {"cpu": "1", "memory": "2Gi"}}, {"limits": {"cpu": "1000m", "memory": "1Gi"}}, ["limits.memory"]),
        ({"env": {"cpu": "1", "memory": "2Gi"}}, {"env": {"cpu": "1000m", "memory": "1Gi"}}, ["env.cpu", "env.memory"]),
        ({"requests": {"c": [{"name": "a", "x": "1"}]}}, {"requests": {"c": [{"name": "a", "x": "1000m"}]}}, ["requests.c[a].x"]),
        ({"c": [{"name": "a", "x": 1}, {"port": 1}]}, {"c": [{"name": "a", "x": 2}, {"port": 1}]}, ["c"]),
        ({"c": [{"name": 1, "x": 1}]}, {"c": [{"name": 1, "x": 2}]}, ["c"]),
    ],
    ids=["a slash", "a dot", "a limit", "no limit", "inside a list", "an entry without a name", "a name that is no text"],
)
def test_the_fields_that_differ_are_named(live: Any, desired: Any, paths: list[str]) -> None:
    assert [path for path, _ in differences(live, desired)] == paths


# --- how often a field is put right


def test_of_an_object_that_was_made_only_what_was_changed_on_the_way_is_remembered() -> None:
    stored = {"image": "mirror/x", "b": 1}
    known = attempted({}, before=None, desired={"image": "x", "b": 1}, stored=stored, now=NOW)

    assert known == {"image": Attempt(desired="x", before="x", stored="mirror/x", times=1, at=NOW)}
    assert attempted({}, before=None, desired=stored, stored=stored, now=NOW) == {}


@pytest.mark.parametrize(
    ("ago", "desired", "live", "times"),
    [
        (MOMENT, "x", "theirs", 3),
        (HOUR - MOMENT, "x", "theirs", 3),
        (HOUR, "x", "theirs", 1),
        (MOMENT, "another", "theirs", 1),
        (MOMENT, "x", "mirror/x", 2),
        (MOMENT, "x", "x", 2),
    ],
    ids=["again", "within the hour", "an hour later", "the spec changed", "written along as it came back", "written along as desired"],
)
def test_it_is_counted_how_often_a_field_was_put_right_in_a_row(ago: timedelta, desired: str, live: str, times: int) -> None:
    earlier = {"image": Attempt(desired="x", before="theirs", stored="mirror/x", times=2, at=NOW - ago)}
    known = attempted(earlier, before={"image": live}, desired={"image": desired}, stored={"image": "mirror/x"}, now=NOW)

    assert known["image"].times == times


@pytest.mark.parametrize(("ago", "kept"), [(HOUR - MOMENT, True), (HOUR, False)])
def test_a_field_that_stayed_as_it_was_written_is_forgotten_after_an_hour(ago: timedelta, kept: bool) -> None:
    earlier = {"image": Attempt(desired="x", before="y", stored="x", times=1, at=NOW - ago)}

    assert ("image" in attempted(earlier, before={"a": 1}, desired={"a": 1}, stored={"a": 1}, now=NOW)) is kept


@pytest.mark.parametrize(
    ("times", "live", "ago", "settled"),
    [
        (2, "theirs", MOMENT, False),
        (3, "theirs", MOMENT, True),
        (3, "theirs", 2 * HOUR, True),
        (3, "another", HOUR - MOMENT, True),
        (3, "another", HOUR, False),
        (2, "another", MOMENT, False),
        (1, "x", MOMENT, True),
    ],
)
def test_a_field_is_left_to_another_writer_after_three_times(times: int, live: str, ago: timedelta, settled: bool) -> None:
    """If that writer takes another value each time, for an hour only."""
    attempt = Attempt(desired="x", before="theirs", stored="x", times=times, at=NOW - ago)

    assert is_settled(Difference("x", live), attempt, NOW) is settled
    assert not is_settled(Difference("y", live), attempt, NOW), "the spec changed"
    assert not is_settled(Difference("x", live), None, NOW), "it was never written"


def test_what_leads_elsewhere_is_taken_out_of_a_service() -> None:
    live = obj({"a": 2, "externalName": "example.com", "clusterIP": "10.0.0.1"})

    assert corrected(live, obj())["spec"] == {"a": 1, "clusterIP": "10.0.0.1"}


@pytest.mark.parametrize(("kind", "kept"), [("ClusterIP", False), ("NodePort", False), ("LoadBalancer", True)])
def test_who_may_come_through_a_load_balancer_is_said_only_where_there_is_one(kind: str, kept: bool) -> None:
    """Of other types the API server rejects it. Of this one it is the user's, and keeps others out."""
    live = obj({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]})
    older = "service.beta.kubernetes.io/load-balancer-source-ranges"
    live["metadata"]["annotations"] = {older: "10.0.0.0/8", "note": "x"}
    found = corrected(live, obj({"type": kind}))

    assert ("loadBalancerSourceRanges" in found["spec"], older in found["metadata"]["annotations"]) == (kept, kept)
    assert found["metadata"]["annotations"]["note"] == "x"


def test_a_budget_says_one_of_two_numbers() -> None:
    assert corrected(obj({"minAvailable": 1}), obj({"maxUnavailable": 0}))["spec"] == {"maxUnavailable": 0}
