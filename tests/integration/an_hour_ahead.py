"""The operator as it is, on a machine whose wall clock is an hour ahead: ``python -m an_hour_ahead``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial

from whatsapp_operator import __main__ as program
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.lease import Election

AHEAD = timedelta(hours=1)


class ClockAhead(SystemClock):
    """The machine's clock as an administrator set it."""

    def __init__(self) -> None:
        """Take the time an hour later."""
        super().__init__(wall=lambda: datetime.now(UTC) + AHEAD)


if __name__ == "__main__":
    setattr(program, "SystemClock", ClockAhead)  # noqa: B010  what it builds the shell with
    setattr(program, "Election", partial(Election, wall=ClockAhead().wall))  # noqa: B010
    program.main()
