"""A mutating admission webhook: what it adds to the pod template of a StatefulSet was never asked for by who wrote it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from localkube.chaos.proxy import https_server
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
    asked: Counter[str] = field(default_factory=Counter)
    """By name of the StatefulSet: writes that it was asked about."""

    def review(self, request: Obj) -> Obj:
        """The answer to the request of an AdmissionReview."""
        self.asked[request["object"]["metadata"]["name"]] += 1
        answer: Obj = {"uid": request["uid"], "allowed": True}
        if patch := patch_of(request["object"]):
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
    one = {"admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore", "timeoutSeconds": 5} | {
        "name": NAME,
        "clientConfig": {"url": webhook.url, "caBundle": authority},
        "objectSelector": {"matchLabels": labels},
        "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["statefulsets"], "operations": ["CREATE", "UPDATE"]}],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    return {**kind, "metadata": {"name": NAME}, "webhooks": [one]}


@asynccontextmanager
async def webhook_server(certificates: Certificates) -> AsyncIterator[Webhook]:
    """The webhook on loopback, under the API server's certificate, for as long as the block lasts. Nothing leads to it yet."""
    made = Webhook()

    async def serve(request: web.BaseRequest) -> web.Response:
        review = json.loads(await request.read())
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": made.review(review["request"])})

    async with https_server(certificates, serve) as (address, port):
        made.url = f"https://{address}:{port}/mutate"
        yield made
