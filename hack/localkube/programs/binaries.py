"""Where programs come from, in order: KUBEBUILDER_ASSETS, the user's cache, official releases, building with Go."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs import versions
from localkube.programs.cache import Cache, user_cache, version_of
from localkube.programs.gobuild import GoBuild
from localkube.programs.releases import NotHadError, Releases, download
from localkube.programs.versions import Program, host_platform, kubernetes_version, pinned_programs
from localkube.progress import clock, step, to_stderr

Binaries = dict[str, Path]
"""Programs ready to run, by name."""


def cache_of(environ: Mapping[str, str]) -> Cache:
    """The cache for the pinned Kubernetes version on this machine."""
    return Cache(user_cache(environ) / f"kubernetes-{kubernetes_version().removeprefix('v')}-{'-'.join(host_platform())}")


def provide(environ: Mapping[str, str], *, programs: Sequence[Program] | None = None, releases: Releases | None = None) -> Binaries:
    """All programs, fetched or built (minutes, once per version) if they are not here yet.

    ``programs`` are those of the control plane, ``releases`` the official ones, unless given. Safe to run in several processes at once: one
    works, the others wait. LocalKubeError when there is no way to a program: one sentence with what was tried and what to do.
    """
    programs = pinned_programs() if programs is None else programs
    paths = _assets(environ, [program for program in programs if program.of_control_plane])
    cache = cache_of(environ)
    wanted = [program for program in programs if program.name not in paths]
    if any(cache.fault(program) for program in wanted):
        with cache.lock():
            missing = [program for program in wanted if cache.fault(program)]
            gobuild = GoBuild(user_cache(environ), host_platform(), environ)
            _Maker(cache, releases or Releases(host_platform()), gobuild).make(missing)
    return paths | {program.name: cache.path(program) for program in wanted}


def _assets(environ: Mapping[str, str], programs: Sequence[Program]) -> dict[str, Path]:
    """The programs in the folder that KUBEBUILDER_ASSETS names.

    envtest has only some, so those of another Kubernetes minor are left out, unless all of Kubernetes are there and of one minor.
    """
    folder = environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return {}
    if not Path(folder).is_dir():
        raise LocalKubeError(f"KUBEBUILDER_ASSETS is {folder}, which is no folder: unset it or correct it")
    paths = {program.name: Path(folder).absolute() / program.name for program in programs}
    there = [program for program in programs if paths[program.name].is_file() and os.access(paths[program.name], os.X_OK)]
    says = {program.name: version_of(program, paths[program.name]) for program in there}
    minors = {_minor_of(says.get(program.name, "")) for program in programs if program.of_kubernetes}
    found = {}
    for program in there:
        version = says[program.name]
        # controllers may not be newer than the API server, so all programs of Kubernetes are of one minor; any etcd 3 will do
        wanted = ".".join(program.version.split(".")[: 2 if program.of_kubernetes else 1])
        if program.of_kubernetes and len(minors) == 1:
            wanted = max(minors) or wanted
        if re.search(rf"{re.escape(wanted)}\.", version if program.of_kubernetes else f"v{version.partition('Version: ')[2]}"):
            found[program.name] = paths[program.name]
        else:
            line = version.splitlines()[0] if version else "silent about its version"
            to_stderr(f"{paths[program.name]} is not used: it is not {wanted}, but {line}")
    return found


def _minor_of(said: str) -> str:
    """The minor version of Kubernetes in what a program said, such as v1.34; empty if there is none, or no such program."""
    found = re.search(r"v1\.\d+", said)
    return found[0] if found else ""


@dataclass
class _Maker:
    """Fetches or builds programs into the cache, whose lock is held."""

    cache: Cache
    releases: Releases
    gobuild: GoBuild

    def make(self, programs: Sequence[Program]) -> None:
        """Make each of ``programs``, reporting first what is wrong with those that were there but not usable."""
        if not programs:
            return
        begun, seconds = time.monotonic(), sum(program.build_seconds for program in programs)
        to_stderr(f"programs are made once, in {self.cache.folder} (built from source: about {clock(seconds)})")
        for number, program in enumerate(programs, 1):
            if self.cache.path(program).exists():
                to_stderr(f"{self.cache.path(program)} {self.cache.fault(program)}; making it again")
            why_not = self._fetch(program, number, len(programs))
            if why_not:
                self._build(program, number, len(programs), why_not)
        to_stderr(f"{len(programs)} programs ready after {clock(time.monotonic() - begun)}")

    def _fetch(self, program: Program, number: int, of: int) -> str:
        """Empty when the program came from its official release, else why not, which is no failure yet: most have Go then."""
        try:
            release = self.releases.find(program)
            text = f"fetching {program.name} {program.version}"
            with self.cache.staged(program) as staged, step(text, number=number, of=of):
                download(release, staged)
        except (NotHadError, LocalKubeError) as error:
            return str(error)
        return ""

    def _build(self, program: Program, number: int, of: int, why_not: str) -> None:
        try:
            go = self.gobuild.go(program.go)
        except NotHadError as error:
            msg = (
                f"{program.name} {program.version} is not to be had: {why_not}; {error}. Install Go, connect to the network once, "
                "or set KUBEBUILDER_ASSETS to a folder that has it"
            )
            raise LocalKubeError(msg) from error
        text, log = f"building {program.name} {program.version} with {go}", self.cache.folder / f"{program.name}.build.log"
        step_ = step(text, number=number, of=of, expected_s=program.build_seconds)
        with self.cache.staged(program) as staged, step_:
            self.gobuild.build(program, go, staged, log)


def main(argv: Sequence[str], *, root: Path) -> int:
    """Run the command ``hack/programs``. Returns the exit status. LocalKubeError says which program is not to be had, and why."""
    parser = argparse.ArgumentParser(prog="hack/programs", description="Find, fetch or build the pinned programs.")
    parser.add_argument(
        "--control-plane", action="store_true", help="those of the control plane alone, not those that judge charts and others"
    )
    options = parser.parse_args(argv)
    others = () if options.control_plane else (*versions.chart_programs(), *versions.workflow_programs(), *versions.kstatus_programs())
    provide(os.environ, programs=(*pinned_programs(), *others))
    return 0
