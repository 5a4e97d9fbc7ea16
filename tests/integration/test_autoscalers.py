"""Real HorizontalPodAutoscalers: one on the Webapps has their number, one on the Coreapps is overruled and named."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .stage import Stage

pytestmark = pytest.mark.integration


async def autoscaler(stage: Stage, kind: str, name: str, least: int) -> None:
    """Without metrics it does no more than keep to its bounds, which is all that is needed here."""
    spec = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}, "minReplicas": least, "maxReplicas": least + 1}
    obj = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}, "spec": spec}
    await stage.kubectl("create", "-f", "-", input=json.dumps(obj))


def webapps(stage: Stage) -> dict[str, Any]:
    return dict(stage.status().get("webapp") or {})


async def on_the_webapps(stage: Stage) -> None:
    await autoscaler(stage, "Deployment", "acme-webapp", 3)
    await stage.until(lambda _: webapps(stage) == {"desired": 3, "ready": 3}, "three Webapps, as the autoscaler wants")
    await stage.kubectl("delete", "hpa", "acme-webapp")
    await stage.kubectl("scale", "deployment/acme-webapp", "--replicas=1")
    await stage.until(lambda _: webapps(stage) == {"desired": 1, "ready": 1}, "one Webapp, as a person wants")
    # An edit that rolls all Webapps takes the number along.
    await stage.patch(webapp={"pod": {"annotations": {"example.com/release": "b"}}})
    noted = "example.com/release"
    await stage.until(
        lambda _: [(one["metadata"].get("annotations") or {}).get(noted) for one in stage.pods("webapp")] == ["b"], "the Webapp is rolled"
    )
    assert json.loads(await stage.kubectl("get", "deployment", "acme-webapp", "-o", "json"))["spec"]["replicas"] == 1


async def on_the_coreapps(stage: Stage) -> None:
    await autoscaler(stage, "StatefulSet", "acme-coreapp", 4)
    said = await stage.word("Stalled", "ReplicasOverruled")
    assert "kube-controller-manager scales StatefulSet acme-coreapp, to 4 last" in said
    assert "Delete the HorizontalPodAutoscaler" in said
    await stage.kubectl("delete", "hpa", "acme-coreapp")
    await stage.until(lambda _: stage.replicas() == 2 and len(stage.pods("coreapp")) == 2, "as many Coreapps as the spec says")
    assert "kube-controller-manager wrote 4" in (await stage.event("ScalingDown"))["message"]


async def test_an_autoscaler_has_the_webapps_and_not_the_coreapps(stage: Stage) -> None:
    await stage.created(shards=1, spares=1)
    assert "replicas" not in (stage.cluster()["spec"].get("webapp") or {})
    await asyncio.gather(on_the_webapps(stage), on_the_coreapps(stage))
