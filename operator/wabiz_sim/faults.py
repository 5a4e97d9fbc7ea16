"""What goes wrong on purpose: a bounded list of faults, each for one kind of call and a number of times."""

from dataclasses import dataclass, field
from typing import Any

API_CALLS = ("login", "get_shards", "set_shards", "health", "settings", "support")
_API_FAULTS = ("error", "timeout", "reset", "garbage", "slow")

ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(API_CALLS, _API_FAULTS),
    "set_shards": (*_API_FAULTS, "busy", "wrong_certificate", "late", "overtaken"),
    "messages": ("timeout", "slow", "reset"),
    "gateway": ("error", "slow"),
    "restart": ("slow",),
}
"""Which faults each call knows.

API calls: ``error`` answers ``status`` (500) with ``code`` (1014); ``timeout`` never answers; ``reset`` cuts the connection; ``garbage``
answers ``status`` (200) with something that is no JSON; each of these does what was asked all the same when ``applies``. ``slow`` answers
rightly after ``seconds``. Set Shards also: ``busy`` is the documented 403, ``wrong_certificate`` takes the certificate for a wrong one,
``late`` answers ``status`` (500) at once and applies after ``seconds``, ``overtaken`` comes just after somebody else's call for the number
that there is, so into that one's restart.
messages (a frame at the WhatsApp servers): ``timeout`` does not acknowledge, ``slow`` does after ``seconds``, ``reset`` cuts the gateway;
the first and the last take the message when ``applies``. gateway: a connection is refused with 503, or accepted after ``seconds``.
restart: the Coreapp ``pod`` (any when unset) takes ``seconds`` longer.
"""

_MOST = 1000


@dataclass(slots=True)
class Fault:
    """One fault; ``left`` is how often it still happens."""

    call: str
    fault: str
    left: int = 1
    applies: bool = False
    seconds: float = 1.0
    status: int = 500
    code: int = 1014
    pod: str = ""
    fired: int = field(default=0)

    @classmethod
    def read(cls, body: Any) -> "Fault":
        """Read ``{"call", "fault", "count"?, "applies"?, "seconds"?, "status"?, "code"?, "pod"?}``.

        Raises ValueError with a sentence about what is wrong.
        """
        if not isinstance(body, dict):
            msg = "a fault is a JSON object with call and fault"
            raise ValueError(msg)
        known = {"call", "fault", "count", "applies", "seconds", "status", "code", "pod"}
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
        if not isinstance(count, int) or not 1 <= count <= _MOST:
            msg = f"count must be from 1 to {_MOST}"
            raise ValueError(msg)
        seconds = body.get("seconds", 1.0)
        if not isinstance(seconds, int | float) or not 0 <= seconds <= 600:
            msg = "seconds must be from 0 to 600"
            raise ValueError(msg)
        status = body.get("status", 200 if fault == "garbage" else 500)
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
            code=int(body.get("code", 1014)),
            pod=str(body.get("pod", "")),
        )

    def shown(self) -> dict[str, Any]:
        """Return it as ``GET /control/faults`` shows it."""
        return {
            "call": self.call,
            "fault": self.fault,
            "left": self.left,
            "fired": self.fired,
            "applies": self.applies,
            "seconds": self.seconds,
            "status": self.status,
            "code": self.code,
            "pod": self.pod,
        }


class Faults:
    """All faults in the order in which they were asked for; the first that fits a call happens."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Ask for a fault.

        Raises ValueError when there are too many already.
        """
        if len(self._faults) >= _MOST:
            msg = f"there are {_MOST} faults already; DELETE them first"
            raise ValueError(msg)
        self._faults.append(fault)

    def take(self, call: str, pod: str = "") -> Fault | None:
        """Return the fault that happens to this call now, counted down; None when there is none."""
        for fault in self._faults:
            if fault.call == call and fault.left > 0 and fault.pod in {"", pod}:
                fault.left -= 1
                fault.fired += 1
                return fault
        return None

    def clear(self) -> None:
        """Forget all."""
        self._faults.clear()

    def shown(self) -> list[dict[str, Any]]:
        """Return all, also those that are over."""
        return [fault.shown() for fault in self._faults]
