"""The one user of the API, its password and its tokens."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from .envelope import ACCESS_DENIED, PARAMETER_INVALID, PASSWORD_CHANGE_REQUIRED, Answer, failure, success
from .store import Store, storable

USERNAME = "admin"
INITIAL_PASSWORD = "secret"  # noqa: S105 - the vendor's documented one; the first login must change it
TOKEN_SECONDS = 7 * 86400.0
"""Lifetime of a token, which ``expires_after`` states (documented: 7 days)."""


class Users:
    """Login, logout and validation of tokens."""

    def __init__(self, store: Store, revoked: Callable[[], Awaitable[None]]) -> None:
        """``revoked`` is awaited when tokens become void before their expiry."""
        self._store = store
        self._revoked = revoked
        self._password: dict[str, str] | None = None
        self.token_seconds = TOKEN_SECONDS

    async def load(self) -> None:
        """Read the password's digest."""
        self._password = (await self._store.facts()).get("password")

    @property
    def change_required(self) -> bool:
        """True until the initial password was changed."""
        return self._password is None

    async def login(self, username: str, password: str, new_password: Any) -> Answer:
        """Answer ``POST /v1/users/login``."""
        if not (hmac.compare_digest(username.encode(), USERNAME.encode()) and self._matches(password)):
            return failure(401, ACCESS_DENIED, "wrong username or password")
        if new_password is None and self.change_required:
            return failure(401, PASSWORD_CHANGE_REQUIRED, "the first login must send new_password")
        if new_password is not None:
            if not isinstance(new_password, str) or not (storable(new_password) and _strong(new_password)):
                return failure(
                    400, PARAMETER_INVALID, "new_password must have 8 to 64 characters with a digit, an upper, a lower and a special one"
                )
            await self._set_password(new_password)
        token = secrets.token_urlsafe(32)
        expires_at = time.time() + self.token_seconds
        await self._store.put_token(_digest(token), expires_at)
        expires_after = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S+00:00")
        return success({"users": [{"token": token, "expires_after": expires_after}]})

    async def logout(self, token: str) -> Answer:
        """Answer ``POST /v1/users/logout``."""
        await self._store.drop_tokens(_digest(token))
        await self._revoked()
        return success()

    async def seconds_left(self, token: str) -> float:
        """Return for how many seconds the token is still valid; 0: it is not."""
        expires_at = await self._store.token_expiry(_digest(token))
        return 0.0 if expires_at is None else max(0.0, expires_at - time.time())

    async def expire_tokens(self) -> None:
        """Make all tokens void."""
        await self._store.drop_tokens(None)
        await self._revoked()

    async def reset_password(self) -> None:
        """Go back to the initial password, all tokens void."""
        self._password = None
        await self._store.put_facts({"password": None})
        await self.expire_tokens()

    def _matches(self, password: str) -> bool:
        if self._password is None:
            return hmac.compare_digest(password.encode(), INITIAL_PASSWORD.encode())
        return hmac.compare_digest(_hash(password, self._password["salt"]), self._password["hash"])

    async def _set_password(self, password: str) -> None:
        salt = secrets.token_hex(8)
        self._password = {"salt": salt, "hash": _hash(password, salt)}
        await self._store.put_facts({"password": self._password})


def _strong(password: str) -> bool:
    special = any(not character.isalnum() and not character.isspace() for character in password)
    return (
        8 <= len(password) <= 64
        and special
        and any(character.isdigit() for character in password)
        and any(character.isupper() for character in password)
        and any(character.islower() for character in password)
    )


def _hash(password: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), bytes.fromhex(salt), 2000).hex()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
