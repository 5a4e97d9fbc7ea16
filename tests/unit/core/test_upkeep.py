"""Which fields of an object are not as desired, and whether writing them again would be of use."""

# ruff: noqa: N802  (a test carries the word of its row as it is spelt, so that one grep finds everything)

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatsapp_operator.core import manifests, upkeep
from whatsapp_operator.core.actions import Replace
from whatsapp_operator.core.snapshot import Attempt
from whatsapp_operator.core.upkeep import INSISTENT_FOR, TRIES, Difference, attempted, covers, differences, is_settled

from .plans import of
from .situations import NOW, situation
from .witnesses import WITNESSES, changed_by_admission

SOON = timedelta(seconds=1)


def found(live: Any, desired: Any) -> dict[str, tuple[Any, Any]]:
    return {path: (one.desired, one.live) for path, one in differences(live, desired)}


# --- which fields


@pytest.mark.parametrize(
    ("live", "desired", "fields"),
    [
        ({"a": 1, "more": 2}, {"a": 1}, {}),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, {"a.b": (2, 1), "a.c": (3, None)}),
        (None, {}, {}),
        ({"a": None}, {"a": {"b": {"c": 1}}}, {"a": ({"b": {"c": 1}}, None)}),
        ({"m": {"x.y/z": "1"}}, {"m": {"x.y/z": "2"}}, {"m[x.y/z]": ("2", "1")}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": ([1], [1, 2])}),
        (
            {"c": [{"name": "mesh"}, {"name": "app", "image": "mirror/a", "ready": 1}]},
            {"c": [{"name": "app", "image": "a"}]},
            {"c[app].image": ("a", "mirror/a"), "c[mesh]": (None, {"name": "mesh"})},
        ),
        ({"c": [{"name": "a"}]}, {"c": [{"name": "a"}, {"name": "b"}]}, {"c[b]": ({"name": "b"}, None)}),
        # In another order, or not distinguished by name: the list as a whole.
        ({"c": [{"name": "b"}, {"name": "a"}]}, {"c": [{"name": "a"}, {"name": "b"}]}, {"c": ...}),
        ({"c": [{"name": "a"}, {"name": "a"}]}, {"c": [{"name": "a"}]}, {"c": ...}),
        ({"c": [{"port": 1}, {"port": 2}]}, {"c": [{"port": 1}]}, {"c": ...}),
        # A selector with one more entry may select nothing.
        ({"selector": {"a": "1", "b": "2"}}, {"selector": {"a": "1"}}, {"selector": ({"a": "1"}, {"a": "1", "b": "2"})}),
        (
            {"podSelector": {"matchLabels": {"a": "1", "b": "2"}}},
            {"podSelector": {"matchLabels": {"a": "1"}}},
            {"podSelector.matchLabels": ...},
        ),
        ({"podSelector": {"matchExpressions": []}}, {"podSelector": {}}, {"podSelector": ({}, {"matchExpressions": []})}),
        ({"namespaceSelector": {"a": "1"}}, {"namespaceSelector": {}}, {"namespaceSelector": ({}, {"a": "1"})}),
        ({"selector": {"a": "2"}}, {"selector": {"a": "1"}}, {"selector.a": ("1", "2")}),
        ({"selector": None}, {"selector": {}}, {}),
        ({"selector": "a"}, {"selector": {"a": "1"}}, {"selector": ({"a": "1"}, "a")}),
        ({"selector": {"a": "1"}}, {"selector": "a"}, {"selector": ("a", {"a": "1"})}),
        ({"nodeSelector": {"a": "1", "b": "2"}}, {"nodeSelector": {"a": "1"}}, {}),
        # So it may where the API server adds nothing to a policy; and what is inside a list is as exact.
        ({"ingress": [{"p": 1, "from": []}]}, {"ingress": [{"p": 1}]}, {"ingress": ...}),
        ({"ingress": [{"name": "a", "p": [{"x": 1, "y": 2}]}]}, {"ingress": [{"name": "a", "p": [{"x": 1}]}]}, {"ingress[a].p": ...}),
        # Empty values that the API server keeps are missed where they are taken away, and others are not.
        ({"labels": {"b": "1"}}, {"labels": {"a": "", "b": "1"}}, {"labels.a": ("", None)}),
        ({"annotations": {"b": "1"}}, {"annotations": {"a": "", "b": "1"}}, {"annotations.a": ("", None)}),
        ({"selector": {"b": "1"}}, {"selector": {"a": "", "b": "1"}}, {"selector.a": ("", None)}),
        ({"matchLabels": {"b": "1"}}, {"matchLabels": {"a": "", "b": "1"}}, {"matchLabels.a": ("", None)}),
        ({"nodeSelector": {"b": "1"}}, {"nodeSelector": {"a": "", "b": "1"}}, {"nodeSelector.a": ("", None)}),
        ({"from": [{}]}, {"from": [{"namespaceSelector": {}}]}, {"from": ...}),
        ({"c": [{"name": "a"}]}, {"c": [{"name": "a", "enableServiceLinks": False}]}, {"c[a].enableServiceLinks": (False, None)}),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "a", "value": ""}]}, {}),
        ({"labels": None}, {"labels": {}}, {}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1024Mi"}}, {}),
        ({"requests": {"memory": "2Gi", "cpu": 1}}, {"requests": {"memory": "1Gi", "cpu": "1000m"}}, {"requests.memory": ("1Gi", "2Gi")}),
    ],
)
def test_a_difference_is_named_by_its_field(live: Any, desired: Any, fields: dict[str, Any]) -> None:
    assert {path: ... if fields.get(path) is ... else values for path, values in found(live, desired).items()} == fields


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "1Gi", "1024Mi"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "name", "requests", "selector", "ingress", "labels"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("xyz"), "v": inner}), max_size=3)
    ),
    max_leaves=8,
)


