"""Kopf's handlers: events are noted and wake a loop, nothing else. No handler here reads, decides or writes."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import aiohttp
import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory
from lightkube.config.models import User

from whatsapp_operator.core.manifests import API_VERSION, CLUSTER_LABEL, cluster_of
from whatsapp_operator.core.names import Key, Obj
from whatsapp_operator.shell.kube.client import configuration
from whatsapp_operator.shell.kube.kinds import POD, SERVICE, STATEFULSET, WAC, Kind
from whatsapp_operator.shell.kube.transport import MOST_SENT, SLOW, Patience, SentAgain, socket_options
from whatsapp_operator.shell.kube.trust import version_of_file

from .health import WatchHealth, name_of

log = logging.getLogger(__name__)

CHUNK = 100
"""Objects in one answer to a list."""
KINDS = (WAC, POD, SERVICE, STATEFULSET)
"""What is watched."""
END_WITHIN = 0.6
"""Seconds that Kopf's tasks have to end."""
UNAUTHORIZED_PAUSES = (0.1, 0.2, 0.4, *[0.5] * 9)
"""Seconds between attempts of a request that is answered by 401, before Kopf gets a new session."""
HELPERS = ("cleaner of ", "spawner of ")
"""Prefixes of the names of Kopf's tasks that start and end others."""
STREAM_SECONDS = 10
"""Length of one stream: a dead connection, or an API server that hangs, shows when the server does not end it in time."""
OVERDUE_SECONDS = 5
"""Seconds after which a stream that should have ended is ended from this side."""
IDLE_SECONDS = 1.0
"""How long an idle connection is kept, for the next stream: the API server to which it leads may begin to hang meanwhile."""
MOST_MORE = 20
"""Connections that all watches together open in addition within `SLOW`: the watches of five namespaces may lose theirs at the same time."""


class _Endless:
    """Endless back-offs: Kopf ends the process when it runs out of them."""

    def __iter__(self) -> Iterator[float]:
        pause = 0.1
        while True:
            yield pause
            pause = min(pause * 2, 5.0)


class _NoEssence(kopf.AnnotationsDiffBaseStorage):
    """Compares nothing: no handler here uses the difference, and Kopf would copy the object of every event for it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence."""
        return kopf.BodyEssence()


class Forgetful(ResourceMemories):
    """Remembers no object: no handler here needs it, and with very many clusters Kopf would hold a kilobyte for each of their objects."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """Return what is known about an object: nothing."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})


def settings(namespaces: Iterable[str] = ()) -> kopf.OperatorSettings:
    """Return Kopf's settings: it watches and does nothing else. ``namespaces``: those that are managed; none means all."""
    chosen = kopf.OperatorSettings()
    # With Roles alone neither CRDs nor namespaces may be listed. With endless back-offs Kopf would retry that and watch nothing.
    chosen.scanning.disabled = bool(tuple(namespaces))
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.networking.request_timeout = 10
    chosen.networking.connect_timeout = 3
    chosen.networking.error_backoffs = _Endless()
    chosen.watching.server_timeout = STREAM_SECONDS
    chosen.watching.client_timeout = STREAM_SECONDS + OVERDUE_SECONDS
    chosen.watching.reconnect_backoff = 0.1
    # Ten thousand pods in one answer need more memory than everything else. Pods without the label are not requested at all.
    chosen.watching.chunk_size = CHUNK
    for group, resource in (("", "pods"), ("", "services"), ("apps", "statefulsets")):
        chosen.watching.label_selectors[group, "v1", resource] = CLUSTER_LABEL
    # A worker that waits keeps its object in memory.
    chosen.queueing.idle_timeout = 0.5
    chosen.persistence.finalizer = "multiconnect.dev/unused"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="kopf.multiconnect.dev")
    chosen.persistence.diffbase_storage = _NoEssence(prefix="kopf.multiconnect.dev")
    # Otherwise Kopf would end the whole process by SIGKILL some time after it stopped.
    chosen.process.ultimate_exiting_timeout = None
    return chosen


