"""How access to the API server, or a request, can fail: errors with sentences for the user."""

from __future__ import annotations

from kubectl_whatsapp import Obj


class AccessError(Exception):
    """There is no access to the API server; the message says why, and what to do."""


class RequestError(Exception):
    """A request failed; the message says why in a few words."""

    def __init__(self, message: str, *, status: int | None = None, details: Obj | None = None) -> None:
        """``status``: the HTTP status, None without an answer; ``details``: the API server's Status object, if it sent one."""
        super().__init__(message)
        self.status = status
        self.details = details or {}

    @property
    def is_absent(self) -> bool:
        """Whether the API server says that the object does not exist. For a kind that it does not know, it answers 404 without a Status."""
        return self.status == 404 and self.details.get("kind") == "Status"

    @property
    def is_lasting(self) -> bool:
        """Whether a retry would get the same answer until a person acts: the object may not be read, or does not exist."""
        return self.status in {401, 403, 404}
