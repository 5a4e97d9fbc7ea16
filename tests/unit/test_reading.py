"""What is read out of objects that others write."""

from __future__ import annotations

from typing import Any

import pytest

from whatsapp_operator.shell.reading import webapps_change

Obj = dict[str, Any]


def a_webapp(template: str, **meta: Any) -> Obj:
    return {"metadata": {"labels": {"app.kubernetes.io/component": "webapp", "pod-template-hash": template}, **meta}}


def a_deployment(generation: int, observed: int | None) -> Obj:
    return {"metadata": {"generation": generation}, "status": {} if observed is None else {"observedGeneration": observed}}


@pytest.mark.parametrize(
    ("deployment", "pods", "change"),
    [
        (None, [], False),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("a")], False),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("b")], True),
        (a_deployment(2, 2), [a_webapp("a"), a_webapp("b", deletionTimestamp="2027-01-04T12:00:00Z")], False),
        (a_deployment(3, 2), [a_webapp("a")], True),
        (a_deployment(1, None), [], False),
    ],
)
def test_webapps_change_until_all_are_of_the_newest_template(deployment: Obj | None, pods: list[Obj], change: bool) -> None:
    assert webapps_change(deployment, pods) is change
