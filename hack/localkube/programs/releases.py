"""The projects' official release archives: fetched where the network allows it, and kept only if their published SHA-256 matches."""

from __future__ import annotations

import shutil
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.programs.cache import sha256_of
from localkube.programs.versions import Program
from localkube.run import logged, output

# Kubernetes documents both ("Download Kubernetes"): each program by itself, its checksum in a file next to it.
KUBERNETES_URL = "https://dl.k8s.io/release/{version}/bin/{os}/{arch}/{name}"
# etcd's release page: an archive per platform and one list of checksums.
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download/{version}"

CHECKSUM_SECONDS = 10.0  # names, connection and answer; a machine without a way out must not wait long
PROGRAM_SECONDS = 900.0
# in a process of its own, which can be ended: looking up a name knows no time-out; 20 s without a byte end it, too
FETCH = "import shutil, sys, urllib.request as web; shutil.copyfileobj(web.urlopen(sys.argv[1], timeout=20), open(sys.argv[2], 'wb'))"


class NotHadError(Exception):
    """This source cannot give the program; the text says why, in words that fit after a colon."""


@dataclass(frozen=True)
class Release:
    """One program on a release page: a file with a SHA-256, and which member of it when it is an archive."""

    url: str
    digest: str
    member: str = ""


@dataclass
class Releases:
    """The download pages. A host that did not answer once is not asked again."""

    platform: tuple[str, str]  # operating system, architecture
    kubernetes_url: str = KUBERNETES_URL
    etcd_url: str = ETCD_URL
    checksum_seconds: float = CHECKSUM_SECONDS
    _silent: dict[str, str] = field(default_factory=dict)

    def find(self, program: Program) -> Release:
        """Where the program is, and its published checksum. NotHadError if it is not published, or its page does not answer."""
        if not program.of_control_plane:
            raise NotHadError("it is only built from source")
        os, arch = self.platform
        if program.of_kubernetes:
            url = self.kubernetes_url.format(version=program.version, os=os, arch=arch, name=program.name)
            return Release(url, self._checksums(f"{url}.sha256").split()[0])
        base, name = self.etcd_url.format(version=program.version), f"etcd-{program.version}-{os}-{arch}"
        lines = map(str.split, self._checksums(f"{base}/SHA256SUMS").splitlines())
        digests = {words[1]: words[0] for words in lines if len(words) == 2}
        if f"{name}.tar.gz" not in digests:
            raise NotHadError(f"{base}/SHA256SUMS does not list {name}.tar.gz")
        return Release(f"{base}/{name}.tar.gz", digests[f"{name}.tar.gz"], f"{name}/etcd")

    def _checksums(self, url: str) -> str:
        """The text of a small file, or NotHadError in a few seconds; then its host counts as silent."""
        host = "/".join(url.split("/")[:3])
        if host not in self._silent:
            try:
                text = output([sys.executable, "-c", FETCH, url, "/dev/stdout"], timeout=self.checksum_seconds)
                if len(text.partition(" ")[0].strip()) == 64:
                    return text
                self._silent[host] = f"{url} is no SHA-256 checksum"
            except LocalKubeError as error:
                self._silent[host] = f"{host} gave no answer ({str(error).splitlines()[-1]})"
        raise NotHadError(self._silent[host])


def download(release: Release, staged: Path) -> None:
    """Write the program to ``staged``. NotHadError if it breaks off or its checksum is wrong."""
    path, log = staged.with_suffix(".download"), staged.with_suffix(".log")
    try:
        logged([sys.executable, "-c", FETCH, release.url, str(path)], log=log, timeout=PROGRAM_SECONDS)
        if sha256_of(path) != release.digest.lower():
            raise NotHadError(f"{release.url} does not have the SHA-256 that its project publishes")
        if not release.member:
            path.replace(staged)
            return
        with tarfile.open(path) as archive:
            # Filters of tarfile came with Python 3.11.4.
            if (content := archive.extractfile(release.member)) is None:
                raise NotHadError(f"{release.member} is no file")
            with content, staged.open("wb") as program:
                shutil.copyfileobj(content, program)
    except (LocalKubeError, tarfile.TarError, KeyError) as error:
        raise NotHadError(f"{release.url} cannot be fetched or unpacked ({str(error).splitlines()[-1]})") from error
    finally:
        path.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
