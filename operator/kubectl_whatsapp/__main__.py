"""The command line: ``kubectl whatsapp COMMAND``."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn

from kubectl_whatsapp import BEGUN

MODULES: Final = {
    "observe": ("status", "why", "check"),
    "change": ("plan", "switchover", "reshard-now", "pause", "resume"),
    "collect": ("report", "logs"),
    "drill": ("game-day",),
    "dashboard": ("dashboard",),
}
"""The commands of each module, which registers them when it is imported."""
NEW_OBJECTS: Final = 50_000
"""The number of new objects that start a garbage collection. With Python's default, 700, loading this program would start about 100."""
PYTHON: Final = ".".join(map(str, sys.version_info[:2]))
MISSING: Final = f"is missing for Python {PYTHON}. Install the plugin with pip instead (docs/kubectl.md#install)."


def main(argv: Sequence[str] | None = None, *, begun: float | None = None) -> int:
    """Run a command and return the exit code; any failure is a sentence on standard error.

    ``begun``: when the process began, by the monotonic clock; now if not given.
    """
    given = sys.argv[1:] if argv is None else [*argv]
    begun = time.monotonic() if begun is None else begun
    if given == ["--version"]:
        from whatsapp_operator import __version__  # noqa: PLC0415  # nothing else of it is loaded

        print(f"kubectl-whatsapp {__version__}")
        return 0
    asked = next((word for word in given if not word.startswith("-")), "")
    modules = [module for module, names in MODULES.items() if asked in names]
    if not modules or {"-h", "--help"} & {*given}:
        return _run(given, modules or [*MODULES], begun)
    from kubectl_whatsapp.access import kubectl_started  # noqa: PLC0415  # --help needs no kubectl

    with kubectl_started(given):
        return _run(given, modules, begun)


def _run(given: list[str], modules: Sequence[str], begun: float) -> int:
    """Run the given command. Only its modules are imported, because importing all of them takes longer."""
    import typer  # noqa: PLC0415  # while kubectl runs

    from kubectl_whatsapp import cli  # noqa: PLC0415

    for module in modules:
        import_module(f"kubectl_whatsapp.commands.{module}")
    cli.sort()
    try:
        return int(cli.app(args=given or ["--help"], prog_name="kubectl whatsapp", standalone_mode=False, obj=begun) or 0)
    except cli.FAILURES as error:
        return _failed(str(error), getattr(error, "code", cli.FAILED))
    except typer.Abort:
        return 130
    except typer.Exit as error:
        return int(error.exit_code)
    except ModuleNotFoundError as error:  # the plugin is a single file, and this Python is not one that it was built for
        if str(error.name).startswith("kubectl_whatsapp"):
            raise
        return _failed(f"this command needs the Python package {error.name}, which {MISSING}", cli.FAILED)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only errors about options and arguments have it
            raise
        usage = context.get_usage() if (context := getattr(error, "ctx", None)) else "Usage: kubectl whatsapp COMMAND"
        cli.note(f"usage{usage.removeprefix('Usage')}")
        return _failed(f"{error.format_message()} See --help.", cli.MISUSED)


def _failed(sentence: str, code: int) -> int:
    print(f"kubectl whatsapp: {sentence}", file=sys.stderr, flush=True)
    return code


def _ended(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def run() -> NoReturn:
    """Run a command as a process. Every failure and signal ends it without a traceback and in an orderly way, so that keys are removed."""
    signal.signal(signal.SIGTERM, _ended)
    signal.signal(signal.SIGHUP, _ended)  # the terminal was closed
    if sys.stdout is None or sys.stderr is None:  # closed by the process that started this one
        sys.stdout, sys.stderr = sys.stdout or open(os.devnull, "w"), sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    gc.set_threshold(NEW_OBJECTS)
    try:
        code = main(begun=BEGUN)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        _discard_output()
        code = 141
    except SystemExit as error:
        # typer and rich exit with 1 after a closed pipe, but 1 here means that a person should act.
        code = 141 if error.code == 1 else int(error.code or 0)
    except OSError as error:
        _discard_output()
        code = _failed(f"the command ended early: {error.strerror or error}.", 4)
    except Exception as error:
        if os.environ.get("KUBECTL_WHATSAPP_TRACEBACK"):
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}"[:300]
        code = _failed(f"this is a bug in the plugin ({what}). Set KUBECTL_WHATSAPP_TRACEBACK=1 for a traceback, and please report it.", 4)
    with suppress(OSError):
        sys.stdout.flush()
    if access := sys.modules.get("kubectl_whatsapp.access"):
        access.remove_files()
    os._exit(code)  # Python's own shutdown tears down all modules, and a person need not wait for that


def _discard_output() -> None:
    """Write nothing more: output that is still buffered would fail again at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run()
