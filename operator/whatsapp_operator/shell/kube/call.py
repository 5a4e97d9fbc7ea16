"""One call to the API server: what it asks for, how long it may take, and which error its failure means."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
from lightkube.core.exceptions import ConfigError

from .errors import AlreadyExists, Conflict, Expired, KubeError, NotFound, Rejected, TestFailed, Unavailable
from .kinds import SECRET, Kind, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

OBJECT_MISSING = "NotFound"
"""`reason` of a NotFound of the object itself; it is empty where the namespace or the whole kind is missing."""


NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Names of objects and namespaces of these kinds (an RFC 1123 subdomain)."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the API server. Rejected if no object can have such a name."""

    verb: str
    kind: Kind
    namespace: str | None
    name: str

    @classmethod
    def of(cls, verb: str, obj: Mapping[str, Any]) -> Call:
        """Return the call with this verb for an object."""
        return cls(verb, kind_of(obj), obj["metadata"].get("namespace"), obj["metadata"]["name"])

    def __post_init__(self) -> None:
        """Reject names that would change the path of the request: an empty one would delete a whole collection."""
        unnamed = self.verb in {"list", "watch"} and not self.name
        if not (unnamed or NAME.fullmatch(self.name)) or not (self.namespace is None or NAME.fullmatch(self.namespace)):
            msg = f"{self}: not sent, no object can have such a name."
            raise Rejected(msg)

    def __str__(self) -> str:
        """Verb, kind and place, as errors name it."""
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.kind.kind} {where}".rstrip()


@asynccontextmanager
async def explained(call: Call, seconds: float, *, json_patch: bool = False) -> AsyncIterator[None]:
    """Bound the block by `seconds`, and turn every failure into one KubeError without secrets."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        msg = f"{call}: the API server did not answer within {seconds:g} s."
        raise Unavailable(msg) from None
    except httpx2.HTTPStatusError as e:  # lightkube's ApiError too
        raise error_of(call, e.response.status_code, _status(e.response), json_patch=json_patch) from None
    except (httpx2.HTTPError, OSError) as e:  # the library passes on the error of TLS that breaks while an answer is read
        text = f"{type(e).__name__}: {str(e)[:100]}".removesuffix(": ")
        msg = f"{call}: the API server cannot be reached ({text})."
        raise Unavailable(msg) from None
    except ConfigError:
        msg = f"{call}: the credentials of the kubeconfig or service account could not be read."
        raise Unavailable(msg) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as e:  # msgspec's too; the library parses answers without checking their type
        msg = f"{call}: the API server answered something that is not Kubernetes' JSON ({type(e).__name__})."
        raise Unavailable(msg) from None


def _status(response: httpx2.Response) -> Mapping[str, Any]:
    """Return the Status in an error answer, or a replacement if there is none."""
    with suppress(ValueError):
        status = msgspec.json.decode(response.content)
        if isinstance(status, dict):
            details = status.get("details")
            return {**status, "reason": str(status.get("reason") or ""), "details": details if isinstance(details, dict) else {}}
    return {"message": "an answer that is not Kubernetes'"}


def error_of(call: Call, code: int, status: Mapping[str, Any], *, json_patch: bool = False) -> KubeError:
    """Return the error that a Status of the server means."""
    reason = status.get("reason") or ""
    details = status.get("details") or {}
    text = " ".join(str(status.get("message") or "nothing").split())
    if call.kind is SECRET and call.verb not in {"get", "list", "watch"}:
        text = "(not repeated here, it could quote a secret)"
    error: type[KubeError]
    if code == 404:
        error = NotFound
        if not details.get("name"):  # "404 page not found"
            text += f"; are {call.kind.plural} of {call.kind.api_version} installed?"
        reason = OBJECT_MISSING if reason == "NotFound" and details.get("name") == call.name else ""
    elif code == 409:
        error = AlreadyExists if reason == "AlreadyExists" else Conflict
    elif code == 410:
        error = Expired
    elif code == 422 and json_patch and not details.get("causes"):
        error = TestFailed
        text = "a test or a path of the patch does not match the object as it is now"
    elif code == 429 or not 400 <= code < 500:
        error = Unavailable
    else:
        error = Rejected
    return error(f"{call}: {code} {reason}".rstrip() + f": {text[:300]}", code=code, reason=reason)
