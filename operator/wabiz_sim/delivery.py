"""Delivery of one message from a Webapp to the Coreapp of its shard: routed by the shard's Service, following redirects."""

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from .envelope import INTERNAL_ERROR, NOT_READY, Answer, failure, success
from .link import UNREACHABLE
from .process import Process
from .resolve import join_host_port, split_host_port
from .settings import MESSAGING_PORT
from .sharding import shard_of

_RETRY_SECONDS = 2.0
"""Seconds after the first attempt within which another may begin; the id makes a repeated message the same message."""
_TRY_SECONDS = 2.5
"""Seconds. A Coreapp holds a message for 2 s; one that does not answer for longer hangs."""
_CHECK_SECONDS = 0.15
"""Seconds between two checks of whether the shard has moved to another address, while an attempt is pending."""
_AGAIN_SECONDS = 0.45
"""Seconds between two attempts over fresh connections, while one through a Service's own address is pending. The target of the Service is
not visible, and an open connection keeps its old target, which may be a hung Coreapp or on a lost node."""
_MOST_REDIRECTS = 2

_MOST_MOVES = 3

Address = tuple[str, int]


class _Moved(Exception):  # noqa: N818  says what happened
    """The target of the shard's Service changed during an attempt."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a sender; ``id`` is the same in every retry."""

    id: str
    to: str
    body: str


class Delivery:
    """Sends messages; knows the last number of shards from the upstream."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.shards: int | None = None
        """None until the upstream has sent it."""

    async def deliver(self, message: Message) -> Answer:
        """Return 201 once the WhatsApp servers accepted the message, else 503 after about 2 s, or 5 s if a Coreapp hangs."""
        clock = asyncio.get_running_loop().time
        last_start = clock() + _RETRY_SECONDS
        pause = 0.02
        moves = 0
        while True:
            try:
                answer = await self._once(message)
            except _Moved as moved:
                # Another Coreapp serves the shard now: the message has not failed, and there is no reason to wait.
                moves += 1
                if moves <= _MOST_MOVES:
                    continue
                answer = failure(503, NOT_READY, f"{moved}, retry")
            if answer.status != 503 or clock() + pause > last_start:
                return answer
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.2)

    async def _once(self, message: Message) -> Answer:
        """Resolve the shard's Service and try there."""
        if self.shards is None:
            return failure(503, NOT_READY, "the number of shards is not known yet: the database does not answer")
        shard = shard_of(message.to, self.shards)
        service = self._process.settings.shard_service.format(shard=shard)
        try:
            address = await self._process.resolve(service, MESSAGING_PORT)
            return await self._walk(address, service, shard, message)
        except _Moved:
            raise
        except (*UNREACHABLE, ValueError):
            return failure(503, NOT_READY, f"no Coreapp answers for shard {shard} now, retry")

    async def _walk(self, address: Address, service: str | None, shard: int, message: Message) -> Answer:
        """Try one address, and follow redirects."""
        for _ in range(_MOST_REDIRECTS + 1):
            status, body = await self._try(address, service, shard, message)
            if status == 200:
                return success({"messages": [{"id": message.id}]}, status=201)
            if status == 400:
                return failure(500, INTERNAL_ERROR, "the Coreapp did not understand the message")
            holder = body.get("holder") if status == 421 else None
            if not isinstance(holder, str):
                break
            address, service = split_host_port(holder), None
        return failure(503, NOT_READY, f"shard {shard} is between Coreapps or not connected now, retry")

    async def _try(self, address: Address, service: str | None, shard: int, message: Message) -> tuple[int, dict[str, Any]]:
        """Post to one address; abort when ``service`` resolves to another address, because the old one may hang.

        If the address is that of the Service itself, more attempts over fresh connections follow; the id makes them one message.
        """
        clock = asyncio.get_running_loop().time
        is_hidden = service is not None and address[0] == service
        attempts = {self._begin(address, shard, message)}
        again_at = clock() + _AGAIN_SECONDS
        try:
            while True:
                done, attempts = await asyncio.wait(
                    attempts, timeout=_CHECK_SECONDS if service else None, return_when=asyncio.FIRST_COMPLETED
                )
                if (answer := _best(done, last=not attempts)) is not None:
                    return answer
                if service is not None and await self._moved(service, address):
                    msg = f"{service} moved away from {address[0]}"
                    raise _Moved(msg)
                if is_hidden and clock() >= again_at:
                    again_at = clock() + _AGAIN_SECONDS
                    attempts.add(self._begin(address, shard, message, fresh=True))
        finally:
            for attempt in attempts:
                attempt.cancel()

    def _begin(self, address: Address, shard: int, message: Message, *, fresh: bool = False) -> asyncio.Task[tuple[int, dict[str, Any]]]:
        attempt = asyncio.create_task(self._post(address, shard, message, fresh=fresh))
        # Others may fail while one succeeds. asyncio would log an error that is never retrieved as one of this program.
        attempt.add_done_callback(lambda done: done.cancelled() or done.exception())
        return attempt

    async def _moved(self, service: str, address: Address) -> bool:
        try:
            return await self._process.resolve(service, MESSAGING_PORT) != address
        except LookupError:
            return False  # no other address yet

    async def _post(self, address: Address, shard: int, message: Message, *, fresh: bool = False) -> tuple[int, dict[str, Any]]:
        url = f"http://{join_host_port(*address)}/messages"
        body = {"id": message.id, "shard": shard, "to": message.to, "body": message.body}
        timeout = aiohttp.ClientTimeout(total=_TRY_SECONDS, connect=1.0)
        session = self._process.fresh_session if fresh else self._process.session
        async with session.post(url, json=body, timeout=timeout) as response:
            answer = await response.json(content_type=None)
            return response.status, answer if isinstance(answer, dict) else {}


def _best(done: set[asyncio.Task[tuple[int, dict[str, Any]]]], *, last: bool) -> tuple[int, dict[str, Any]] | None:
    """Return the answer of the first attempt that succeeds. If all fail, return the last answer, or raise its error if it had none."""
    for attempt in done:
        if attempt.exception() is None and (last or attempt.result()[0] != 503):
            return attempt.result()
    if done and last:
        return next(iter(done)).result()
    for attempt in done:
        if (error := attempt.exception()) is not None and not isinstance(error, (*UNREACHABLE, ValueError)):
            raise error
    return None
