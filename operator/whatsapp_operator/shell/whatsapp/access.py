"""How the API of one cluster is reached: addresses and credentials, as values. They load no HTTP client."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Addresses and credentials of the API of one cluster. Its repr shows nothing secret."""

    addresses: tuple[str, ...]
    """Ready Webapps, ``ip:port``."""
    server_name: str
    """Name in their certificate."""
    authority: str | None = field(default=None, repr=False)
    """PEM of the authority; None: the system's."""
    verifies: bool = True
    """Whether the certificate is checked at all."""
    username: str = field(default="admin", repr=False)
    password: str = field(default="", repr=False)
    initial_password: str = field(default="", repr=False)
    tls_secret: str = ""
    """Name of the Secret with the Webapps' certificate."""
    problem: str | None = None
    """What is wrong with a Secret that is needed to reach them; nothing is sent then."""
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """Values of Secrets that the client may know, and that are masked in its texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What Set Shards sends in addition to the number. Its repr shows nothing secret."""

    country_code: str = ""
    phone_number: str = ""
    pin: str | None = field(default=None, repr=False)
    certificate: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    secret_version: str | None = None
    pin_digest: str | None = None
