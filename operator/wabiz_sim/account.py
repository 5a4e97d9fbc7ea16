"""The WhatsApp account: its number of shards, and all answers of Set Shards."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from .certificate import fingerprint, read
from .envelope import ACCESS_DENIED, ACCOUNT_LOCKED, PARAMETER_INVALID, PARAMETER_MISSING, Answer, failure, success
from .settings import Settings
from .sharding import ALLOWED_SHARDS
from .store import Store

WITHOUT_CERTIFICATE_SECONDS = 7 * 86400.0
"""Seconds after registration in which Set Shards needs no certificate (multiconnect page, "cert")."""


class Account:
    """State and checks. ``restart`` is awaited for each effective Set Shards, ``cut`` when the client loses its connection for good."""

    def __init__(
        self, store: Store, settings: Settings, *, restart: Callable[[], Awaitable[None]], cut: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._settings = settings
        self._restart = restart
        self._cut = cut
        self._restarting_until = 0.0
        self._resharding = asyncio.Lock()
        self.shards = 1
        self.restarts = 0
        self.banned = False
        self.logged_off = False
        self.registered_at = 0.0
        self.right_certificate: str | None = None
        """Fingerprint of the only valid certificate, or its beginning; None: any is valid."""
        self.pin: str | None = None

    async def load(self) -> None:
        """Read the account from the store; a new one has 1 shard, the vendor's default."""
        facts = await self._store.facts()
        self.shards = facts.get("shards", 1)
        self.restarts = facts.get("restarts", 0)
        self.banned = facts.get("banned", False)
        self.logged_off = facts.get("logged_off", False)
        self.right_certificate = facts.get("right_certificate")
        self.pin = facts.get("pin")
        registered_at = self._settings.registered_at
        self.registered_at = registered_at.timestamp() if registered_at else facts.get("registered_at", time.time())
        await self._store.put_facts({"shards": self.shards, "registered_at": self.registered_at})

    @property
    def barred(self) -> str | None:
        """Why no Coreapp may connect; None if they may."""
        if self.banned:
            return "banned"
        return "logged_off" if self.logged_off else None

    async def set_shards(self, body: Any) -> Answer:
        """Handle ``POST /v1/account/shards``."""
        if self.banned:
            return _locked()
        if not isinstance(body, dict):
            return failure(400, PARAMETER_INVALID, "the body must be a JSON object")
        if (problem := self._problem(body)) is not None:
            return problem
        if time.monotonic() < self._restarting_until:
            return failure(403, ACCESS_DENIED, "server temporarily unavailable: the Coreapps restart, retry")
        rejection = await self._judge_certificate(body.get("cert"))
        if rejection is not None:
            return rejection
        await self.reshard(body["shards"])
        return success(status=201)

    async def reshard(self, shards: int) -> None:
        """Set the number of shards and restart all Coreapps, even if the number stays the same: the documents name no exception."""
        self._restarting_until = time.monotonic() + self._settings.restart_seconds
        async with self._resharding:
            restarts = self.restarts + 1
            # Store it first: a number that could be lost must not be announced.
            await self._store.put_facts({"shards": shards, "restarts": restarts, "logged_off": False})
            self.shards, self.restarts, self.logged_off = shards, restarts, False
            await self._restart()

    async def require_certificate(self, beginning: str | None) -> None:
        """Accept only certificates with a fingerprint that begins like this; None: any."""
        self.right_certificate = beginning
        await self._store.put_facts({"right_certificate": beginning})

    async def require_pin(self, pin: str | None) -> None:
        """Switch two-step verification on with ``pin``, or off."""
        self.pin = pin
        await self._store.put_facts({"pin": pin})

    def _problem(self, body: dict[str, Any]) -> Answer | None:
        return self._number_problem(body) or self._pin_problem(body.get("pin"))

    def _number_problem(self, body: dict[str, Any]) -> Answer | None:
        for name in ("cc", "phone_number", "shards"):
            if body.get(name) is None:
                return failure(400, PARAMETER_MISSING, f"{name} is required")
        for name, ours in (("cc", self._settings.country_code), ("phone_number", self._settings.phone_number)):
            value = body[name]
            if not isinstance(value, str) or not (value.isascii() and value.isdigit()):
                return failure(400, PARAMETER_INVALID, f"{name} must be a string of digits")
            if ours and value != ours:
                return failure(400, PARAMETER_INVALID, f"{name} is not that of this client")
        shards = body["shards"]
        if not isinstance(shards, int) or isinstance(shards, bool) or shards not in ALLOWED_SHARDS:
            return failure(400, PARAMETER_INVALID, f"shards must be one of {', '.join(map(str, ALLOWED_SHARDS))}")
        return None

    def _pin_problem(self, pin: Any) -> Answer | None:
        if pin is not None and not is_pin(pin):
            return failure(400, PARAMETER_INVALID, "pin must be a string of six digits")
        if self.pin is not None and pin != self.pin:
            return failure(400, ACCESS_DENIED, f"two-step verification: pin is {'missing' if pin is None else 'wrong'}")
        return None

    async def _judge_certificate(self, certificate: Any) -> Answer | None:
        if certificate is None:
            if time.time() - self.registered_at <= WITHOUT_CERTIFICATE_SECONDS:
                return None
            await self.log_off()
            return failure(400, ACCESS_DENIED, "client disconnected: cert is required more than 7 days after registration")
        try:
            expires_at = read(certificate).expires_at
            ours = fingerprint(certificate)
        except (ValueError, AttributeError):
            return failure(400, PARAMETER_INVALID, "cert must be a string of base64")
        if expires_at is not None and expires_at <= datetime.now(UTC):
            await self.ban()
            return _locked()
        if self.right_certificate is not None and not ours.startswith(self.right_certificate.lower()):
            await self.log_off()
            return failure(400, ACCESS_DENIED, "client setup is logged off: wrong certificate, call again with the right one")
        return None

    async def ban(self) -> None:
        """End the account for good."""
        self.banned = True
        await self._store.put_facts({"banned": True})
        await self._cut()

    async def log_off(self) -> None:
        """Cut all connections until Set Shards is called with the right certificate."""
        self.logged_off = True
        await self._store.put_facts({"logged_off": True})
        await self._cut()


def is_pin(value: Any) -> bool:
    """Return whether a value can be a PIN of two-step verification."""
    return isinstance(value, str) and len(value) == 6 and value.isascii() and value.isdigit()


def _locked() -> Answer:
    return failure(400, ACCOUNT_LOCKED, "account is banned: an expired certificate was sent")
