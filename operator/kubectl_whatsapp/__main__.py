"""The command line: ``kubectl whatsapp COMMAND``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn

import typer

from kubectl_whatsapp import BEGUN, cli
from kubectl_whatsapp.access import AccessError, RequestError
from kubectl_whatsapp.rights import NEEDED

MODULES: Final = {
    "observe": ("status", "why", "check"),
    "change": ("plan", "switchover", "reshard-now", "pause", "resume"),
    "collect": ("report", "logs"),
    "drill": ("game-day",),
    "dashboard": ("dashboard",),
}
"""The commands of each module, which registers them as it is imported."""


def _load(given: Sequence[str]) -> None:
    """Import the module of the command that is asked for, for that is faster; all of them if none is."""
    asked = next((word for word in given if not word.startswith("-")), "")
    needed = [module for module, names in MODULES.items() if asked in names] or [*MODULES]
    for module in needed:
        import_module(f"kubectl_whatsapp.commands.{module}")
    cli.app.registered_commands.sort(key=lambda one: [*NEEDED].index(one.name or ""))


def main(argv: Sequence[str] | None = None, *, begun: float | None = None) -> int:
    """Run a command and return the exit code; what goes wrong is a sentence on standard error.

    ``begun``: when the process began, by the monotonic clock; now if not given.
    """
    given = sys.argv[1:] if argv is None else [*argv]
    begun = time.monotonic() if begun is None else begun
    _load(given)
    try:
        return int(cli.app(args=given or ["--help"], prog_name="kubectl whatsapp", standalone_mode=False, obj=begun) or 0)
    except cli.CommandError as error:
        return _failed(str(error), error.code)
    except (AccessError, RequestError) as error:
        return _failed(str(error))
    except typer.Abort:
        return 130
    except typer.Exit as error:
        return int(error.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):  # of a wrong option or argument
            raise
        usage = context.get_usage() if (context := getattr(error, "ctx", None)) else "Usage: kubectl whatsapp COMMAND"
        cli.note(f"usage{usage.removeprefix('Usage')}")
        return _failed(f"{error.format_message()} See --help.", cli.MISUSED)


def _failed(sentence: str, code: int = cli.FAILED) -> int:
    cli.note(f"kubectl whatsapp: {sentence}")
    return code


def _ended(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def run() -> NoReturn:
    """Run a command as a process: every failure and signal ends it without a traceback, and in order, so that keys are removed."""
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)  # the terminal was closed
    if sys.stdout is None or sys.stderr is None:  # closed by who started it
        sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        code = main(begun=BEGUN)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _discard_output()
        code = 141
    except SystemExit as error:
        # typer and rich end with 1 after a closed pipe, which here would mean that a person should act.
        code = 141 if error.code == 1 else int(error.code or 0)
    except OSError as error:
        _discard_output()
        code = _failed(f"the command ended early: {error.strerror or error}.", 4)
    except Exception as error:
        if os.environ.get("KUBECTL_WHATSAPP_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {error}"[:300]
        code = _failed(f"this is a fault of the plugin ({what}). With KUBECTL_WHATSAPP_TRACEBACK=1 it says where; please report it.", 4)
    sys.exit(code)


def _discard_output() -> None:
    """Write nothing more: what is left would fail once more at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run()
