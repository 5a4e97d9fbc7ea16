"""Injected faults: a bounded list, each for one kind of call and a number of times."""

from dataclasses import asdict, dataclass
from typing import Any

from .envelope import ACCESS_DENIED, ACCOUNT_LOCKED, INTERNAL_ERROR

API_CALLS = ("login", "get_shards", "set_shards", "health", "settings", "support")
_API_FAULTS = ("error", "timeout", "reset", "garbage", "slow")

REJECTIONS: dict[str, tuple[int, int, str]] = {
    "busy": (403, ACCESS_DENIED, "server temporarily unavailable, retry"),
    "wrong_certificate": (400, ACCESS_DENIED, "client setup is logged off: wrong certificate, call again with the right one"),
    "wrong_pin": (400, ACCESS_DENIED, "two-step verification: pin is wrong"),
    "banned": (400, ACCOUNT_LOCKED, "account is banned"),
    "expired_build": (400, ACCESS_DENIED, "App Expired"),
    "registration_closed": (400, ACCESS_DENIED, "registration blocked"),
}
"""Rejections of Set Shards: their status, code and details, unless the fault names others."""

ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(API_CALLS, _API_FAULTS),
    "set_shards": (*_API_FAULTS, *REJECTIONS, "late", "overtaken"),
    "messages": ("timeout", "slow", "reset"),
    "gateway": ("error", "slow"),
    "restart": ("slow",),
}
"""The faults of each call.

API calls: ``error`` answers ``status`` (500) with ``code`` (1014); ``timeout`` never answers; ``reset`` cuts the connection; ``garbage``
answers ``status`` (200) with a body that is not JSON; with ``applies`` each of these still executes the call. ``slow`` answers
correctly after ``seconds``. Set Shards also: all ``REJECTIONS``, with any ``status``, ``code`` and ``details``, and with ``retry_after``
as the header Retry-After (``wrong_certificate`` logs the client off, ``banned`` bans the account; the others change nothing); ``late``
answers ``status`` (500) at once and applies after ``seconds``; ``overtaken``: the call comes just after another call for the current
number, and thus during the restart of that call.
messages (a frame at the WhatsApp servers): ``timeout`` does not acknowledge, ``slow`` does after ``seconds``, ``reset`` cuts the gateway;
with ``applies`` the first and the last accept the message. gateway: a connection is rejected with 503, or accepted after ``seconds``.
restart: the Coreapp ``pod`` (any if unset) takes ``seconds`` longer.

A fault with ``after`` waits for the next call of that kind, and happens to calls that come after it.
"""

_MOST = 1000


@dataclass(slots=True)
class Fault:
    """One fault; ``left``: how often it still happens."""

    call: str
    fault: str
    left: int = 1
    applies: bool = False
    seconds: float = 1.0
    status: int = 500
    code: int = INTERNAL_ERROR
    details: str = "injected fault"
    retry_after: str = ""
    pod: str = ""
    after: str = ""
    fired: int = 0

    @classmethod
    def read(cls, body: Any) -> "Fault":
        """Read ``{"call", "fault", "count"?, "applies"?, "seconds"?, "status"?, "code"?, "details"?, "retry_after"?, "pod"?, "after"?}``.

        Raises ValueError with a sentence about what is wrong.
        """
        if not isinstance(body, dict):
            msg = "a fault is a JSON object with call and fault"
            raise ValueError(msg)
        known = {"call", "fault", "count", "applies", "seconds", "status", "code", "details", "retry_after", "pod", "after"}
        if unknown := sorted(set(body) - known):
            msg = f"unknown field {unknown[0]}; known are {', '.join(sorted(known))}"
            raise ValueError(msg)
        call, fault, count = body.get("call"), body.get("fault"), body.get("count", 1)
        if call not in ALLOWED:
            msg = f"call must be one of {', '.join(ALLOWED)}"
            raise ValueError(msg)
        if fault not in ALLOWED[call]:
            msg = f"fault of {call} must be one of {', '.join(ALLOWED[call])}"
            raise ValueError(msg)
        after = str(body.get("after", ""))
        if after not in {"", *ALLOWED}:
            msg = f"after must be one of {', '.join(ALLOWED)}"
            raise ValueError(msg)
        if not isinstance(count, int) or not 1 <= count <= _MOST:
            msg = f"count must be from 1 to {_MOST}"
            raise ValueError(msg)
        seconds = body.get("seconds", 1.0)
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
            msg = "seconds must be from 0 to 600"
            raise ValueError(msg)
        usual = REJECTIONS.get(fault, (200 if fault == "garbage" else 500, INTERNAL_ERROR, "injected fault"))
        status = body.get("status", usual[0])
        if not isinstance(status, int) or not 200 <= status <= 599:
            msg = "status must be an HTTP status from 200 to 599"
            raise ValueError(msg)
        return cls(
            call=call,
            fault=fault,
            left=count,
            applies=bool(body.get("applies", False)),
            seconds=float(seconds),
            status=status,
            code=int(body.get("code", usual[1])),
            details=_text(body, "details", usual[2]),
            retry_after=_text(body, "retry_after", ""),
            pod=str(body.get("pod", "")),
            after=after,
        )

    def shown(self) -> dict[str, Any]:
        """Return it as ``GET /control/faults`` shows it."""
        return asdict(self)


def _text(body: dict[str, Any], name: str, usual: str) -> str:
    text = str(body.get(name, usual))
    if len(text) > _MOST or not text.isprintable():
        msg = f"{name} must be printable text of {_MOST} characters at most"
        raise ValueError(msg)
    return text


class Faults:
    """All faults in the order of their requests; the first that matches a call happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault.

        Raises ValueError when there are too many already.
        """
        if len(self._faults) >= _MOST:
            msg = f"there are {_MOST} faults already; DELETE them first"
            raise ValueError(msg)
        self._faults.append(fault)

    def take(self, call: str, pod: str = "") -> Fault | None:
        """Return the fault that happens to this call now, counted down; None when there is none."""
        happens = (f for f in self._faults if f.call == call and f.left > 0 and not f.after and f.pod in {"", pod})
        fault = next(happens, None)
        for waiting in self._faults:
            if waiting.after == call:
                waiting.after = ""
        if fault is not None:
            fault.left -= 1
            fault.fired += 1
        return fault

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def shown(self) -> list[dict[str, Any]]:
        """Return all faults, including those that are over."""
        return [fault.shown() for fault in self._faults]
