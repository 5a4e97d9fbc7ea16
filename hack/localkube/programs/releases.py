"""The projects' official release archives: fetched where the network allows, kept only if their published SHA-256 fits."""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from localkube.programs.versions import Program

# Kubernetes documents both ("Download Kubernetes"): each program by itself, its checksum in a file next to it.
KUBERNETES_URL = "https://dl.k8s.io/release/{version}/bin/{os}/{arch}/{name}"
# etcd's release page: an archive per platform and one list of checksums.
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download/{version}"

CHECKSUM_SECONDS = 6.0  # names, connection and answer; a machine without a way out must not wait long
STALL_SECONDS = 20.0  # without a byte of the program
PROGRAM_SECONDS = 900.0


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
            msg = "it is only built from source"
            raise NotHadError(msg)
        os, arch = self.platform
        if program.of_kubernetes:
            url = self.kubernetes_url.format(version=program.version, os=os, arch=arch, name=program.name)
            return Release(url, self._checksums(f"{url}.sha256").split()[0])
        base, name = self.etcd_url.format(version=program.version), f"etcd-{program.version}-{os}-{arch}"
        lines = map(str.split, self._checksums(f"{base}/SHA256SUMS").splitlines())
        digests = {words[1]: words[0] for words in lines if len(words) == 2}
        if f"{name}.tar.gz" not in digests:
            msg = f"{base}/SHA256SUMS does not list {name}.tar.gz"
            raise NotHadError(msg)
        return Release(f"{base}/{name}.tar.gz", digests[f"{name}.tar.gz"], f"{name}/etcd")

    def _checksums(self, url: str) -> str:
        """The text of a small file, or NotHadError in a few seconds; then its host counts as silent."""
        host = url.split("/", 3)[2]
        if host not in self._silent:
            try:
                text = _within(self.checksum_seconds, lambda: _text(url, self.checksum_seconds))
                if len(text.split(maxsplit=1)[0]) == 64:
                    return text
                self._silent[host] = f"{url} is no SHA-256 checksum"
            except (OSError, http.client.HTTPException, UnicodeDecodeError, IndexError) as error:
                self._silent[host] = f"{url.partition(':')[0]}://{host} gave no answer ({_reason(error)})"
        raise NotHadError(self._silent[host])


def download(release: Release, staged: Path, tick: Callable[[], None]) -> None:
    """Write the program to ``staged``, calling ``tick`` meanwhile. NotHadError if it breaks off or its checksum is wrong."""
    path = staged.with_suffix(".download")
    try:
        if _fetched(release.url, path, tick) != release.digest.lower():
            msg = f"{release.url} does not have the SHA-256 that its project publishes"
            raise NotHadError(msg)
        if not release.member:
            path.replace(staged)
            return
        with tarfile.open(path) as archive:
            archive.extract(archive.getmember(release.member).replace(name=staged.name), staged.parent, filter="data")
    except (OSError, http.client.HTTPException, tarfile.TarError, KeyError) as error:
        msg = f"{release.url} broke off or cannot be unpacked ({_reason(error)})"
        raise NotHadError(msg) from error
    finally:
        path.unlink(missing_ok=True)


def _fetched(url: str, path: Path, tick: Callable[[], None]) -> str:
    """Write what ``url`` gives to ``path``; returns its SHA-256."""
    digest, deadline = hashlib.sha256(), time.monotonic() + PROGRAM_SECONDS
    with urllib.request.urlopen(url, timeout=STALL_SECONDS) as answer, path.open("wb") as target:  # noqa: S310 - fixed https addresses
        while block := answer.read(1 << 18):
            digest.update(block)
            target.write(block)
            tick()
            if time.monotonic() > deadline:
                msg = f"nothing whole within {PROGRAM_SECONDS:g} s"
                raise TimeoutError(msg)
    return digest.hexdigest()


def _text(url: str, timeout: float) -> str:
    with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - fixed https addresses
        text: str = answer.read(1 << 20).decode("ascii")
    return text


def _within(seconds: float, work: Callable[[], str]) -> str:
    """The result of ``work``, or TimeoutError: looking up a name knows no time-out of its own."""
    result: Future[str] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # handed to the caller
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(seconds)


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is an open answer
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
