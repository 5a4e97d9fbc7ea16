"""The command ``hack/wheels``: the images' dependencies, by hash, for builds where containers cannot reach a package registry."""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from localkube.progress import to_stderr
from localkube.run import output

LOCKS = ("hack/lock/run.txt", "hack/lock/simulator.txt")
"""The operator's and the simulator's; what both need has one version in both."""
MADE_FROM = "made-from.txt"
"""A copy of all locks next to the wheels: it shows whether a folder was made from the current locks."""
SECONDS = 900.0


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command; ``root`` is the repository. Returns the exit status. LocalKubeError if pip fails."""
    parser = argparse.ArgumentParser(prog="hack/wheels", description="Fetch the images' dependencies into build/wheels, by hash.")
    parser.add_argument("--python", default="3.11", help="Python of the base image (default: 3.11)")
    parser.add_argument("--arch", default="x86_64", choices=("x86_64", "aarch64"), help="processor of the image (default: x86_64)")
    options = parser.parse_args(argv)
    fetch(root, root / "build" / "wheels", python=options.python, arch=options.arch)
    return 0


def provide(root: Path, folder: Path, *, python: str = "3.11") -> Path:
    """The folder of wheels for this machine's processor, fetched unless it is there and of today's locks. LocalKubeError if pip fails."""
    note = folder / MADE_FROM
    if not note.exists() or note.read_bytes() != _locked(root):
        fetch(root, folder, python=python, arch=platform.machine())
    return folder


def fetch(root: Path, folder: Path, *, python: str, arch: str) -> None:
    """Fetch all wheels of the locks and put ``folder`` in place as a whole. LocalKubeError with pip's words if it fails."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    argv += ["--dest", str(partial), "--implementation=cp", f"--python-version={python}"]
    argv += [word for lock in LOCKS for word in ("-r", str(root / lock))]
    # glibc of Debian 12 is 2.36; a wheel may ask for any up to that
    argv += [f"--platform=manylinux{tag}_{arch}" for tag in ("2014", *(f"_2_{minor}" for minor in range(36, 16, -1)))]
    to_stderr(f"fetching the wheels of {' and '.join(LOCKS)} for Python {python} on {arch}")
    try:
        output(argv, timeout=SECONDS)
        (partial / MADE_FROM).write_bytes(_locked(root))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    wheels = sorted(folder.glob("*.whl"))
    to_stderr(f"{len(wheels)} wheels, {sum(path.stat().st_size for path in wheels) / 1e6:.1f} MB, in {folder}")


def _locked(root: Path) -> bytes:
    return b"".join((root / lock).read_bytes() for lock in LOCKS)
