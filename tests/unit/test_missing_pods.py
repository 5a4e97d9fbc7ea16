"""Why pods are missing, read out of what controllers say. The Events are as Kubernetes 1.35's controllers write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whatsapp_operator.shell.objects.rejections import TEXT_KEPT, missing_names, rejection_of, replica_failure_of

QUOTA = (
    'create Pod acme-coreapp-2 in StatefulSet acme-coreapp failed error: pods "acme-coreapp-2" is forbidden: '
    "exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5"
)


def event(pod: str, at: str, *, done: bool = False, **more: Any) -> dict[str, Any]:
    failed = QUOTA.replace("acme-coreapp-2", pod)
    message = f"create Pod {pod} in StatefulSet acme-coreapp successful" if done else failed
    return {"reason": "SuccessfulCreate" if done else "FailedCreate", "message": message, "lastTimestamp": at, **more}


def test_missing_are_the_names_that_a_statefulset_is_to_have_and_has_not() -> None:
    workload = {"metadata": {"name": "acme-coreapp"}, "spec": {"replicas": 3}}
    pods = [{"metadata": {"name": name}} for name in ("acme-coreapp-1", "acme-coreapp-7", "acme-webapp-2")]
    assert missing_names(workload, pods) == ["acme-coreapp-0", "acme-coreapp-2"]


def test_the_last_event_of_a_missing_pod_counts() -> None:
    names = ["acme-coreapp-2"]
    failed, created = event(names[0], "2027-01-04T12:00:05Z"), event(names[0], "2027-01-04T12:00:07Z", done=True)
    assert rejection_of([failed], names) == QUOTA
    assert rejection_of([created, failed], names) is None, "it was created since, and has gone for another reason"
    again = event(names[0], "2027-01-04T12:00:09Z")
    assert rejection_of([again, created, failed], names) == QUOTA


def test_an_event_of_another_pod_says_nothing() -> None:
    assert rejection_of([event("acme-coreapp-20", "2027-01-04T12:00:05Z")], ["acme-coreapp-2"]) is None
    assert rejection_of([{**event("acme-coreapp-2", "x"), "reason": "RecreatingFailedPod"}], ["acme-coreapp-2"]) is None


def test_an_event_of_the_new_kind_tells_its_time_in_a_series() -> None:
    names = ["acme-coreapp-2"]
    failed = event(names[0], "", series={"count": 3, "lastObservedTime": "2027-01-04T12:00:09.000000Z"})
    assert rejection_of([failed, event(names[0], "2027-01-04T12:00:07Z", done=True)], names) == QUOTA


def test_a_deployment_says_it_in_a_condition() -> None:
    said = 'pods "acme-webapp-x" is forbidden: no PriorityClass with name nope was found'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    assert replica_failure_of({"status": {"conditions": [{"type": "Available", "status": "True"}, failure]}}) == said
    assert replica_failure_of({"status": {"conditions": [{**failure, "status": "False"}]}}) is None
    assert replica_failure_of({}) is replica_failure_of(None) is None


def test_what_a_controller_says_is_one_line_of_bounded_length() -> None:
    message = QUOTA + "\n\x1b[31m" + "x" * 5000
    found = rejection_of([{**event("acme-coreapp-2", ""), "message": message}], ["acme-coreapp-2"])
    assert found is not None
    assert len(found) == TEXT_KEPT
    assert found.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["reason", "message", "series", "type"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["reason", "message", "series", "lastTimestamp", "eventTime"]), JSON), max_size=4), JSON)
def test_nothing_that_is_read_raises(events: list[dict[str, Any]], status: object) -> None:
    rejection_of(events, ["acme-coreapp-2"])
    replica_failure_of({"status": status})
    replica_failure_of({"status": {"conditions": status}})


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_a_controller_that_gives_no_reason_is_said_so(text: str | None) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": text}
    assert replica_failure_of({"status": {"conditions": [failure]}}) == "it does not say why"
