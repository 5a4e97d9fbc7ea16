"""How a way to the API server, or a request, can fail: as sentences for a person."""

from __future__ import annotations

from kubectl_whatsapp import Obj


class AccessError(Exception):
    """There is no way to the API server; the message says why, and what to do."""


class RequestError(Exception):
    """A request did not lead to what was asked for; the message says why in a few words."""

    def __init__(self, message: str, *, status: int | None = None, details: Obj | None = None) -> None:
        """``status``: of HTTP, None without an answer; ``details``: the API server's own Status object, if it sent one."""
        super().__init__(message)
        self.status = status
        self.details = details or {}

    @property
    def is_absent(self) -> bool:
        """Whether the API server says that the object is not there. Of a kind that it does not know it says nothing: 404 without Status."""
        return self.status == 404 and self.details.get("kind") == "Status"

    @property
    def is_lasting(self) -> bool:
        """Whether to ask again would lead to the same answer: without a person nobody may read it, or it is not there."""
        return self.status in {401, 403, 404}
