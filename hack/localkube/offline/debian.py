"""Small root file systems from Debian's packages, for images where no registry is reached: archives in the cache, by content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.run import logged, output

SUITE = "bookworm"
SUITES = {"bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
"""Debian's; a mirror that has one of them has those used here. Other distributions and other projects' repositories have others."""
BUILD_SECONDS = 1800.0
BULK = (
    "rm -rf usr/share/doc/* usr/share/man/* usr/share/info/* usr/share/locale/* "
    "var/lib/apt/lists/* var/cache/apt/*.bin var/cache/apt/archives/*.deb"
)
STRANGE = "rm -f etc/resolv.conf etc/hostname"
"""debootstrap copies them from this machine; an image must not carry them."""


@dataclass(frozen=True)
class Root:
    """One root file system: its packages besides the smallest Debian, and what a shell does in it afterwards."""

    name: str
    packages: tuple[str, ...]
    expected_s: int  # on 2 cores, measured; only for the progress line
    after: str = "true"

    @property
    def key(self) -> str:
        """Stands for all that it is made from."""
        text = json.dumps([SUITE, self.packages, self.after, BULK, STRANGE])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def archive(self, cache: Path) -> Path:
        """Where the archive is, or will be."""
        return cache / f"debian-{self.name}-{self.key}.tar"


NODE = Root(
    "node",
    (
        *("systemd", "dbus", "runc", "containernetworking-plugins", "conntrack", "iptables", "nftables", "iproute2", "iputils-ping"),
        *("ethtool", "util-linux", "mount", "kmod", "libseccomp2", "pigz", "e2fsprogs", "bash", "ca-certificates", "curl", "jq"),
        *("procps", "hostname"),
    ),
    60,
)
PROXY = Root("kube-proxy", ("iptables", "nftables", "conntrack", "ipset", "kmod", "iproute2"), 35)
PYTHON = Root("python", ("python3", "python3-venv", "ca-certificates"), 43)
POSTGRES = Root(
    "postgres",
    ("postgresql-15",),
    43,
    # the numbers that the usual image has
    after="chroot . sh -c 'groupmod -g 999 postgres && usermod -u 999 -g 999 postgres' && rm -rf var/lib/postgresql/15",
)


def mirror() -> str | None:
    """The first mirror of Debian's main packages that apt is configured with; None if there is none, or no apt."""
    argv = ["apt-get", "indextargets", "--no-release-info", "--format=$(SITE) $(RELEASE)", "Created-By: Packages", "Component: main"]
    with contextlib.suppress(LocalKubeError):
        targets = (line.rpartition(" ") for line in output(argv).splitlines())
        return next((url for url, _, suite in targets if suite in SUITES), None)
    return None


def make(root: Root, cache: Path, url: str) -> Path:
    """The archive of ``root``, built by debootstrap from the mirror ``url`` unless it is there. Takes root's rights.

    LocalKubeError with the end of debootstrap's words if it fails.
    """
    target = root.archive(cache)
    if target.exists():
        return target
    log, debs = cache / f"debian-{root.name}.log", cache / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{root.name}-") as work:
        folder, partial = Path(work) / "root", Path(work) / "root.tar"
        for argv in (
            ["debootstrap", "--variant=minbase", f"--cache-dir={debs}", f"--include={','.join(root.packages)}", SUITE, str(folder), url],
            ["sh", "-euc", f"cd {folder}; {root.after}; {BULK}; {STRANGE}"],
            ["tar", "--numeric-owner", "--one-file-system", "--exclude=./dev/*", "-C", str(folder), "-cf", str(partial), "."],
        ):
            what = f"{argv[0]} of the Debian root file system {root.name!r} from {url}"
            logged(argv, what=what, log=log, env=env, timeout=BUILD_SECONDS)
        for old in cache.glob(f"debian-{root.name}-*.tar"):
            old.unlink()
        partial.replace(target)
    return target
