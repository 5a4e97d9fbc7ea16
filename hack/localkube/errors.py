"""The one error of this package: a sentence that says what failed, where, and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable


class LocalKubeError(Exception):
    """Something a person must read: one clear sentence, no traceback needed. Commands print it and exit with status 1."""


def sentence(error: BaseException) -> str:
    """An error that a person reads, without a traceback."""
    if isinstance(error, OSError) and error.strerror:
        return f"the system reports: {error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return str(error) if isinstance(error, LocalKubeError) else f"{type(error).__name__}: {error}"


def guarded(program: str, work: Callable[[], int], *, interrupted: str = "what was built is kept, run it again to go on") -> int:
    """Run ``work`` and return its exit status. A `LocalKubeError` is printed on standard error, after the name of the program."""
    status = 0
    try:
        status = work()
    except* (LocalKubeError, OSError, subprocess.TimeoutExpired) as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        print(f"{program}: {sentence(first)}", file=sys.stderr)
        status = 1
    except* KeyboardInterrupt:
        print(f"{program}: interrupted; {interrupted}", file=sys.stderr)
        status = 130
    return status
