"""The documented answer envelope of the REST API, and its error codes. Pure."""

from dataclasses import dataclass
from typing import Any

from .version import CLIENT_VERSION

ACCESS_DENIED = 1005
PARAMETER_MISSING = 1008
PARAMETER_INVALID = 1009
NOT_READY = 1011
CERTIFICATE_UNSIGNED = 430
CERTIFICATE_OF_ANOTHER = 432
CERTIFICATE_SIGNATURE = 433
INTERNAL_ERROR = 1014
"""Also for an unknown endpoint (client#answers)."""
TOO_MANY_REQUESTS = 1015
OVERLOADED = 1016
NOT_PRIMARY_MASTER = 1017
NOT_PRIMARY_COREAPP = 1018
WEBHOOK_NOT_SET = 1022
DATABASE_ERROR = 1023
PASSWORD_CHANGE_REQUIRED = 1024
ACCOUNT_LOCKED = 1031

TITLES = {
    CERTIFICATE_UNSIGNED: "Unsigned certificate",
    CERTIFICATE_OF_ANOTHER: "Certificate ID mismatch",
    CERTIFICATE_SIGNATURE: "Certificate signature invalid",
    ACCESS_DENIED: "Access denied",
    PARAMETER_MISSING: "Required parameter is missing",
    PARAMETER_INVALID: "Parameter value is not valid",
    NOT_READY: "Service not ready",
    INTERNAL_ERROR: "Internal error",
    TOO_MANY_REQUESTS: "Too many requests",
    OVERLOADED: "System overloaded",
    NOT_PRIMARY_MASTER: "Not Primary Master",
    NOT_PRIMARY_COREAPP: "Not Primary Coreapp",
    WEBHOOK_NOT_SET: "Webhook URL is not configured",
    DATABASE_ERROR: "Database error",
    PASSWORD_CHANGE_REQUIRED: "Password Change Required",
    ACCOUNT_LOCKED: "Account locked",
}

META = {"api_status": "stable", "version": CLIENT_VERSION}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the REST API, before it is sent."""

    status: int
    body: dict[str, Any]

    @property
    def good(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300


def success(body: dict[str, Any] | None = None, status: int = 200) -> Answer:
    """Return a success with ``body`` next to the meta object."""
    return Answer(status, {**(body or {}), "meta": META})


def failure(status: int, code: int, details: str) -> Answer:
    """Return an error with one of the documented codes; ``details`` never holds a secret."""
    return Answer(status, {"errors": [{"code": code, "title": TITLES.get(code, "Error"), "details": details}], "meta": META})
