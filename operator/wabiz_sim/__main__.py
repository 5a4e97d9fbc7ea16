"""One component as a separate process: ``python -m wabiz_sim coreapp|webapp|upstream``, settings from the environment."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from .coreapp import Coreapp
from .process import Process
from .settings import VARIABLES, Settings, SettingsError
from .upstream import Upstream
from .version import VERSION
from .webapp import Webapp

_GRACE_SECONDS = 20.0
"""Less than the 30 s that Kubernetes waits before it kills the container."""


def build(component: str, settings: Settings) -> Process:
    """Return the component of that name."""
    if component == "coreapp":
        return Coreapp(settings)
    return Webapp(settings) if component == "webapp" else Upstream(settings)


async def run(process: Process) -> None:
    """Run until SIGTERM or SIGINT, then stop gracefully; a second signal kills."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    killing: list[asyncio.Task[None]] = []

    def on_signal() -> None:
        if stopping.is_set():
            killing.append(asyncio.ensure_future(process.kill()))
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    waiting = asyncio.ensure_future(stopping.wait())
    starting = asyncio.ensure_future(process.start())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # it may wait for a database that never answers
        starting.cancel()
        await asyncio.wait({starting})
        return
    try:
        await starting
    except BaseException:
        waiting.cancel()
        raise
    stopped = asyncio.ensure_future(process.wait_stopped())
    await asyncio.wait({stopped, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.is_set():
        await process.stop(_GRACE_SECONDS)
    waiting.cancel()
    await stopped


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wabiz-sim",
        description="Run one component of the simulator of the WhatsApp Business API client until SIGTERM. It sends nothing to WhatsApp.",
        epilog="\n".join(["environment variables:", *(f"  {names}\n      {meaning}" for names, meaning in VARIABLES)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.add_argument("component", choices=("coreapp", "webapp", "upstream"), help="what to run")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run a component; ``argv`` is the command line without the program's name (default: this process's).

    Exit status 2 for an argument or a setting that cannot be used, 1 when the component cannot start or dies.
    """
    component: str = _parser().parse_args(argv).component
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.from_env(os.environ)
        asyncio.run(run(build(component, settings)))
    except SettingsError as error:
        sys.exit(_print_error(component, error, 2))
    except OSError as error:
        sys.exit(_print_error(component, error, 1))


def _print_error(component: str, error: Exception, code: int) -> int:
    print(f"wabiz_sim {component}: {error}", file=sys.stderr)  # noqa: T201 - the sentence for the user
    return code


if __name__ == "__main__":
    main()
