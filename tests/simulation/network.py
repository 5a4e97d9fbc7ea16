"""How bad the way to the API server is. Set by the world, obeyed by the operators' way to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Network:
    """How bad the way to the API server is: chances from 0 to 1 for each call, times in seconds."""

    dropped: float = 0.0
    """Not executed, Unavailable."""
    lost: float = 0.0
    """Executed, Unavailable."""
    late: float = 0.0
    """Unavailable after the time limit, executed after that."""
    touched: float = 0.0
    """Another party touches the object first, so that its resourceVersion moves on."""
    slow: float = 0.0
    """Takes up to a second more."""
    stale: float = 0.0
    """A read sees an older state."""
    stale_by: float = 1.0
    down: bool = False
    """Nothing gets through."""
    did: Counter[str] = field(default_factory=Counter)
    """How often each of them did something."""

    def clear(self) -> None:
        """Make everything work."""
        self.dropped = self.lost = self.late = self.touched = self.slow = self.stale = 0.0
        self.down = False
