"""The operator's own start and end, as far as they need no cluster."""

from __future__ import annotations

import getpass
from typing import Any

import kopf
import pytest

from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.watch import handlers
from whatsapp_operator.shell.watch.health import WatchHealth

from .test_handlers import Listener


class ReachedError(Exception):
    """Kopf would start here."""


async def test_it_starts_under_a_user_number_that_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where Kopf's own search for the user's name raised KeyError."""

    def nameless() -> str:
        msg = "getpwuid(): uid not found: 65532"
        raise KeyError(msg)

    async def spawned(**options: Any) -> None:
        options["identity"] = options.get("identity") or getpass.getuser()
        raise ReachedError(options["identity"])

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(kopf, "spawn_tasks", spawned)
    listener = Listener()
    login = handlers.Login(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:9"), health=WatchHealth(SystemClock()), names={})
    with pytest.raises(ReachedError, match="operator-0"):
        await handlers.watch(lambda call: call(), wake=listener.wake, sink=listener, login=login, namespaces=(), identity="operator-0")
