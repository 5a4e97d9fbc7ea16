"""A sender on the wrong side of a network partition: it reaches the old holder, which does not know of its successor.

If the old holder does not accept a message, it is sent again under the same id through a Webapp on the other side, as an application would.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp

from localkube.scenarios.traffic import Stream
from outside.traffic import Message
from wabiz_sim.disturbance import NEAR
from wabiz_sim.settings import MESSAGING_PORT

PERIOD_S = 0.1
TRY_S = 3.0  # the holder holds a message for up to 2 s
TAKEN, REJECTED = "messages taken by the parted holder", "messages rejected by the parted holder"


@contextlib.asynccontextmanager
async def near_sender(stream: Stream, shard: int, ip: str, effects: Counter[str]) -> AsyncIterator[None]:
    """Send to the Coreapp at an address for as long as the block lasts; at its end every message is delivered, or given up.

    Counted in ``effects``: TAKEN and REJECTED.
    """
    connector, timeout = aiohttp.TCPConnector(local_addr=(NEAR, 0)), aiohttp.ClientTimeout(total=TRY_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        sending: set[asyncio.Task[None]] = set()

        async def send_one() -> None:
            message = Message(id=f"n-{secrets.token_hex(8)}", to=stream.recipient_in(shard), sent_at=time.monotonic())
            body = {"id": message.id, "shard": shard, "to": message.to, "body": "hello"}
            status = 0
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(f"http://{ip}:{MESSAGING_PORT}/messages", json=body) as answer:
                    status = answer.status
            if status == 200:
                effects[TAKEN] += 1
                stream.senders.begin(message.id)
                stream.senders.confirmed(message.id)
            else:
                effects[REJECTED] += 1
                await stream.deliver(message)

        async def send_all() -> None:
            while True:
                sending.add(asyncio.create_task(send_one()))
                await asyncio.sleep(PERIOD_S)

        all_ = asyncio.create_task(send_all())
        try:
            yield
        finally:
            all_.cancel()
            await asyncio.gather(all_, *sending, return_exceptions=True)
