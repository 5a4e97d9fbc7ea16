"""Why the client lets nobody in is said in its own words, and nothing in these is a value of a Secret."""

from __future__ import annotations

import base64
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from whatsapp_operator.core.snapshot import Login

from .core.situations import situation
from .wabiz_server import INITIAL, PASSWORD, SECRETS, Client, SessionHarness, pair, rejection, served

__all__ = ["pair"]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULES = "new_password must have 8 to 64 characters with a digit, an upper, a lower and a special one"


class Picky(Client):
    """Takes ``initial`` with a new password, if it likes that, and nothing else; says why not, and more than it should."""

    def __init__(self, *, initial: str = INITIAL, likes: bool = False, adds: str = "") -> None:
        super().__init__()
        self.initial, self.likes, self.adds = initial, likes, adds
        self.offered: list[str] = []

    async def _login(self, request: web.Request) -> web.StreamResponse:
        password = base64.b64decode(request.headers["Authorization"].split()[1]).decode().partition(":")[2]
        offered = (await request.json()).get("new_password")
        self.logins.append(password)
        if password != self.initial:
            return rejection(401, f"wrong username or password{self.adds}", title="Access denied")
        if offered is None:
            return rejection(401, "the first login must send new_password", code=1024)
        self.offered.append(offered)
        if not self.likes:
            return rejection(400, f"{RULES}{self.adds}", title="Parameter not valid", code=1009)
        self.tokens.add("the-token")
        return web.json_response({"users": [{"token": "the-token"}]})


@asynccontextmanager
async def talking(client: Picky, pair: Path) -> AsyncIterator[SessionHarness]:
    async with served(client, pair):
        harness = SessionHarness(client)
        try:
            yield harness
        finally:
            await harness.session.close()


def advice(harness: SessionHarness) -> str:
    """What Stalled says of a cluster that was never reached."""
    seen = harness.session.client
    one = situation().settled().seeing(settled_shards=None).client(**{name: getattr(seen, name) for name in ("login", "login_message")})
    one = one.client(shards=None, asked_at=None, is_new_password_rejected=seen.is_new_password_rejected)
    said = one.condition("Stalled")
    assert (said["status"], said["reason"]) == ("True", "LoginRejected")
    return str(said["message"])


async def test_a_password_that_the_client_does_not_take_as_a_new_one_is_reported_in_its_words(pair: Path) -> None:
    async with talking(Picky(), pair) as harness:
        await harness.ask()
        assert harness.login() is Login.REJECTED
        assert advice(harness) == (
            "The Webapp accepts key password of Secret acme-admin neither as it is nor as the new password that the first login must set "
            f"(POST /v1/users/login: HTTP 400, error 1009: Parameter not valid: {RULES}). "
            "A new one has 8 to 64 characters, with a digit, an upper-case and a lower-case letter and a special character. "
            "Put the right password there."
        )


async def test_a_wrong_password_is_reported_in_the_clients_words(pair: Path) -> None:
    async with talking(Picky(initial="another"), pair) as harness:
        await harness.ask()
        assert advice(harness) == (
            "The Webapp accepts neither key password nor key initialPassword of Secret acme-admin "
            "(POST /v1/users/login: HTTP 401, error 1005: Access denied: wrong username or password). Put the right password there."
        )


async def test_a_password_that_breaks_the_documented_rules_is_not_sent_as_a_new_one(pair: Path) -> None:
    client = Picky(likes=True)
    async with talking(client, pair) as harness:
        await harness.ask(password="weak")
        assert client.offered == []
        assert "neither as it is nor as the new password" in advice(harness)
        assert "weak" not in advice(harness)
        await harness.ask(password="weak")
        assert client.logins == ["weak"], "nor is the client asked again at once"
        await harness.ask(password=PASSWORD)
        assert client.offered == [PASSWORD]
        assert harness.login() is Login.DONE
        assert (harness.session.client.login_message, harness.session.client.is_new_password_rejected) == ("", False)


async def test_a_weak_password_that_the_client_has_is_used(pair: Path) -> None:
    """It may be older than the rules; every holder of it gets in."""
    client = Client()
    client.passwords = {"weak"}
    async with served(client, pair):
        harness = SessionHarness(client)
        await harness.ask(password="weak")
        await harness.session.close()
        assert harness.session.client.shards == 1


HIDDEN = ("db.acme.example", "owner of the database", "acme-owner", "54329")


@pytest.mark.parametrize("client", [Picky, lambda **more: Picky(initial="another", **more)], ids=["new", "wrong"])
async def test_no_value_of_a_secret_is_in_the_words(client: Any, pair: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The client repeats what it was sent, and tells of its database."""
    caplog.set_level(logging.DEBUG)
    values = (*SECRETS, *HIDDEN)
    async with talking(client(adds=f": {PASSWORD} {INITIAL} {' '.join(HIDDEN)}"), pair) as harness:
        await harness.ask(hidden=HIDDEN)
        shown = advice(harness) + harness.session.client.problem + repr(harness.session.client)
        shown += "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(("aiohttp", "asyncio")))
        assert "***" in shown
        assert not [value for value in values if value in shown]


@pytest.mark.parametrize("authority", ["für alle", "-----BEGIN CERTIFICATE-----\nfür", "no PEM"])
async def test_an_authority_that_is_none_is_said_with_secret_and_key(authority: str, pair: Path) -> None:
    async with talking(Picky(), pair) as harness:
        await harness.ask(authority=authority, tls_secret="acme-webapp-tls", verifies=True)
        assert harness.session.client.problem == "key ca.crt of Secret acme-webapp-tls is no PEM certificate"
        await harness.ask(problem="Key ca.crt of Secret acme-webapp-tls is no PEM certificate. Put it there.")
        assert harness.session.client.problem.startswith("Key ca.crt of Secret acme-webapp-tls")
        assert harness.client.logins == []


async def test_a_certificate_that_is_not_trusted_is_said_with_the_secret(pair: Path) -> None:
    async with talking(Picky(), pair) as harness:
        await harness.ask(verifies=True, tls_secret="acme-webapp-tls")
        assert "its TLS certificate is not trusted: self" in harness.session.client.problem
        assert harness.session.client.problem.endswith("see keys tls.crt and ca.crt of Secret acme-webapp-tls, and spec.webapp.tls")
