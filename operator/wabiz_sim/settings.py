"""The settings of a component: read once from its environment at the start. Frozen."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .database import Database
from .resolve import split_host_port

MESSAGING_PORT = 6250
CONTACTS_PORT = 6251
CONTROL_PORT = 6252
HEALTHCHECK_PORT = 6253
WEBAPP_PORT = 8443
UPSTREAM_PORT = 8080

VARIABLES = (
    ("POD_NAME POD_UID POD_IP", "from the downward API (name and address: this machine's when unset)"),
    ("WABIZ_CLUSTER", "the cluster's name (acme)"),
    ("WABIZ_LISTEN", "the address to bind (::, all IPv6 and IPv4 addresses)"),
    ("WABIZ_UPSTREAM", "name:port of the upstream (<cluster>-simulator:8080)"),
    ("WABIZ_STATE_DIR", "a folder for durable state (Coreapp, upstream)"),
    ("WABIZ_TLS_DIR", "a folder with tls.crt and tls.key (Webapp); a self-signed certificate is generated when unset, like the vendor's"),
    ("WABIZ_SHARD_SERVICE", "the name of a shard's Service (<cluster>-shard-{shard})"),
    ("WABIZ_RESTART_SECONDS", "the downtime of a Coreapp after Set Shards (45; the vendor's is 45 to 60)"),
    ("WABIZ_CC WABIZ_PHONE", "the number that Set Shards must name (any when unset)"),
    ("WABIZ_REGISTERED_AT", "when this number was registered, RFC 3339 (the first start when unset)"),
    ("WA_API_KEY", "a key for the health API (none)"),
    ("WA_DB_* WABIZ_DB_TLS_DIR", "the upstream's PostgreSQL (SQLite in the state folder when none is set)"),
)
"""Names, with their meaning and default, as ``--help`` shows them."""


class SettingsError(ValueError):
    """A variable is missing or invalid; the message names it and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of all three components; each uses its own part.

    ``VARIABLES`` says what each is for. Times are seconds.
    """

    pod_name: str
    pod_uid: str
    pod_ip: str
    cluster: str = "acme"
    listen: str = "::"
    upstream: tuple[str, int] = ("acme-simulator", UPSTREAM_PORT)
    state_dir: Path | None = None
    tls_dir: Path | None = None
    shard_service: str = "acme-shard-{shard}"
    restart_seconds: float = 45.0
    country_code: str = ""
    phone_number: str = ""
    registered_at: datetime | None = None
    api_key: str = field(default="", repr=False)
    database: Database | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Settings":
        """Read all variables of VARIABLES.

        Raises SettingsError.
        """
        cluster = env.get("WABIZ_CLUSTER", "") or "acme"
        shard_service = env.get("WABIZ_SHARD_SERVICE", "") or f"{cluster}-shard-{{shard}}"
        if "{shard}" not in shard_service:
            msg = f"WABIZ_SHARD_SERVICE={shard_service!r} has no {{shard}} in it; set it to something like {cluster}-shard-{{shard}}"
            raise SettingsError(msg)
        try:
            upstream = split_host_port(env.get("WABIZ_UPSTREAM", "") or f"{cluster}-simulator:{UPSTREAM_PORT}")
        except ValueError as error:
            msg = f"WABIZ_UPSTREAM: {error}; set it to something like {cluster}-simulator:{UPSTREAM_PORT}"
            raise SettingsError(msg) from None
        try:
            database = Database.from_env(env)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        return cls(
            pod_name=env.get("POD_NAME", "") or socket.gethostname(),
            pod_uid=env.get("POD_UID", "") or env.get("POD_NAME", "") or socket.gethostname(),
            pod_ip=_address("POD_IP", env.get("POD_IP", "") or "127.0.0.1"),
            cluster=cluster,
            listen=_address("WABIZ_LISTEN", env.get("WABIZ_LISTEN", "") or "::"),
            upstream=upstream,
            state_dir=_folder(env.get("WABIZ_STATE_DIR", "")),
            tls_dir=_folder(env.get("WABIZ_TLS_DIR", "")),
            shard_service=shard_service,
            restart_seconds=_seconds("WABIZ_RESTART_SECONDS", env.get("WABIZ_RESTART_SECONDS", "") or "45"),
            country_code=_digits("WABIZ_CC", env.get("WABIZ_CC", "")),
            phone_number=_digits("WABIZ_PHONE", env.get("WABIZ_PHONE", "")),
            registered_at=_instant("WABIZ_REGISTERED_AT", env.get("WABIZ_REGISTERED_AT", "")),
            api_key=env.get("WA_API_KEY", ""),
            database=database,
        )

    def state_folder(self) -> Path:
        """Return the folder for durable state; it is created if missing.

        Raises SettingsError when none is set or it cannot be made.
        """
        if self.state_dir is None:
            msg = "WABIZ_STATE_DIR is not set; set it to a folder that survives the container (an emptyDir or a claim)"
            raise SettingsError(msg)
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"WABIZ_STATE_DIR={self.state_dir}: {error.strerror}; mount a folder there that this user can write"
            raise SettingsError(msg) from None
        return self.state_dir


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


def _address(name: str, text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        msg = f"{name}={text!r} is not an IP address"
        raise SettingsError(msg) from None
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        msg = f"{name}={text!r} is not a number of seconds from 0 to 3600"
        raise SettingsError(msg)
    return seconds


def _digits(name: str, text: str) -> str:
    if text and not (text.isascii() and text.isdigit()):
        msg = f"{name}={text!r} may hold digits only, without a plus sign or blanks"
        raise SettingsError(msg)
    return text


def _instant(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{name}={text!r} is not a time like 2025-10-01T12:00:00Z"
        raise SettingsError(msg) from None
    if instant.tzinfo is None:
        msg = f"{name}={text!r} names no time zone; write it like 2025-10-01T12:00:00Z"
        raise SettingsError(msg)
    return instant
