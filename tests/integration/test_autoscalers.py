"""Real HorizontalPodAutoscalers: one on the Webapps has their number, one on the Coreapps is overruled and named."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .environment import Environment

pytestmark = pytest.mark.integration


async def autoscaler(environment: Environment, kind: str, name: str, least: int) -> None:
    """Without metrics it does no more than keep to its bounds, which is all that is needed here."""
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}, "minReplicas": least, "maxReplicas": least + 1}
    obj = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}
    await environment.kubectl("create", "-f", "-", input=json.dumps(obj))


def webapps(environment: Environment) -> dict[str, Any]:
    return dict(environment.status().get("webapp") or {})


async def on_the_webapps(environment: Environment) -> None:
    await autoscaler(environment, "Deployment", "acme-webapp", 3)
    await environment.until(lambda _: webapps(environment) == {"desired": 3, "ready": 3}, "three Webapps, as the autoscaler wants")
    await environment.kubectl("delete", "hpa", "acme-webapp")
    await environment.kubectl("scale", "deployment/acme-webapp", "--replicas=1")
    await environment.until(lambda _: webapps(environment) == {"desired": 1, "ready": 1}, "one Webapp, as a person wants")
    # An edit that rolls all Webapps takes the number along.
    await environment.patch(webapp={"pod": {"annotations": {"example.com/release": "b"}}})
    noted = "example.com/release"
    await environment.until(
        lambda _: [(one["metadata"].get("annotations") or {}).get(noted) for one in environment.pods("webapp")] == ["b"],
        "the Webapp is rolled",
    )
    assert json.loads(await environment.kubectl("get", "deployment", "acme-webapp", "-o", "json"))["spec"]["replicas"] == 1


async def on_the_coreapps(environment: Environment) -> None:
    await autoscaler(environment, "StatefulSet", "acme-coreapp", 4)
    said = await environment.word("Stalled", "ReplicasOverruled")
    assert "kube-controller-manager scales StatefulSet acme-coreapp, last to 4" in said
    assert "Delete the HorizontalPodAutoscaler" in said
    await environment.kubectl("delete", "hpa", "acme-coreapp")
    await environment.until(
        lambda _: environment.replicas() == 2 and len(environment.pods("coreapp")) == 2, "as many Coreapps as the spec says"
    )
    assert "kube-controller-manager wrote 4" in (await environment.event("ScalingDown"))["message"]


async def test_an_autoscaler_has_the_webapps_and_not_the_coreapps(environment: Environment) -> None:
    await environment.created(shards=1, spares=1)
    assert "replicas" not in (environment.cluster()["spec"].get("webapp") or {})
    await asyncio.gather(on_the_webapps(environment), on_the_coreapps(environment))
