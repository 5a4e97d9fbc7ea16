"""Prometheus and promtool: from the PATH, else Debian's package, unpacked without root, else built from their Go module."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs.binaries import Binaries, provide
from localkube.programs.cache import user_cache
from localkube.programs.versions import prometheus_programs
from localkube.progress import to_stderr
from localkube.run import output

NAMES = ("promtool", "prometheus")
PACKAGE = "prometheus"
FETCH_SECONDS = 300.0


def prometheus(environ: Mapping[str, str]) -> Binaries:
    """Return both programs. LocalKubeError when there is no way to them."""
    found = {name: shutil.which(name, path=environ.get("PATH")) for name in NAMES}
    if all(found.values()):
        return {name: Path(path) for name, path in found.items() if path}
    folder = user_cache(environ) / "prometheus-debian"
    if not folder.is_dir():
        try:
            _unpack(environ, folder)
        except LocalKubeError as error:
            to_stderr(f"Debian's package {PACKAGE} is not to be had ({str(error).splitlines()[-1]}); it is built instead")
            return provide(environ, programs=prometheus_programs())
    return {name: folder / name for name in NAMES}


def _unpack(environ: Mapping[str, str], folder: Path) -> None:
    """Fetch the package by apt, which checks its signature, and put its programs into ``folder``, as a whole or not at all."""
    to_stderr(f"fetching Debian's package {PACKAGE} (20 MB, once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".prometheus-") as work:
        path = Path(work)
        # apt-get writes into the folder in which it runs.
        output(["sh", "-c", 'cd "$0" && exec apt-get download "$1"', work, PACKAGE], env=environ, timeout=FETCH_SECONDS)
        (package,) = path.glob("*.deb")
        output(["dpkg-deb", "-x", str(package), str(path / "root")], env=environ, timeout=FETCH_SECONDS)
        (path / "bin").mkdir()
        for name in NAMES:
            (path / "root" / "usr" / "bin" / name).rename(path / "bin" / name)
        if not folder.is_dir():  # another process may have been faster
            (path / "bin").rename(folder)
