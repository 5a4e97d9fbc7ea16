"""A mutating admission webhook: what it adds to the pod template of a StatefulSet was never asked for by who wrote it."""

from __future__ import annotations

import base64
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from localkube.plane.certificates import Certificates

Obj = dict[str, Any]

NAME = "sidecar.chaos.local"
SIDECAR = {"name": "sidecar", "image": "sidecar:1", "command": ["sleep", "infinity"]}
LABEL = "chaos.local/sidecar"
PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@dataclass(slots=True)
class Webhook:
    """Where it is, and what it did."""

    url: str = ""
    changed: Counter[str] = field(default_factory=Counter)
    """By name of the StatefulSet: writes that it changed."""
    asked: Counter[str] = field(default_factory=Counter)
    """By name of the StatefulSet: writes that it was asked about."""

    def review(self, request: Obj) -> Obj:
        """The answer to the request of an AdmissionReview."""
        obj: Obj = request["object"]
        name = obj["metadata"]["name"]
        patch = patch_of(obj)
        self.asked[name] += 1
        self.changed[name] += bool(patch)
        answer: Obj = {"uid": request["uid"], "allowed": True}
        if patch:
            answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode("ascii")}
        return answer


def patch_of(statefulset: Obj) -> list[Obj]:
    """The JSON patch that adds the sidecar and the label to a StatefulSet's template; empty if they are there."""
    template = statefulset["spec"]["template"]
    patch: list[Obj] = []
    if all(container["name"] != SIDECAR["name"] for container in template["spec"]["containers"]):
        patch.append({"op": "add", "path": "/spec/template/spec/containers/-", "value": SIDECAR})
    labels: Obj = template["metadata"].get("labels") or {}
    if LABEL not in labels:
        patch.append({"op": "add", "path": "/spec/template/metadata/labels", "value": {**labels, LABEL: "yes"}})
    return patch


def configuration(webhook: Webhook, certificates: Certificates, labels: Obj) -> Obj:
    """The MutatingWebhookConfiguration that leads writes of StatefulSets with these labels to the webhook."""
    authority = base64.b64encode(certificates.authority.read_bytes()).decode("ascii")
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["statefulsets"], "operations": ["CREATE", "UPDATE"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": NAME,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Ignore",
                "timeoutSeconds": 5,
                "clientConfig": {"url": webhook.url, "caBundle": authority},
                "objectSelector": {"matchLabels": labels},
                "rules": [rule],
            }
        ],
    }


@asynccontextmanager
async def webhook_server(certificates: Certificates) -> AsyncIterator[Webhook]:
    """The webhook on loopback, under the API server's certificate, for as long as the block lasts. Nothing leads to it yet."""
    made = Webhook()

    async def serve(request: web.BaseRequest) -> web.Response:
        review = json.loads(await request.read())
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": made.review(review["request"])})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate("server"), certificates.key("server"))
    runner = web.ServerRunner(web.Server(serve, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        address, port = runner.addresses[0][:2]
        made.url = f"https://{address}:{port}/mutate"
        yield made
    finally:
        await runner.cleanup()
