"""The command ``hack/programs``: finds, fetches or builds the pinned programs, so that nothing else has to wait for them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from localkube.programs.binaries import provide
from localkube.programs.versions import chart_programs, kstatus_programs, pinned_programs, workflow_programs


def main(argv: Sequence[str], *, root: Path) -> int:  # as every command
    """Run the command. Returns the exit status. LocalKubeError says which program is not to be had, and why."""
    parser = argparse.ArgumentParser(prog="hack/programs", description="Find, fetch or build the pinned programs.")
    parser.add_argument(
        "--control-plane", action="store_true", help="those of the control plane alone, not those that judge charts and others"
    )
    options = parser.parse_args(argv)
    others = () if options.control_plane else (*chart_programs(), *workflow_programs(), *kstatus_programs())
    provide(os.environ, programs=(*pinned_programs(), *others))
    return 0
