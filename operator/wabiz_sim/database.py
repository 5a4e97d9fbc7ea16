"""The database server that the client's own variables name. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .resolve import join_host_port

CLIENT_DATABASE = "waweb"
"""The client's databases are ``<prefix>waweb`` and others (error texts in its issues); the simulator needs one."""
_NEEDED = ("WA_DB_ENGINE", "WA_DB_HOSTNAME", "WA_DB_PORT", "WA_DB_USERNAME", "WA_DB_PASSWORD")
_OPTIONAL = ("WA_DB_NAME_PREFIX", "WA_DB_PERSISTENT", "WA_DB_CONNECTION_IDLE_TIMEOUT")
_LONGEST_NAME = 63
"""Bytes of a PostgreSQL identifier."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database on a PostgreSQL server. With ``tls_dir`` connections are encrypted and the server's name is checked."""

    hostname: str
    port: int
    username: str
    password: str = field(repr=False)
    prefix: str = ""
    tls_dir: Path | None = None

    @property
    def name(self) -> str:
        """The database's name."""
        return f"{self.prefix}{CLIENT_DATABASE}"

    @property
    def place(self) -> str:
        """Where it is, for a sentence."""
        return f"database {self.name} at {join_host_port(self.hostname, self.port)}"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "Database | None":
        """Read ``WA_DB_*`` as the client documents them, and ``WABIZ_DB_TLS_DIR``; None when none of them is set.

        ``WA_DB_ENGINE`` must be PGSQL. ``WA_DB_NAME_PREFIX`` begins the database's name. ``WA_DB_PERSISTENT`` (1 or 0) and
        ``WA_DB_CONNECTION_IDLE_TIMEOUT`` (milliseconds) are only checked: the first is for the vendor's Webapps, the second for MySQL, and
        the simulator keeps one connection. ``WABIZ_DB_TLS_DIR`` is a folder with ca.crt and, for a client certificate, tls.crt and tls.key.

        Raises ValueError with a sentence that names the variable, but not its value: all of them may come from a Secret.
        """
        given = {name: env.get(name, "") for name in (*_NEEDED, *_OPTIONAL)}
        folder = env.get("WABIZ_DB_TLS_DIR", "")
        named = sorted(name for name, value in given.items() if value)
        if not named and not folder:
            return None
        if missing := [name for name in _NEEDED if not given[name]]:
            msg = f"{missing[0]} is not set, but {(named or ['WABIZ_DB_TLS_DIR'])[0]} is; set all of {', '.join(_NEEDED)}, or none"
            raise ValueError(msg)
        _check_engine(given["WA_DB_ENGINE"])
        _check_others(given)
        database = cls(
            hostname=given["WA_DB_HOSTNAME"],
            port=_port(given["WA_DB_PORT"]),
            username=given["WA_DB_USERNAME"],
            password=given["WA_DB_PASSWORD"],
            prefix=given["WA_DB_NAME_PREFIX"],
            tls_dir=Path(folder) if folder else None,
        )
        if len(database.name.encode()) > _LONGEST_NAME or not database.name.isprintable():
            longest = _LONGEST_NAME - len(CLIENT_DATABASE)
            msg = f"WA_DB_NAME_PREFIX makes no database name; it may have {longest} bytes, all printable"
            raise ValueError(msg)
        return database

    def parameters(self) -> dict[str, str]:
        """Return the connection parameters of libpq, including all that the environment or a file could otherwise change.

        Raises ValueError with a sentence when the folder of certificates lacks one.
        """
        common = {
            "host": self.hostname,
            "port": str(self.port),
            "user": self.username,
            "password": self.password,
            "client_encoding": "UTF8",
            "application_name": "wabiz_sim",
            "target_session_attrs": "read-write",
            "gssencmode": "disable",
        }
        return {**common, **(_encryption(self.tls_dir) if self.tls_dir else {"sslmode": "disable"})}


def _check_engine(engine: str) -> None:
    if engine == "PGSQL":
        return
    if engine.upper() == "MYSQL":
        msg = "WA_DB_ENGINE is MYSQL; the simulator speaks PGSQL only: name a PostgreSQL server, or none"
    else:
        msg = "WA_DB_ENGINE is unknown; the simulator speaks PGSQL only"
    raise ValueError(msg)


def _check_others(given: Mapping[str, str]) -> None:
    if given["WA_DB_PERSISTENT"] not in {"", "0", "1"}:
        msg = "WA_DB_PERSISTENT must be 1 or 0"
        raise ValueError(msg)
    idle = given["WA_DB_CONNECTION_IDLE_TIMEOUT"]
    if idle and not (idle.isascii() and idle.isdigit()):
        msg = "WA_DB_CONNECTION_IDLE_TIMEOUT is not a whole number of milliseconds"
        raise ValueError(msg)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        msg = "WA_DB_PORT is not a port from 1 to 65535"
        raise ValueError(msg)
    return int(text)


def _encryption(folder: Path) -> dict[str, str]:
    authority, certificate, key = folder / "ca.crt", folder / "tls.crt", folder / "tls.key"
    if not authority.exists():
        msg = f"WABIZ_DB_TLS_DIR={folder} has no ca.crt; put the certificate of the database's authority there"
        raise ValueError(msg)
    if certificate.exists() != key.exists():
        has, lacks = (certificate, key) if certificate.exists() else (key, certificate)
        msg = f"WABIZ_DB_TLS_DIR={folder} has {has.name} but no {lacks.name}; a client certificate needs both"
        raise ValueError(msg)
    own = {"sslcert": str(certificate), "sslkey": str(key)} if key.exists() else {}
    return {"sslmode": "verify-full", "sslrootcert": str(authority), **own}
