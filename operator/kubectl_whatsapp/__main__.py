"""The command line: ``kubectl whatsapp COMMAND``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

import typer

from kubectl_whatsapp import cli
from kubectl_whatsapp.access import AccessError, RequestError
from kubectl_whatsapp.commands import change, collect, dashboard, drill, observe
from kubectl_whatsapp.rights import NEEDED

COMMANDS: Final = (observe, change, collect, drill, dashboard)
"""Each registers its commands as it is imported."""
cli.app.registered_commands.sort(key=lambda one: [*NEEDED].index(one.name or ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code; what goes wrong is a sentence on standard error."""
    given = sys.argv[1:] if argv is None else [*argv]
    try:
        return int(cli.app(args=given or ["--help"], prog_name="kubectl whatsapp", standalone_mode=False) or 0)
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
        return _failed(f"{error.format_message()} See `kubectl whatsapp --help`.")


def _failed(sentence: str, code: int = cli.FAILED) -> int:
    cli.note(f"kubectl whatsapp: {sentence}")
    return code


def _ended(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(143)


def run() -> NoReturn:
    """Run a command as a process: Ctrl-C and a closed pipe end it without a traceback, SIGTERM in order, so that keys are removed."""
    signal.signal(signal.SIGTERM, _ended)
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


if __name__ == "__main__":
    run()
