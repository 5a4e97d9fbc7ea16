"""Delivery of inbound messages to the user's webhook."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from .link import UNREACHABLE, Frame
from .notifier import Notifier
from .process import Process

_POST_SECONDS = 10.0


class Webhook:
    """The webhook from the application settings; calls are retried with their linear backoff until it answers 200, as documented."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._changed = Notifier()
        self._places = asyncio.Semaphore(6)  # webhooks.max_concurrent_requests, its default
        self.url = ""
        self.backoff_seconds = 3.0
        self.most_backoff_seconds = 900.0

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply new application settings; pending retries are tried at once."""
        self.url = settings.get("webhooks", {}).get("url", "")
        self.backoff_seconds = settings.get("callback_backoff_delay_ms", 3000) / 1000
        self.most_backoff_seconds = settings.get("max_callback_backoff_delay_ms", 900_000) / 1000
        self._changed.notify()

    async def deliver(self, inbound: Frame) -> None:
        """Return when the webhook accepted the message ``{"id", "from", "body"}``; retries until cancelled."""
        attempts = 0
        while True:
            async with self._places:
                await self._process.gate.wait()
                if self.url and await self._post(inbound):
                    return
            attempts += 1
            await self._changed.wait(max(0.01, min(attempts * self.backoff_seconds, self.most_backoff_seconds)))

    async def _post(self, inbound: Frame) -> bool:
        notice = {
            "contacts": [{"profile": {"name": inbound["from"]}, "wa_id": inbound["from"]}],
            "messages": [
                {
                    "from": inbound["from"],
                    "id": inbound["id"],
                    "timestamp": str(int(time.time())),
                    "type": "text",
                    "text": {"body": inbound["body"]},
                }
            ],
        }
        try:
            timeout = aiohttp.ClientTimeout(total=_POST_SECONDS)
            async with self._process.session.post(self.url, json=notice, timeout=timeout) as response:
                return response.status == 200
        except (*UNREACHABLE, ValueError):
            return False
