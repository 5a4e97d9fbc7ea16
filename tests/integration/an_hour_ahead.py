"""The operator as it is, on a machine whose wall clock is an hour ahead: ``python -m an_hour_ahead``."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from whatsapp_operator import __main__ as program
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.leader import Election

AHEAD = timedelta(hours=1)


class ClockAhead(SystemClock):
    """The machine's clock as somebody set it."""

    def now(self) -> datetime:
        """Return the wall time an hour later."""
        return super().now() + AHEAD


if __name__ == "__main__":
    setattr(program, "SystemClock", ClockAhead)  # noqa: B010  what it builds the shell with
    setattr(program, "Election", partial(Election, wall=ClockAhead().now))  # noqa: B010
    program.main()
