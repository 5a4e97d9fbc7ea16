"""The application settings of the API, ``/v1/settings/application``."""

from typing import Any

from .envelope import PARAMETER_INVALID, Answer, failure, success
from .store import Store

_DEFAULTS: dict[str, Any] = {
    "callback_backoff_delay_ms": 3000,
    "callback_persist": True,
    "garbagecollector_enable": {"media": False, "messages": True},
    "heartbeat_interval": 5,
    "max_callback_backoff_delay_ms": 900_000,
    "media": {"auto_download": []},
    "notify_user_change_number": True,
    "show_security_notifications": True,
    "unhealthy_interval": 30,
    "webhooks": {"url": "", "max_concurrent_requests": 6, "message": {"sent": False, "delivered": True, "read": True}},
    "verbose_logging": False,
    "log_level": "info",
}
"""Meta's sample (reference/settings/app). The simulator uses ``webhooks.url`` and the two backoff values; it only stores the rest."""


_MOST = 2**31 - 1
_LONGEST = 64
"""Of a list, and of each text in it."""


class Preferences:
    """The settings and their merge."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.application: dict[str, Any] = _DEFAULTS

    async def load(self) -> None:
        """Read the stored settings."""
        self.application = _merged(_DEFAULTS, (await self._store.facts()).get("application", {}))

    def shown(self) -> Answer:
        """Answer GET."""
        return success({"settings": {"application": self.application}})

    async def change(self, body: Any) -> Answer:
        """Answer PATCH: absent fields stay as they are."""
        if not isinstance(body, dict):
            return failure(400, PARAMETER_INVALID, "the body must be a JSON object")
        if (problem := _problem(_DEFAULTS, body)) is not None:
            return failure(400, PARAMETER_INVALID, problem)
        url = body.get("webhooks", {}).get("url", "")
        if url and not url.startswith(("http://", "https://")):
            return failure(400, PARAMETER_INVALID, "webhooks.url must be a URL")
        self.application = _merged(self.application, body)
        await self._store.put_facts({"application": self.application})
        return success()


def _problem(known: dict[str, Any], given: dict[str, Any]) -> str | None:
    """Return what is wrong with settings, compared with those that are known; None if nothing is.

    Every level is checked: what is stored is sent to all Coreapps, so one of them must be able to read it.
    """
    for name, value in given.items():
        if name not in known or type(value) is not type(known[name]):
            return f"{name[:_LONGEST]} is unknown or of another type"
        if isinstance(value, dict) and (problem := _problem(known[name], value)) is not None:
            return problem
        if type(value) is int and not 0 <= value <= _MOST:
            return f"{name} must be from 0 to {_MOST}"
        if isinstance(value, list) and not (len(value) <= _LONGEST and all(isinstance(one, str) and len(one) <= _LONGEST for one in value)):
            return f"{name} must be a list of short texts"
    return None


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
