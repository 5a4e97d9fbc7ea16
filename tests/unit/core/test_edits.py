"""All that another party changes of what the operator writes is put right by one write, and the next observation writes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from whatsapp_operator.core.desired import Desired
from whatsapp_operator.core.names import Obj

from .edits import EVERYTHING, Edit, additions_of, edits_of, is_left, put_right, swaps_of, thawed, written_by
from .situations import situation

SPECS = {"all fields": replace(situation().desired, **EVERYTHING), "few fields": situation().desired}
WRITTEN = {
    f"{obj['kind']} {obj['metadata']['name']}, {which}": (desired, obj) for which, desired in SPECS.items() for obj in written_by(desired)
}

CLOSED = {"selector", "podSelector", "namespaceSelector", "matchLabels", "ingress"}
"""Fields to which the API server adds nothing. To all others it adds defaults, and admission what it likes: one more is left as it is."""
NAMED = {"labels", "annotations", "nodeSelector", "requests", "limits"}


GO_WITH_THE_TYPE = {"externalTrafficPolicy", "loadBalancerClass"}
"""Fields of a Service that the API server drops when it becomes a ClusterIP."""


def stored(obj: Obj) -> dict[str, Any]:
    """What the API server makes of a write: it adds fields wherever it may, and drops what is empty or of another type."""
    meta = {key: value for key, value in obj["metadata"].items() if value or key not in {"labels", "annotations"}}
    spec = {key: value for key, value in obj["spec"].items() if key not in GO_WITH_THE_TYPE}
    return {**obj, "metadata": {**meta, "uid": "u", "resourceVersion": "7"}, "spec": completed(thawed(spec))}


def completed(value: Any, key: str | int = "") -> Any:
    if key in CLOSED | NAMED:
        return value
    if isinstance(value, list):
        return [completed(one) for one in value]
    return {**{name: completed(one, name) for name, one in value.items()}, "default": 1} if isinstance(value, dict) else value


def remains(desired: Desired, before: Obj, edit: Edit) -> bool:
    """Whether this edit is still there after a write, or would be written once more."""
    write = put_right(desired, edit.of(before))
    return write is None or stored(write) != before or put_right(desired, stored(write)) is not None


@pytest.mark.parametrize("which", WRITTEN)
def test_every_edit_is_put_right_by_one_write(which: str) -> None:
    desired, written = WRITTEN[which]
    before = stored(written)
    assert put_right(desired, before) is None

    edits = [*edits_of(written), *swaps_of(written)]
    assert {str(one) for one in edits if remains(desired, before, one)} == {str(one) for one in edits if is_left(written, one)}


@pytest.mark.parametrize("which", WRITTEN)
def test_what_another_party_adds_is_taken_away_only_where_the_api_server_adds_nothing(which: str) -> None:
    desired, written = WRITTEN[which]
    before = stored(written)

    edits = [*additions_of(written)]
    assert {str(one) for one in edits if remains(desired, before, one)} == {str(one) for one in edits if CLOSED.isdisjoint(one.path)}


def test_every_field_of_an_object_is_edited() -> None:
    edits = {str(one) for one in edits_of(WRITTEN["Service acme-shard-0, few fields"][1])}

    assert edits >= {
        "metadata.labels removed",
        "metadata.labels.multiconnect.dev/shard changed",
        "metadata.ownerReferences longer",
        "spec.selector.multiconnect.dev/epoch removed",
        "spec.ports turned",
        "spec.ports.0 removed",
        "spec.ports.1.targetPort changed",
        "spec.publishNotReadyAddresses changed",
    }
