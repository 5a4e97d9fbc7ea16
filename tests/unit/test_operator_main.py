"""The operator's own start, as far as it needs no cluster."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from whatsapp_operator.__main__ import Operator
from whatsapp_operator.settings import Settings


class ReachedError(Exception):
    """Kopf would start here."""


async def test_it_starts_under_a_user_number_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where Kopf's own search for the user's name raised KeyError."""

    def nameless() -> str:
        msg = "getpwuid(): uid not found: 65532"
        raise KeyError(msg)

    async def spawned(**options: Any) -> None:
        options["identity"] = options.get("identity") or getpass.getuser()
        raise ReachedError(options["identity"])

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setattr(kopf, "spawn_tasks", spawned)
    kubeconfig = tmp_path / "kubeconfig"
    named = [{"name": "a", "cluster": {"server": "http://127.0.0.1:9"}, "user": {}, "context": {"cluster": "a", "user": "a"}}]
    config = {"clusters": named, "users": named, "contexts": named, "current-context": "a"}
    kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
    settings = Settings.from_env({"KUBECONFIG": str(kubeconfig), "POD_NAME": "operator-0", "POD_NAMESPACE": "default"})
    before = asyncio.all_tasks()
    try:
        with pytest.raises(ReachedError, match=settings.identity):
            await Operator(settings)._run()
    finally:
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
