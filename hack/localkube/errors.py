"""The one error of this package: a sentence that says what failed, where, and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable


class LocalKubeError(Exception):
    """Something a person must read: one clear sentence, no traceback needed. Commands print it and exit with status 1."""


def guarded(program: str, work: Callable[[], int]) -> int:
    """The exit status of ``work``; what a person must read goes to standard error, after the name of the program."""
    try:
        return work()
    except LocalKubeError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"{program}: the system reports: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; what was built is kept, run it again to go on", file=sys.stderr)
        return 130
