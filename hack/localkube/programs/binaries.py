"""Where programs come from, in order: KUBEBUILDER_ASSETS, the user's cache, official releases, building with Go."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs.cache import Cache, user_cache, version_of
from localkube.programs.gobuild import GoBuild
from localkube.programs.releases import NotHadError, Releases
from localkube.programs.versions import Program, host_platform, kubernetes_version, pinned_programs
from localkube.progress import Report, Step, clock, quiet, terminal_of


@dataclass(frozen=True)
class Binaries:
    """Programs ready to run, by name, such as ``binaries["kube-apiserver"]``."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> Path:
        """The program's path."""
        return self.paths[name]


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The folder of the cache for the pinned Kubernetes version on this machine."""
    return user_cache(environ) / f"kubernetes-{kubernetes_version().removeprefix('v')}-{'-'.join(host_platform())}"


def provide(
    environ: Mapping[str, str],
    *,
    report: Report = quiet,
    programs: Sequence[Program] | None = None,
    releases: Releases | None = None,
    gobuild: GoBuild | None = None,
) -> Binaries:
    """All programs, fetched or built (minutes, once per version) if they are not here yet; ``report`` gets a line per step.

    ``programs``, ``releases`` and ``gobuild`` are the pinned ones unless given. Raises LocalKubeError when there is no way to a program:
    one sentence with what was tried and what to do. Safe to run in several processes at once: one works, the others wait.
    """
    programs = pinned_programs() if programs is None else programs
    paths = _assets(environ, [program for program in programs if program.of_control_plane], report)
    cache = Cache(cache_folder(environ))
    wanted = [program for program in programs if program.name not in paths]
    if any(cache.fault(program) for program in wanted):
        with cache.lock(report):
            maker = _Maker(
                cache, releases or Releases(host_platform()), gobuild or GoBuild(user_cache(environ), host_platform(), environ), report
            )
            maker.make([program for program in wanted if cache.fault(program)])
    return Binaries({**paths, **{program.name: cache.path(program) for program in wanted}})


def _assets(environ: Mapping[str, str], programs: Sequence[Program], report: Report) -> dict[str, Path]:
    """The programs in the folder that KUBEBUILDER_ASSETS names (envtest has only some), those of another Kubernetes minor left out."""
    folder = environ.get("KUBEBUILDER_ASSETS", "")
    if not folder:
        return {}
    if not Path(folder).is_dir():
        msg = f"KUBEBUILDER_ASSETS is {folder}, which is no folder: unset it or correct it"
        raise LocalKubeError(msg)
    found = {}
    for program in programs:
        path = Path(folder).absolute() / program.name
        if not (path.is_file() and os.access(path, os.X_OK)):
            continue
        said = version_of(program, path)
        # controllers may not be newer than the API server, so all programs of Kubernetes are of one minor; any etcd 3 will do
        wanted = ".".join(program.version.split(".")[: 2 if program.of_kubernetes else 1])
        if re.search(rf"{re.escape(wanted)}\.", said if program.of_kubernetes else f"v{said.partition('Version: ')[2]}"):
            found[program.name] = path
        else:
            report(f"{path} is not used: it is not {wanted}, but {said.splitlines()[0] if said else 'silent about its version'}")
    return found


class _Maker:
    """Fetches or builds programs into the cache, whose lock is held."""

    def __init__(self, cache: Cache, releases: Releases, gobuild: GoBuild, report: Report) -> None:
        self._cache, self._releases, self._gobuild, self._report = cache, releases, gobuild, report

    def make(self, programs: Sequence[Program]) -> None:
        """Make each of ``programs``, saying first what is wrong with those that were there but not usable."""
        total = sum(program.build_seconds for program in programs)
        begun = Step(f"programs into {self._cache.folder}", number=0, of=len(programs), expected_s=None, report=quiet, terminal=None)
        for number, program in enumerate(programs, 1):
            fault = self._cache.fault(program)
            if fault and not self._cache.missing(program):
                self._report(f"{self._cache.path(program)} {fault}; making it again")
            if number == 1:
                self._report(f"programs are made once, in {self._cache.folder} (built from source: about {clock(total)})")
            self._make(program, number, len(programs))
        self._report(f"{len(programs)} programs ready after {clock(begun.seconds)}")

    def _make(self, program: Program, number: int, of: int) -> None:
        why_not = self._fetch(program, number, of)
        if why_not is None:
            return
        try:
            go = self._gobuild.go(program.go)
        except NotHadError as error:
            msg = (
                f"{program.name} {program.version} is not to be had: {why_not}; {error}. Install Go, connect to the network once, "
                "or set KUBEBUILDER_ASSETS to a folder that has it"
            )
            raise LocalKubeError(msg) from error
        staged = self._cache.staging(program)
        step = self._step(f"building {program.name} {program.version} with {go}", number, of, program.build_seconds)
        try:
            self._gobuild.build(program, staged, self._cache.folder / f"{program.name}.build.log", step.tick)
            self._cache.keep(program, staged)
        except BaseException as error:
            staged.unlink(missing_ok=True)
            step.end("failed" if isinstance(error, LocalKubeError) else "interrupted; the next run goes on from there,")
            raise
        step.end("done")

    def _fetch(self, program: Program, number: int, of: int) -> str | None:
        """None when the program came from its official release, else why not. Says nothing where there is no way out: most have Go then."""
        if not program.of_control_plane:
            return "it is only built from source"
        if not self._releases.reachable(program):
            return "its release page does not answer"
        staged = self._cache.staging(program)
        step = self._step(f"fetching {program.name} {program.version}", number, of, None, terminal_only=True)
        try:
            self._releases.fetch(program, staged, step.tick)
            self._cache.keep(program, staged)
        except (NotHadError, LocalKubeError) as error:
            staged.unlink(missing_ok=True)
            return str(error)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        self._report(f"[{number}/{of}] {program.name} {program.version}: fetched in {clock(step.seconds)}")
        return None

    def _step(self, text: str, number: int, of: int, expected_s: float | None, *, terminal_only: bool = False) -> Step:
        report = quiet if terminal_only else self._report
        return Step(text, number=number, of=of, expected_s=expected_s, report=report, terminal=terminal_of(self._report))
