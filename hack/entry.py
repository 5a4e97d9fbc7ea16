#!/usr/bin/env python3
"""Every command in this folder: their names are links to this file. It goes on in the project's own environment."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
COMMANDS = {
    "bench": "localkube.scenarios.bench.failovers",  # failover times on a real API server
    "bench --plugin": "localkube.scenarios.bench.plugin",  # how long kubectl whatsapp takes
    "bench --scale": "localkube.scenarios.scale.command",  # what one operator costs with very many clusters
    "chaos": "localkube.scenarios.chaos",  # every fault many times
    "charts": "localkube.charts",  # the Helm charts: derived, linted, rendered
    "dashboard-picture": "localkube.screenshot",  # the picture of the live page in the documentation
    "demo": "localkube.scenarios.demo.command",  # a cluster that runs, fails over and resizes before your eyes
    "e2e": "localkube.scenarios.e2e",  # the user's own path on a kind cluster, and everything that breaks there
    "figures": "localkube.pages",  # what was measured, into docs/figures and into the text
    "kind-offline": "localkube.offline.command",  # a kind cluster, also where no container registry is reached
    "programs": "localkube.programs.binaries",  # those of the control plane and of the checks: found, fetched or built
    "wheels": "localkube.wheels",  # the images' dependencies
}


def main(name: str, argv: list[str]) -> int | str:
    """Run a command; returns its exit status, or a sentence that says why it cannot be run."""
    if PYTHON.exists() and Path(sys.prefix).resolve() != PYTHON.parent.parent.resolve():
        os.execv(PYTHON, [str(PYTHON), *sys.argv])  # noqa: S606 - the same program, in the project's environment
    sys.path[:0] = [str(ROOT / "hack"), str(ROOT / "operator"), str(ROOT / "tests")]
    wanted = {f"{name} {option}" for option in argv}
    try:
        command = importlib.import_module(COMMANDS[next((one for one in COMMANDS if one in wanted), name)])
    except ModuleNotFoundError as error:
        return f"hack/{name}: the Python package {error.name} is missing: make the project's environment first, with 'make setup'"
    guarded = importlib.import_module("localkube.errors").guarded
    return int(guarded(f"hack/{name}", lambda: command.main(argv, root=ROOT)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
