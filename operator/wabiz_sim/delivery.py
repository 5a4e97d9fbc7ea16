"""One message on its way from a Webapp to the Coreapp of its shard: routed by the shard's Service, following redirects."""

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from .envelope import INTERNAL_ERROR, NOT_READY, Answer, failure, success
from .link import UNREACHABLE
from .process import Process
from .resolve import split_host_port
from .settings import MESSAGING_PORT
from .sharding import shard_of

_RETRY_SECONDS = 2.0
"""So long after the first try another one may begin; the id makes a repeated message the same message."""
_TRY_SECONDS = 2.5
"""A Coreapp holds a message for 2 s; one that is silent for longer hangs."""
_LOOK_SECONDS = 0.15
"""While a try is pending, so often it is looked whether the shard has moved to another address."""
_MOST_REDIRECTS = 2

_MOST_MOVES = 3

Address = tuple[str, int]


class _Moved(Exception):  # noqa: N818  says what happened
    """The shard's Service came to lead elsewhere while a try was under way."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the customer; ``id`` is the same in every retry."""

    id: str
    to: str
    body: str


class Delivery:
    """Sends messages; knows the number of shards as the upstream last said it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.shards: int | None = None
        """None until the upstream said it."""

    async def deliver(self, message: Message) -> Answer:
        """Return 201 once the WhatsApp servers took the message, else 503 after about 2 s, 5 s when a Coreapp hangs."""
        clock = asyncio.get_running_loop().time
        last_start = clock() + _RETRY_SECONDS
        pause = 0.02
        moves = 0
        while True:
            try:
                answer = await self._once(message)
            except _Moved as moved:
                # Somebody else serves the shard by now: no failure of the message, and nothing to wait for.
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
        """Try, and follow the redirects."""
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
        """Post to one address; given up early when ``service`` has come to mean another address, because the old one may hang."""
        attempt = asyncio.create_task(self._post(address, shard, message))
        try:
            while True:
                done, _ = await asyncio.wait({attempt}, timeout=_LOOK_SECONDS if service else None)
                if done:
                    return attempt.result()
                if service is not None and await self._moved(service, address):
                    msg = f"{service} moved away from {address[0]}"
                    raise _Moved(msg)
        finally:
            attempt.cancel()

    async def _moved(self, service: str, address: Address) -> bool:
        try:
            return await self._process.resolve(service, MESSAGING_PORT) != address
        except LookupError:
            return False  # nobody else to turn to yet

    async def _post(self, address: Address, shard: int, message: Message) -> tuple[int, dict[str, Any]]:
        url = f"http://{address[0]}:{address[1]}/messages"
        body = {"id": message.id, "shard": shard, "to": message.to, "body": message.body}
        timeout = aiohttp.ClientTimeout(total=_TRY_SECONDS, connect=1.0)
        async with self._process.session.post(url, json=body, timeout=timeout) as response:
            answer = await response.json(content_type=None)
            return response.status, answer if isinstance(answer, dict) else {}
