"""Faults on command: the control endpoint of a hollow process, and the client that tests and demos use.

Loopback only and without a password: it can end simulated pods of a throw-away cluster, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from localkube import LocalKubeError, Obj
from localkube.hollow.fleet import Hollow
from localkube.hollow.pods import HollowPod, NotRunningError

ADDRESS_FILE = "hollow.json"
CALL_TIMEOUT_S = 60.0
"""Also on a busy machine."""


def application(hollow: Hollow) -> web.Application:
    """The routes.

    GET /state: pods, nodes, and how often a Service matched several pods.
    POST /pods/<namespace>/<name>/<verb>: kill, hang, resume, fail {reason}, disturb {...}; with {uid} only that very pod.
    POST /nodes/<name>/<verb>: lose {running}, back {rebooted}.
    Answers 404 or 409 with {"error": one sentence} when there is no such pod or it runs no container.
    """
    on_pod: dict[str, Callable[..., Awaitable[None]]] = {
        verb.__name__: verb for verb in (HollowPod.kill, HollowPod.hang, HollowPod.resume, HollowPod.disturb, HollowPod.fail)
    }
    on_node: dict[str, Callable[..., Awaitable[None]]] = {"lose": hollow.lose, "back": hollow.bring_back}

    async def state(_: web.Request) -> web.Response:
        return web.json_response(hollow.describe())

    async def strike_pod(request: web.Request) -> web.Response:
        body, where = await request.json(), request.match_info
        await on_pod[where["verb"]](hollow.pod(where["namespace"], where["name"], body.pop("uid", None)), **body)
        return web.json_response({})

    async def strike_node(request: web.Request) -> web.Response:
        await on_node[request.match_info["verb"]](request.match_info["name"], **await request.json())
        return web.json_response({})

    app = web.Application(middlewares=[_errors])
    app.router.add_get("/state", state)
    app.router.add_post(f"/pods/{{namespace}}/{{name}}/{{verb:{'|'.join(on_pod)}}}", strike_pod)
    app.router.add_post(f"/nodes/{{name}}/{{verb:{'|'.join(on_node)}}}", strike_node)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    try:
        return await handler(request)
    except (LookupError, NotRunningError, ValueError) as e:
        status = 404 if isinstance(e, LookupError) else 409 if isinstance(e, NotRunningError) else 400
        return web.json_response({"error": str(e.args[0] if e.args else e)}, status=status)


class HollowControlError(LocalKubeError):
    """The hollow process rejected a call or did not answer; the text is its sentence."""


class HollowControl:
    """Client of a hollow process's control endpoint. Use as an async context manager; a call that fails raises HollowControlError."""

    _session: aiohttp.ClientSession  # inside the block

    def __init__(self, url: str) -> None:
        """`url`: as in the file that the hollow process writes, e.g. `http://127.0.0.1:40123`."""
        self._url = url

    @classmethod
    def of(cls, folder: Path) -> Self:
        """The client of the hollow process that works in this folder. Raises HollowControlError when it is not ready."""
        try:
            return cls(json.loads((folder / ADDRESS_FILE).read_text(encoding="utf-8"))["control"])
        except (OSError, ValueError, KeyError) as e:
            raise HollowControlError(f"no hollow nodes are ready in {folder} ({e}): start them with 'python -m localkube.hollow'") from e

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def state(self) -> Obj:
        """`{"pods": [...], "nodes": [...], "ambiguous": {"namespace/service": times}, "effects": {uid: {...}}}`.

        A pod is namespace, name, uid, node, ip, component, state, message, ready, restarts, hung, leaving, failed; a node is name, address,
        zone, lost. `ambiguous` counts resolutions of a Service whose selector matched several pods (for a shard's Service: two holders).
        `effects` counts by uid of a pod what faults were seen to do to it: containers ended, requests held, probes lost, probes late,
        connections reset.
        """
        return await self._call("GET", "/state")

    async def kill(self, namespace: str, pod: str, *, uid: str | None = None) -> None:
        """SIGKILL to the main container; returns when its connections are cut. It is restarted as the kubelet would."""
        await self._call("POST", f"/pods/{namespace}/{pod}/kill", uid=uid)

    async def hang(self, namespace: str, pod: str, *, uid: str | None = None) -> None:
        """SIGSTOP: TCP still connects, nothing answers; probes of the pod's spec fail after their time."""
        await self._call("POST", f"/pods/{namespace}/{pod}/hang", uid=uid)

    async def resume(self, namespace: str, pod: str, *, uid: str | None = None) -> None:
        """SIGCONT."""
        await self._call("POST", f"/pods/{namespace}/{pod}/resume", uid=uid)

    async def fail(self, namespace: str, pod: str, reason: str = "Evicted", *, uid: str | None = None) -> None:
        """The whole pod ends in phase Failed."""
        await self._call("POST", f"/pods/{namespace}/{pod}/fail", uid=uid, reason=reason)

    async def disturb(self, namespace: str, pod: str, *, uid: str | None = None, **fault: Any) -> None:
        """Something else goes wrong with a Coreapp, until its container ends: see `wabiz_sim.disturbance`.

        `swallow`: share of the probes that is never answered; `late`: seconds by which each answer is late; `linger`: seconds that it keeps
        running after SIGTERM; `ports`: open, closed (no listener, the process lives), half-open (open connections stay and are silent, new
        ones are not completed) or parted (as half-open, but new ones are completed, and calls from one address are answered).
        """
        await self._call("POST", f"/pods/{namespace}/{pod}/disturb", uid=uid, **fault)

    async def lose(self, node: str, *, running: bool = False) -> None:
        """The node is cut off: no Lease, no reports, its containers do not answer; deletions of its pods are not carried out.

        With ``running``, its Coreapps keep running and keep their connections to the WhatsApp servers, but they cannot be reached.
        """
        await self._call("POST", f"/nodes/{node}/lose", running=running)

    async def back(self, node: str, *, rebooted: bool = False) -> None:
        """The node is back: its containers continue, or start again if it was `rebooted`; containers of deleted pods are ended."""
        await self._call("POST", f"/nodes/{node}/back", rebooted=rebooted)

    async def _call(self, method: str, path: str, **body: Any) -> Obj:
        what = f"hollow nodes at {self._url}: {method} {path}"
        try:
            async with self._session.request(method, self._url + path, json=body or None) as response:
                answer: Obj = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as e:
            raise HollowControlError(f"{what}: no answer ({type(e).__name__}: {e})") from e
        if response.status >= 400:
            raise HollowControlError(f"{what}: {(answer or {}).get('error', response.status)}")
        return answer
