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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from localkube.programs.versions import Program

# Kubernetes documents both ("Download Kubernetes"): each program by itself, its checksum in a file beside it.
KUBERNETES_URL = "https://dl.k8s.io/release/{version}/bin/{os}/{arch}/{name}"
# etcd's release page: an archive per platform and one list of checksums.
ETCD_URL = "https://github.com/etcd-io/etcd/releases/download/{version}"

CHECKSUM_SECONDS = 6.0  # names, connection and answer; a machine without a way out must not wait long
STALL_SECONDS = 20.0  # without a byte of the program
PROGRAM_SECONDS = 900.0

T = TypeVar("T")


class NotHadError(Exception):
    """This source cannot give the program; the text says why, in words that fit after a colon."""


@dataclass
class Releases:
    """The download pages. A host that did not answer once is not asked again."""

    platform: tuple[str, str]  # operating system, architecture
    kubernetes_url: str = KUBERNETES_URL
    etcd_url: str = ETCD_URL
    checksum_seconds: float = CHECKSUM_SECONDS
    _silent: dict[str, str] = field(default_factory=dict)

    def reachable(self, program: Program) -> bool:
        """Whether the page that has the program was not yet found silent."""
        return self._page(program) not in self._silent

    def fetch(self, program: Program, staged: Path, tick: Callable[[], None]) -> None:
        """Write the program to ``staged``, calling ``tick`` meanwhile. NotHadError if there is no way to it or its checksum is wrong."""
        page = self._page(program)
        if page in self._silent:
            raise NotHadError(self._silent[page])
        os, arch = self.platform
        if program.of_kubernetes:
            url = self.kubernetes_url.format(version=program.version, os=os, arch=arch, name=program.name)
            digest = self._checksum(page, f"{url}.sha256").split()[0]
            self._download(url, staged, digest, tick)
            return
        base = self.etcd_url.format(version=program.version)
        name = f"etcd-{program.version}-{os}-{arch}"
        sums = (line.split() for line in self._checksum(page, f"{base}/SHA256SUMS").splitlines())
        digest = next((words[0] for words in sums if len(words) == 2 and words[1] == f"{name}.tar.gz"), "")
        if not digest:
            msg = f"{base}/SHA256SUMS does not list {name}.tar.gz"
            raise NotHadError(msg)
        archive = staged.with_suffix(".tar.gz")
        try:
            self._download(f"{base}/{name}.tar.gz", archive, digest, tick)
            with tarfile.open(archive) as content, staged.open("wb") as program_file:
                member = content.extractfile(f"{name}/etcd")
                if member is None:
                    msg = f"{name}.tar.gz has no etcd in it"
                    raise NotHadError(msg)
                while block := member.read(1 << 20):
                    program_file.write(block)
        except (tarfile.TarError, KeyError) as error:
            msg = f"{name}.tar.gz cannot be unpacked ({error})"
            raise NotHadError(msg) from error
        finally:
            archive.unlink(missing_ok=True)

    def _page(self, program: Program) -> str:
        return (self.kubernetes_url if program.of_kubernetes else self.etcd_url).split("/{", 1)[0]

    def _checksum(self, page: str, url: str) -> str:
        """The text of a small file, or NotHadError in a few seconds; then the page counts as silent."""
        try:
            text = _within(self.checksum_seconds, lambda: _text(url, self.checksum_seconds))
        except (OSError, http.client.HTTPException, UnicodeDecodeError, TimeoutError) as error:
            self._silent[page] = f"{page} gave no answer ({_reason(error)})"
            raise NotHadError(self._silent[page]) from error
        if not text.split() or len(text.split()[0]) != 64:
            self._silent[page] = f"{url} is no SHA-256 checksum"
            raise NotHadError(self._silent[page])
        return text

    def _download(self, url: str, path: Path, digest: str, tick: Callable[[], None]) -> None:
        seen = hashlib.sha256()
        deadline = time.monotonic() + PROGRAM_SECONDS
        try:
            with _open(url, STALL_SECONDS) as answer, path.open("wb") as target:
                while block := answer.read(1 << 18):
                    seen.update(block)
                    target.write(block)
                    tick()
                    if time.monotonic() > deadline:
                        msg = f"{url} took longer than {PROGRAM_SECONDS:g} s"
                        raise NotHadError(msg)
        except (OSError, http.client.HTTPException) as error:
            msg = f"{url} broke off ({_reason(error)})"
            raise NotHadError(msg) from error
        if seen.hexdigest() != digest.lower():
            path.unlink(missing_ok=True)
            msg = f"{url} does not have the SHA-256 that its project publishes"
            raise NotHadError(msg)


def _open(url: str, timeout: float) -> IO[bytes]:
    try:
        answer: IO[bytes] = urllib.request.urlopen(url, timeout=timeout)  # noqa: S310 - fixed https addresses above
    except urllib.error.HTTPError as error:
        error.close()  # it is an open answer
        raise
    return answer


def _text(url: str, timeout: float) -> str:
    with _open(url, timeout) as answer:
        return answer.read(1 << 20).decode("ascii")


def _within(seconds: float, work: Callable[[], T]) -> T:
    """The result of ``work``, or TimeoutError: looking up a name knows no timeout of its own."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # handed to the caller
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not result:
        msg = f"nothing within {seconds:g} s"
        raise TimeoutError(msg)
    return result[0]


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    reason = getattr(error, "reason", error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
