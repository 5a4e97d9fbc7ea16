"""A real mutating webhook that changes what the operator writes: it is written once, said, and everything goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from localkube.plane import certificates

from .environment import Environment, Obj

pytestmark = pytest.mark.integration

MIRROR = "mirror.example/"
PROXY = {"name": "proxy", "image": "mesh.example/proxy:1"}
STAMP = "example.com/stamp"


class Webhook:
    """Adds a container, rewrites images, and stamps each write of a workload with another number, as no webhook should."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["request"]
        self.asked[f"{asked['operation']} {asked['object']['kind']} {asked['name']}"] += 1
        patch = base64.b64encode(json.dumps(self._patch(asked["object"]["spec"]["template"])).encode()).decode()
        answer = {"uid": asked["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer})

    def _patch(self, template: Obj) -> list[Obj]:
        containers = [one for one in template["spec"]["containers"] if one["name"] != PROXY["name"]]
        mirrored = [{**one, "image": MIRROR + one["image"].removeprefix(MIRROR)} for one in containers]
        annotations = {**(template["metadata"].get("annotations") or {}), STAMP: str(self.asked.total())}
        return [
            {"op": "add", "path": "/spec/template/spec/containers", "value": [*mirrored, PROXY]},
            {"op": "add", "path": "/spec/template/metadata/annotations", "value": annotations},
        ]


@asynccontextmanager
async def a_webhook(environment: Environment, folder: Path) -> AsyncIterator[Webhook]:
    """A webhook that the API server asks before it stores a workload in the environment's namespace."""
    made = certificates.make(folder / "webhook", service_ip="127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate("server"), made.key("server"))
    webhook, app = Webhook(), web.Application()
    app.router.add_post("/", webhook.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    name = f"{environment.namespace}.example.com"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["statefulsets", "deployments"]}
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": name,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{port}/",
                    "caBundle": base64.b64encode(made.authority.read_bytes()).decode(),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": environment.namespace}},
                "rules": [rule],
            }
        ],
    }
    try:
        await environment.kubectl("create", "-f", "-", input=json.dumps(configuration))
        await _until_asked(environment, webhook)
        yield webhook
    finally:
        await environment.kubectl("delete", "mutatingwebhookconfiguration", name)
        await runner.cleanup()


async def _until_asked(environment: Environment, webhook: Webhook) -> None:
    """The API server learns of a webhook a moment after it was made."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    spec = {"serviceName": "try", "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    attempt = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "try"}, "spec": spec}
    async with asyncio.timeout(60):
        while not webhook.asked:
            await environment.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(attempt))
    webhook.asked.clear()


def uids(environment: Environment) -> set[str]:
    return {pod["metadata"]["uid"] for pod in environment.pods("coreapp")}


async def test_a_webhook_that_changes_every_write_holds_up_nothing(environment: Environment, tmp_path: Path) -> None:
    async with a_webhook(environment, tmp_path) as webhook:
        await environment.created(shards=1, spares=1)
        await environment.until(lambda _: environment.reason("Stalled") == "ChangedByAdmission", "it is said")
        said = environment.seen.condition(environment.namespace, "acme", "Stalled")
        assert said["status"] == "False"
        for field in ("StatefulSet acme-coreapp", "containers[proxy]", "containers[coreapp].image", "Deployment acme-webapp"):
            assert field in said["message"]

        before = uids(environment)
        await environment.patch(shards=2)
        await environment.at_rest()
        assert before <= uids(environment), "more pods are no new template, no matter what the webhook makes of a write"

        await environment.patch(coreapp={"pod": {"annotations": {"example.com/release": "b"}}})
        await environment.at_rest()
        assert not uids(environment) & before
        for pod in environment.pods("coreapp"):
            assert pod["metadata"]["annotations"]["example.com/release"] == "b"
            assert [one["name"] for one in pod["spec"]["containers"]] == ["coreapp", "proxy"]
            assert all(one["image"].startswith(MIRROR) for one in pod["spec"]["containers"][:1])
        # At once after the other, so that the time between is spent at rest, too.
        await environment.patch(shards=1)
        await environment.at_rest()

    writes = environment.harness.writes(since=environment.began, namespace=environment.namespace)
    written = Counter(f"{one.verb} {one.resource} {one.name}" for one in writes)
    stored = Counter(f"{one.verb} {one.resource} {one.name}" for one in writes if one.code < 300)
    # Made, and written once for the roll-out, which may be in conflict once. The Webapps get the mark of their Secrets, and grow to two.
    assert written["update statefulsets acme-coreapp"] in {1, 2}, written
    assert stored["update deployments acme-webapp"] <= 2, stored
    assert written["update statefulsets acme-simulator"] == 0, written
    assert webhook.asked["UPDATE StatefulSet acme-coreapp"] <= written["update statefulsets acme-coreapp"], "neither scale nor status"