@given(live=JSON, desired=JSON)
def test_there_is_a_difference_exactly_where_what_is_desired_is_not_covered(live: Any, desired: Any) -> None:
    assert (not found(live, desired)) == covers(live, desired)


# --- is it worth writing again


@given(before=st.none() | st.fixed_dictionaries({"spec": JSON}), desired=JSON, stored=JSON, again=JSON)
def test_what_came_back_of_a_write_is_not_written_again(before: Any, desired: Any, stored: Any, again: Any) -> None:
    """With any of them, no matter what was known before."""
    wanted = {"spec": desired}
    known = attempted({}, before=before, desired=wanted, stored={"spec": stored}, now=NOW)
    known = attempted(known, before={"spec": stored}, desired=wanted, stored={"spec": again}, now=NOW + SOON)

    assert all(is_settled(one, known.get(path), NOW + SOON) for path, one in differences({"spec": again}, wanted))


def written(live: Any, stored: Any, desired: Any = "x", earlier: dict[str, Attempt] | None = None, at: Any = NOW) -> dict[str, Attempt]:
    return attempted(earlier or {}, before={"image": live}, desired={"image": desired}, stored={"image": stored}, now=at)


MIRRORED = written("mirror/x", "mirror/x")


@pytest.mark.parametrize(
    ("attempts", "live", "desired", "settled"),
    [
        ({}, "mirror/x", "x", False),
        (MIRRORED, "mirror/x", "x", True),
        (MIRRORED, "other/x", "x", False),
        (MIRRORED, "mirror/x", "y", False),
        (written("y", "x"), "y", "x", False),
    ],
    ids=["never written", "as it came back", "it moved", "what is desired moved", "a person changed what was taken"],
)
def test_a_field_is_written_again_when_one_of_both_moves(attempts: dict[str, Attempt], live: str, desired: str, settled: bool) -> None:
    assert is_settled(Difference(desired, live), attempts.get("image"), NOW) is settled