def connection(kubeconfig: Path | None) -> kopf.ConnectionInfo:
    """Return Kopf's connection to the API server, as the Kubernetes client finds it. Rejected: it cannot be found."""
    config = configuration(kubeconfig)
    cluster, user = config.cluster, config.user or User()

    def path(name: str | None) -> str | None:
        return str(config.abs_file(name)) if name else None

    token_file = path(user.token_file)
    token = Path(token_file).read_text(encoding="utf-8") if token_file else user.token
    return kopf.ConnectionInfo(
        server=cluster.server,
        ca_path=path(cluster.certificate_auth),
        ca_data=cluster.certificate_auth_data,
        insecure=cluster.insecure,
        token=token.strip() if token else None,
        certificate_path=path(user.client_cert),
        certificate_data=user.client_cert_data,
        private_key_path=path(user.client_key),
        private_key_data=user.client_key_data,
    )


def watched(namespaces: Iterable[str] = ()) -> dict[str, str]:
    """Return the name of each watch by the path under which Kopf opens it. ``namespaces``: see ``settings``."""
    chosen: tuple[str | None, ...] = tuple(namespaces) or (None,)
    return {_path(kind, namespace): name_of(kind, namespace) for kind in KINDS for namespace in chosen}


def _path(kind: Kind, namespace: str | None) -> str:
    root = "/apis" if "/" in kind.api_version else "/api"
    return "/".join((root, kind.api_version, *(("namespaces", namespace) if namespace else ()), kind.plural))


class AuthorityChanged(Exception):  # noqa: N818  the name says what happened
    """The authority of the API server's certificate was rotated. A session trusts the former one, so the watches begin again."""


