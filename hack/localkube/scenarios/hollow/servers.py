"""HTTPS servers in addition to the API server, under its own certificate: a proxy before it, and a mutating admission webhook.

The proxy passes calls and watches on, or answers some of them itself. It passes on every credential of a caller, so a caller cannot
distinguish it from the API server. The webhook adds things to the pod template of a StatefulSet that its author never asked for.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from yarl import URL

from localkube import Obj
from localkube.plane.certificates import Certificates
from outside.wire import Wire

RETRY_AFTER_S = 1
REASONS = {401: "Unauthorized", 403: "Forbidden", 429: "TooManyRequests", 500: "InternalError"}
ANY = re.compile("")
WATCH = re.compile(r"[?&]watch=(1|true)\b")
OF_ONE_HOP = {"host", "connection", "keep-alive", "transfer-encoding", "upgrade", "content-length"}
CLOSING_S = 0.5
WEBHOOK = "sidecar.chaos.local"
SIDECAR = {"name": "sidecar", "image": "sidecar:1", "command": ["sleep", "infinity"]}
LABEL = "chaos.local/sidecar"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@asynccontextmanager
async def https_server(
    certificates: Certificates, serve: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> AsyncIterator[tuple[str, int]]:
    """Serve on loopback under the API server's certificate for as long as the block lasts; gives the address.

    A caller that disconnects ends its call.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate("server"), certificates.key("server"))
    runner = web.ServerRunner(web.Server(serve, access_log=None, handler_cancellation=True), shutdown_timeout=CLOSING_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        address, port = runner.addresses[0][:2]
        yield str(address), int(port)
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that the proxy answers itself."""

    status: int  # one of REASONS
    where: re.Pattern[str] = ANY  # found in the path with its query, without percent signs
    share: float = 1.0  # of the calls that match, drawn by lot


class ApiProxy:
    """What the proxy does, and what it has done."""

    def __init__(self, server: str) -> None:
        """``server``: URL of the API server."""
        self.address = ("", 0)  # where it listens, on loopback
        self.rules: Sequence[Rule] = ()  # the first that fits a call decides; without any, everything is passed on
        self.answered: Counter[int] = Counter()  # by status: calls that it answered itself
        self.passed: Counter[int] = Counter()  # by status: answers of the API server that it passed on
        self.watches = 0  # watches that are open through it now
        self._server = server.rstrip("/")

    def rule_for(self, path: str) -> Rule | None:
        """The rule that decides over a call, None if it is passed on; ``path`` is with its query."""
        rule = next((rule for rule in self.rules if rule.where.search(path)), None)
        return rule if rule is not None and random.random() < rule.share else None  # noqa: S311 - a lot, not a secret

    def answer(self, status: int) -> web.Response:
        """The answer of an API server that rejects a call."""
        self.answered[status] += 1
        reason = REASONS[status]
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status, "message": reason}
        if status != 429:
            return web.json_response(body, status=status)
        body |= {"message": "Too many requests, please try again later.", "details": {"retryAfterSeconds": RETRY_AFTER_S}}
        return web.json_response(body, status=status, headers={"Retry-After": str(RETRY_AFTER_S)})

    async def serve(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one call, or pass it on and its answer back, piece by piece as it comes."""
        path = unquote(request.path_qs)
        if (rule := self.rule_for(path)) is not None:
            return self.answer(rule.status)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in OF_ONE_HOP]
        url = URL(f"{self._server}{request.raw_path}", encoded=True)
        is_watch = WATCH.search(path) is not None
        self.watches += is_watch
        try:
            async with session.request(request.method, url, headers=headers, data=await request.read() or None) as theirs:
                self.passed[theirs.status] += 1
                back = {name: value for name, value in theirs.headers.items() if name.lower() not in OF_ONE_HOP}
                ours = web.StreamResponse(status=theirs.status, headers=back)
                await ours.prepare(request)
                async for chunk in theirs.content.iter_any():
                    await ours.write(chunk)
                await ours.write_eof()
                return ours
        except (aiohttp.ClientError, OSError):
            # One of the two has hung up; an answer that has begun cannot become another.
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)
        finally:
            self.watches -= is_watch


@asynccontextmanager
async def api_proxy(server: str, certificates: Certificates) -> AsyncIterator[ApiProxy]:
    """A proxy before the API server at a URL, which must have its certificate of ``certificates``. It passes everything on at first."""
    proxy = ApiProxy(server)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(certificates.authority)), limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
        https_server(certificates, lambda request: proxy.serve(session, request)) as proxy.address,
    ):
        yield proxy


@asynccontextmanager
async def through(proxy: ApiProxy, wires: Sequence[Wire], *rules: Rule) -> AsyncIterator[ApiProxy]:
    """Lead wires to the proxy for as long as the block lasts, under these rules. Open connections are reset at both ends of the block."""
    proxy.rules = rules
    try:
        async with led(wires, proxy.address):
            yield proxy
    finally:
        proxy.rules = ()


@asynccontextmanager
async def led(wires: Sequence[Wire], *to: tuple[str, int]) -> AsyncIterator[None]:
    """Lead wires to another server, or to several in turn, for as long as the block lasts. Open connections are reset at both ends."""
    home = [(wire.to,) for wire in wires]
    try:
        _lead(wires, [to] * len(wires))
        yield
    finally:
        _lead(wires, home)
        await asyncio.sleep(0)


def _lead(wires: Sequence[Wire], to: Sequence[Sequence[tuple[str, int]]]) -> None:
    for wire, where in zip(wires, to, strict=True):
        wire.lead(*where)
        wire.reset()


@dataclass(slots=True)
class Webhook:
    """Where it is, and what it did."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)  # by name of the StatefulSet: writes that it was asked about

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
        "name": WEBHOOK,
        "clientConfig": {"url": webhook.url, "caBundle": authority},
        "objectSelector": {"matchLabels": labels},
        "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["statefulsets"], "operations": ["CREATE", "UPDATE"]}],
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    return {**kind, "metadata": {"name": WEBHOOK}, "webhooks": [one]}


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