def test_who_writes_after_each_write_is_given_way_to_after_a_few_times() -> None:
    known: dict[str, Attempt] = {}
    times = 0
    while times < 10 and not is_settled(Difference("x", "theirs"), known.get("image"), NOW):
        known = written("theirs", "x", earlier=known)
        times += 1

    assert times == TRIES
    later = NOW + 100 * INSISTENT_FOR
    assert is_settled(Difference("x", "theirs"), known["image"], later), "for as long as it is the same"
    assert is_settled(Difference("x", "another"), known["image"], NOW + SOON), "a value that is never the same is no way out"
    assert not is_settled(Difference("x", "another"), known["image"], later)
    assert not is_settled(Difference("y", "theirs"), known["image"], NOW), "what is desired moved"


def test_a_person_who_errs_now_and_then_is_put_right_each_time() -> None:
    known: dict[str, Attempt] = {}
    for number in range(10):
        at = NOW + number * INSISTENT_FOR
        assert not is_settled(Difference("x", "theirs"), known.get("image"), at)
        known = written("theirs", "x", earlier=known, at=at)


def test_what_is_written_along_is_not_counted() -> None:
    """The whole object is put whenever any of its fields is: that says nothing of a field that admission changes."""
    known = MIRRORED
    for _ in range(10):
        known = written("mirror/x", "mirror/x", earlier=known)

    assert known["image"].times == 1


def test_what_was_put_right_long_ago_is_forgotten() -> None:
    known = {**written("y", "x"), "other": MIRRORED["image"]}
    later = attempted(known, before={"a": 1}, desired={"a": 2}, stored={"a": 2}, now=NOW + INSISTENT_FOR)

    assert sorted(later) == ["a", "other"]


# --- what the table makes of it


def test_ChangedByAdmission_names_the_fields_and_holds_up_nothing() -> None:
    one = WITNESSES["ChangedByAdmission"]
    said = {kind: one.condition(kind) for kind in ("Ready", "Reconciling", "Stalled")}

    assert {kind: (entry["status"], entry["reason"]) for kind, entry in said.items()} == {
        "Ready": ("True", "Serving"),
        "Reconciling": ("False", "UpToDate"),
        "Stalled": ("False", "ChangedByAdmission"),
    }
    assert said["Stalled"]["message"].endswith(
        "StatefulSet acme-coreapp: spec.template.spec.topologySpreadConstraints, spec.template.spec.containers[proxy]."
    )
    assert of(one.plan(), Replace) == []
    assert not one.facts().is_template_settling
    assert one.report()["reason"] == "Serving", "it is not the loudest"


def test_ChangedByAdmission_is_said_whatever_else_is_under_way() -> None:
    assert changed_by_admission().holder_deleted(0).condition("Stalled")["reason"] == "ChangedByAdmission"


def test_ChangedByAdmission_names_no_value_and_is_bounded() -> None:
    one = situation().settled()
    ref = manifests.coreapp_statefulset("acme")
    desired = one.snapshot.objects[ref]
    pods: dict[str, Any] = desired["spec"]["template"]["spec"]
    many = [{"name": f"{'x' * 200}-{number}", "image": "s3cret"} for number in range(500)]
    template = {**desired["spec"]["template"], "spec": {**pods, "containers": [*pods["containers"], *many]}}
    stored = {**desired, "spec": {**desired["spec"], "template": template}}
    written = {ref: attempted({}, before=None, desired=desired, stored=stored, now=NOW)}

    message = one.seeing(objects={**one.snapshot.objects, ref: stored}, written=written).condition("Stalled")["message"]
    assert "s3cret" not in message
    assert message.endswith("and 494 more.")
    assert len(message) <= 1024


def test_a_field_next_to_admission_is_put_right_with_the_whole_object() -> None:
    one = changed_by_admission()
    ref = manifests.coreapp_statefulset("acme")
    live = one.snapshot.objects[ref]
    moved = {**live, "metadata": {**live["metadata"], "labels": {}}}

    (mend,) = of(one.seeing(objects={**one.snapshot.objects, ref: moved}).plan(), Replace)
    assert mend.live is moved
    assert covers(mend.obj, mend.desired)
    assert upkeep.covers(mend.obj["metadata"]["labels"], mend.desired["metadata"]["labels"])