class Login:
    """Gives Kopf sessions with tracked watches. Each session is a new one: Kopf ends when it gets a rejected one again."""

    def __init__(
        self,
        connection: Callable[[], kopf.ConnectionInfo],
        *,
        health: WatchHealth,
        names: Mapping[str, str],
        opened_again: SentAgain | None = None,
    ) -> None:
        """``connection`` reads the connection data again at each call; ``names``: see ``watched``.

        ``opened_again`` counts the calls for which more than one connection was opened.
        """
        self._connection = connection
        self._health = health
        self._names = names
        self._opened_again = SentAgain() if opened_again is None else opened_again
        self._pause = 0.0
        self._last = float("-inf")
        self.sessions: list[aiohttp.ClientSession] = []

    async def session(self) -> kopf.AiohttpSession:
        """Return a new session. Repeated calls wait longer and longer, up to 2 s. kopf.TemporaryError: no credentials."""
        now = asyncio.get_running_loop().time
        self._pause = min(max(self._pause * 2, 0.1), 2.0) if now() < self._last + 5 else 0.0
        await asyncio.sleep(self._pause)
        self._last = now()
        try:
            info = self._connection()
            authority = info.ca_path and version_of_file(info.ca_path)
            options = {"limit": 0, "keepalive_timeout": IDLE_SECONDS, "socket_factory": _keepalive_socket}
            connector = HedgingConnector(self._opened_again, ssl=info.as_ssl_context(), **options)
        except Exception as error:  # its text could quote the kubeconfig
            msg = f"The credentials of the kubeconfig or service account cannot be read ({type(error).__name__})."
            raise kopf.TemporaryError(msg, delay=1.0) from None
        session = aiohttp.ClientSession(
            connector=connector, headers=info.as_http_headers(), middlewares=(self._send, partial(self._authorize, authority))
        )
        self.sessions.append(session)
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    async def close(self) -> None:
        """Close every session that Kopf left open."""
        for session in self.sessions:
            await session.close()

    async def _send(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Send a request of Kopf, and note what it says about a watch.

        After a 401 it is sent again: Kopf would close all other streams because of it.
        """
        # The URL of the server may have a path.
        name = next((name for path, name in self._names.items() if request.url.path.endswith(path)), "")
        self._health.tended(name)
        response = await handler(request)
        for pause in UNAUTHORIZED_PAUSES:
            if response.status != 401:
                break
            response.release()
            await asyncio.sleep(pause)
            response = await handler(request)
        self._health.tended(name)
        if response.status in (403, 404):
            self._health.rejected(name)
        if response.ok:
            self._health.connected(name, (lambda: not response.closed) if "watch" in request.url.query else None)
        return response

    async def _authorize(
        self, authority: object, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request with the current token. AuthorityChanged: TLS failed, and there is another ``authority`` now.

        The kubelet updates the files of both. A token that cannot be read now may be readable the next time.
        """
        info = None
        with suppress(Exception):
            info = self._connection()
            request.headers.update(info.as_http_headers())
        try:
            return await handler(request)
        except aiohttp.ClientSSLError:
            if info is not None and info.ca_path and version_of_file(info.ca_path) != authority:
                msg = "there is another authority for the API server's certificate now"
                raise AuthorityChanged(msg) from None
            raise


class HedgingConnector(aiohttp.TCPConnector):
    """Opens another connection while one is not open after `SLOW`, and uses the first that is.

    Of several API servers behind a load balancer one may hang, and a TLS handshake with it takes the whole time-out. After two of them a
    watch has been away for so long that the supervisor restarts all watches and a leader steps down.

    An API server that is merely slow must not get a multiple of the connections. So all watches together open few more, and none as long
    as the first one is open within twice the time that the last one took.
    """

    def __init__(self, opened_again: SentAgain, **options: Any) -> None:
        """``opened_again`` counts the calls for which more than one connection was opened; ``options``: those of the library."""
        super().__init__(**options)
        self._opened_again = opened_again
        self._patience = Patience()
        self._room = asyncio.Semaphore(MOST_MORE)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Return an open connection (called by the client library)."""
        began = asyncio.get_running_loop().time()
        attempts, opened = [asyncio.create_task(super().connect(req, traces, timeout))], None
        try:
            while opened is None and (pending := [one for one in attempts if not one.done()]):
                wait = self._patience.seconds if len(attempts) < MOST_SENT else None
                done, _ = await asyncio.wait(pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                opened = next((one for one in done if one.exception() is None), None)
                if not done:
                    attempts.append(asyncio.create_task(self._connect_again(req, traces, timeout)))
            if opened is not None:
                self._patience.note(asyncio.get_running_loop().time() - began, by_first=opened is attempts[0])
            return (opened or attempts[0]).result()
        finally:
            self._opened_again.note(attempts, opened)
            unused = [one for one in attempts if one is not opened]
            for one in unused:
                one.cancel()
            for connection in await asyncio.gather(*unused, return_exceptions=True):
                if isinstance(connection, aiohttp.connector.Connection):
                    connection.close()

    async def _connect_again(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        await self._room.acquire()
        # Not when it is open: those that lead to a server that hangs would leave no room for others.
        asyncio.get_running_loop().call_later(SLOW, self._room.release)
        return await super().connect(req, traces, timeout)


def _keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket that detects within about ten seconds that the other side is gone, even if nothing is sent."""
    made = socket.socket(*address[:3])
    made.setblocking(False)
    for option in socket_options():
        made.setsockopt(*option)
    return made


class EventSink(Protocol):
    """Stores the objects of events; ``gone``: the object was deleted."""

    def note_cluster(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a WhatsAppCluster."""
        ...

    def note_pod(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a pod."""
        ...

    def note_service(self, obj: Obj, *, gone: bool) -> None:
        """Handle an event of a Service."""
        ...


class Wake(Protocol):
    """Wakes the loop of a cluster."""

    def __call__(self, key: Key, *, is_urgent: bool = True) -> None:
        """Wake it; ``is_urgent``: a failover may depend on it."""
        ...


def registry(
    wake: Wake,
    login: Callable[[], Coroutine[None, None, kopf.AiohttpSession]],
    sink: EventSink,
    *,
    deliver: Callable[[Callable[[], None]], None],
) -> kopf.OperatorRegistry:
    """Return handlers that pass an event's object to ``sink`` and then call ``wake`` with its cluster.

    Both are called by ``deliver``, in the event loop to which they belong.
    """
    found = kopf.OperatorRegistry()

    def notify(note: Callable[..., None] | None, key: Key, event: kopf.RawEvent) -> None:
        if note is not None:
            _note(note, event)
        # An event without a type comes from the list at the start of a watch.
        wake(key, is_urgent=event["type"] is not None)

    async def on_cluster(namespace: str | None, name: str | None, event: kopf.RawEvent, **_: Any) -> None:
        if namespace and name:
            deliver(partial(notify, sink.note_cluster, Key(namespace, name), _taken(event)))

    def on_part(note: Callable[..., None] | None) -> Callable[..., Coroutine[None, None, None]]:
        async def on_event(namespace: str | None, event: kopf.RawEvent, **_: Any) -> None:
            # A foreign object may carry this label, with any cluster name.
            cluster = cluster_of(event["object"])
            if namespace and cluster:
                deliver(partial(notify, note, Key(namespace, cluster), _taken(event)))

        return on_event

    async def on_login(**_: Any) -> kopf.AiohttpSession:
        return await login()

    kopf.on.login(registry=found)(on_login)
    group, _, version = API_VERSION.partition("/")
    kopf.on.event(group, version, WAC.plural, registry=found)(on_cluster)
    parts = ((("", "v1", "pods"), sink.note_pod), (("", "v1", "services"), sink.note_service), (("apps", "v1", "statefulsets"), None))
    for part, note in parts:
        kopf.on.event(*part, labels={CLUSTER_LABEL: kopf.PRESENT}, registry=found)(on_part(note))
    return found


def _taken(event: kopf.RawEvent) -> kopf.RawEvent:
    """Return an event with its object, and leave Kopf only the part that it still needs: the metadata.

    Kopf's views of an object hold each other, so only a garbage collection frees them. A list of very many objects would stay in memory for
    long.
    """
    obj: dict[str, Any] = cast(Any, event["object"])
    whole = {**obj}
    for part in obj.keys() - {"apiVersion", "kind", "metadata"}:
        del obj[part]
    obj["metadata"].pop("managedFields", None)
    return {"type": event["type"], "object": cast(Any, whole)}


def _note(note: Callable[..., None], event: kopf.RawEvent) -> None:
    """Pass an object to the sink. If that fails, the loop is woken nevertheless: the observation reports what is wrong."""
    try:
        note(event["object"], gone=event["type"] == "DELETED")
    except Exception:
        log.exception("An event could not be noted")


async def watch(
    deliver: Callable[[Callable[[], None]], None],
    *,
    wake: Wake,
    sink: EventSink,
    login: Login,
    namespaces: Iterable[str],
    identity: str,
) -> None:
    """Run Kopf until it is cancelled or one of its tasks ends; then raise the error of that task. Needs its own event loop.

    ``deliver``: see ``registry``; ``namespaces``: see ``settings``. At the end every task of the event loop is cancelled.
    """
    chosen = tuple(namespaces)
    try:
        tasks = await kopf.spawn_tasks(
            registry=registry(wake, login.session, sink, deliver=deliver),
            settings=settings(chosen),
            memories=Forgetful(),
            clusterwide=not chosen,
            namespaces=chosen,
            standalone=True,
            # By default Kopf looks up the user's name, and a container's user id has none.
            identity=cast(Any, identity),
        )
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        await _end_all()
        await login.close()


async def _end_all() -> None:
    """End all tasks of the event loop but this one.

    Kopf's own shutdown is not used: it gives tasks 5 s, and then may hang, because its schedulers end their tasks by helper tasks, and it
    cancels the helpers too. Here the helpers are left to the schedulers. Some tasks ignore the first cancellation.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(END_WITHIN):
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                for one in others:
                    if not one.get_name().startswith(HELPERS):
                        one.cancel()
                await asyncio.wait(others, timeout=END_WITHIN / 10)


def quieten() -> None:
    """Raise the level of loggers that write a line for each event or request."""
    for name in ("kopf.objects", "kopf._core", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # When a watch ends, both print a traceback, and the supervisor says why in a sentence.
    for name in ("kopf._core.reactor.orchestration", "kopf._core.reactor.running"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
