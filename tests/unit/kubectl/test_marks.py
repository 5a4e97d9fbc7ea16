"""The plugin's own reading of labels and Services says the same as the operator's."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubectl_whatsapp import marks
from whatsapp_operator.core import manifests
from whatsapp_operator.core.reasons import Reason

from .clusters import UID, a_cluster

SERVICES = a_cluster(12, 1).found["services"]["items"]
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"annotations": {}},
    {"annotations": {"multiconnect.dev/holder": "Not A Pod/uid"}},
    {"annotations": {"multiconnect.dev/holder": "acme-coreapp-1"}},
    {"annotations": {"multiconnect.dev/holder": "acme-coreapp-1/u", "multiconnect.dev/committed-at": "soon"}},
    {"annotations": {"multiconnect.dev/holder": f"{'x' * 64}/u"}},
    {"name": "acme-shard-01"},
    {"name": "acme-shard-100"},
    {"name": "acme-shard-"},
    {"name": "other-shard-1"},
    {"ownerReferences": []},
    {"ownerReferences": [{"uid": "other"}]},
)


@pytest.mark.parametrize("selector", ["10-first", "none", "", "x-y", "7-", None])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_service_is_the_same_route(change: dict[str, Any], selector: str | None) -> None:
    for service in copy.deepcopy(SERVICES):
        if "-shard-" not in service["metadata"]["name"]:
            assert marks.route_of(service, "acme", UID) is None
            continue
        service["metadata"] |= change
        service["spec"]["selector"] = {} if selector is None else {marks.EPOCH_LABEL: selector}
        ours, theirs = marks.route_of(service, "acme", UID), manifests.route_of(service, "acme", UID)
        if theirs is None or theirs.foreign:
            assert ours is None
        else:
            assert ours == marks.Route(
                **{name: getattr(theirs, name) for name in ("shard", "epoch", "holder", "holder_uid", "committed_at")}
            )


def test_the_names_are_those_of_the_operator() -> None:
    names = [name for name in vars(marks) if name.endswith(("_LABEL", "_ANNOTATION"))]
    assert {name: getattr(marks, name) for name in names} == {name: getattr(manifests, name) for name in names}


@pytest.mark.parametrize(
    "text", ["2027-01-04T12:00:00Z", "2027-01-04T12:00:00.123456Z", "2027-01-04T12:00:00+01:00", "2027-01-04T12:00:00", "", "x"]
)
def test_times_are_read_alike(text: str) -> None:
    assert marks.moment(text) == manifests.moment(text)
    assert marks.moment(None) is None


def test_reasons_that_the_verdict_goes_by_exist() -> None:
    from kubectl_whatsapp.verdict import PASSING

    assert {str(reason) for reason in Reason} >= PASSING
