"""TLS towards the API server, by the files that the kubeconfig or the service account names; read again when these were rotated."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightkube.config.client_adapter import verify_cluster
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

if TYPE_CHECKING:
    import ssl

    from lightkube.config.kubeconfig import SingleConfig

UNREADABLE = (OSError, ValueError, ConfigError)
"""What reading a file may raise; ssl.SSLError is an OSError."""


class Trust:
    """Whom this process trusts, and the certificate by which it is known."""

    def __init__(self, config: SingleConfig) -> None:
        """Read the files. Raises one of `UNREADABLE`."""
        self._config, self._user = config, config.user or User()
        self._read_at = self._state()
        self._context = self._read()

    @property
    def is_outdated(self) -> bool:
        """Whether a file is another one than when they were read last."""
        return self._state() != self._read_at

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now; while they cannot be read, as they were."""
        if self.is_outdated:
            state = self._state()
            with suppress(*UNREADABLE):  # the kubelet may be about to bring them up to date
                self._context, self._read_at = self._read(), state
        return self._context

    def _read(self) -> ssl.SSLContext:
        return verify_cluster(self._config.cluster, self._user, self._config.abs_file, trust_env=False)

    def _state(self) -> list[tuple[int, int] | None]:
        """Return what tells the files from other versions of them; None stands for one that is not there."""
        names = (self._config.cluster.certificate_auth, self._user.client_cert, self._user.client_key)
        return [_version(Path(self._config.abs_file(name))) for name in names if name]


def _version(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
