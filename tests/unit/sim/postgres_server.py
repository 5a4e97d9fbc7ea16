"""A PostgreSQL server for these tests, on loopback and in a folder of its own: made, restarted, frozen and removed by tests."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg

from localkube.errors import LocalKubeError
from localkube.plane import certificates
from localkube.plane.controlplane import free_ports
from localkube.plane.processes import Process, start, wait_until, wait_until_paused

ADDRESS = "127.0.0.1"
OTHER_ADDRESS = "127.0.0.2"
"""Served too, but in no certificate."""
SUPERUSER, CLIENT, PLAIN, CERTIFIED = "postgres", "wabiz", "plain", "certified"
START_SECONDS = 30.0
MEMORY, NEEDED_BYTES = "/dev/shm", 1 << 30
_SERVER_NAMES = ("postgres", "nobody")
"""PostgreSQL rejects root: it runs as the first of these users that there is."""

_ACCESS = f"""
hostssl   all {CERTIFIED} 127.0.0.0/8 scram-sha-256 clientcert=verify-ca
hostnossl all {CERTIFIED} 127.0.0.0/8 reject
host      all all         127.0.0.0/8 scram-sha-256
"""


def programs() -> Path:
    """The folder of PostgreSQL's server programs: on PATH or where Debian keeps them, the newest. LocalKubeError when there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in [*map(Path, os.get_exec_path()), *versions]:
        if all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres")):
            return folder
    msg = "PostgreSQL's server programs initdb and postgres are neither on PATH nor in /usr/lib/postgresql: apt-get install postgresql"
    raise LocalKubeError(msg)


class PostgresServer:
    """One server. ``environment`` is what a client is given; the users differ in what they may."""

    def __init__(self, found: Path) -> None:
        """Make and start it; ``found``: the folder of its programs. LocalKubeError when it cannot be made."""
        self._programs = found
        self._user = _unprivileged()
        # Becomes that user, and has the kernel send SIGQUIT (an immediate shutdown) when the thread that started it ends: the leash of
        # `start` is lost with the old user (prctl(2), PR_SET_PDEATHSIG).
        user = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups", "--pdeathsig=QUIT"]
        self._become: list[str | Path] = [shutil.which("setpriv") or "setpriv", *user] if os.getuid() == 0 else []
        # Not pytest's own folder, which no other user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="whatsapp-postgres-", dir=_memory()))
        self._prefix = ""
        (self.port,) = free_ports(1)
        self.password = f"pw-{secrets.token_hex(12)}"
        self._process: Process | None = None
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    @property
    def certificates(self) -> certificates.Certificates:
        """The authority of the server's certificate, which names localhost, and client certificates."""
        return certificates.Certificates(self.folder / "tls")

    def environment(self, *, prefix: str, user: str = CLIENT, host: str = ADDRESS, port: int | None = None) -> dict[str, str]:
        """``WA_DB_*`` for a client with databases of that prefix; those of another one, of an earlier test, are removed."""
        if prefix != self._prefix:
            self._prefix = prefix
            self._remove_databases()
        return {
            "WA_DB_ENGINE": "PGSQL",
            "WA_DB_HOSTNAME": host,
            "WA_DB_PORT": str(port or self.port),
            "WA_DB_USERNAME": user,
            "WA_DB_PASSWORD": self.password,
            "WA_DB_NAME_PREFIX": prefix,
        }

    def start(self) -> None:
        """Start and wait until it answers; LocalKubeError with the end of its log when it does not within half a minute."""
        argv: list[str | Path] = [*self._become, self._programs / "postgres", "-D", self.folder / "data"]
        self._process = start("postgres", argv, folder=self.folder, log=self.folder / "log", env={"PATH": os.defpath})
        wait_until(self._answers, [self._process], f"to answer on port {self.port}", time.monotonic() + START_SECONDS)

    def _answers(self) -> bool:
        try:
            self.admin().close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends all sessions properly, SIGQUIT at once and with a recovery at the next start."""
        process, self._process = self._process, None
        if process is None:
            return
        process.signal(how)
        _signal_family(process, signal.SIGCONT)  # a frozen one would not hear it
        if not process.ended_within(START_SECONDS):
            process.signal(signal.SIGKILL)
            msg = f"PostgreSQL did not stop within {START_SECONDS:g} s and was killed"
            raise LocalKubeError(msg)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start."""
        self.stop(how)
        self.start()

    def freeze(self) -> None:
        """Stop all its processes with SIGSTOP: connections stay, the kernel answers, the server does not."""
        wait_until_paused(_signal_family(self._process, signal.SIGSTOP))

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        _signal_family(self._process, signal.SIGCONT)

    def admin(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """A superuser's connection, in autocommit mode."""
        return psycopg.connect(
            host=ADDRESS, port=self.port, user=SUPERUSER, password=self.password, dbname=database, autocommit=True, connect_timeout=30
        )

    def _remove_databases(self) -> None:
        with self.admin() as admin:
            for (name,) in admin.execute("SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'").fetchall():
                admin.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(str(name))))

    def close(self) -> None:
        """Stop at once and remove everything."""
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        data, secret = self.folder / "data", self.folder / "password"
        secret.write_text(self.password, encoding="utf-8")
        certificates.make(self.folder / "tls", service_ip=ADDRESS)
        self.folder.chmod(0o711)
        data.mkdir(mode=0o700)
        self._own(secret, data)
        argv: list[str | Path] = [
            *self._become,
            self._programs / "initdb",
            "-D",
            data,
            "-U",
            SUPERUSER,
            f"--pwfile={secret}",
            "-A",
            "scram-sha-256",
        ]
        argv += ["-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            msg = f"initdb failed: {done.stderr.strip()[-500:]}"
            raise LocalKubeError(msg)
        for name in ("ca.crt", "server.crt", "server.key"):
            shutil.copy(self.folder / "tls" / name, data / name)
            (data / name).chmod(0o600)
            self._own(data / name)
        (data / "pg_hba.conf").write_text(_ACCESS, encoding="utf-8")
        settings = {
            "port": self.port,
            "listen_addresses": f"'{ADDRESS},{OTHER_ADDRESS}'",
            "unix_socket_directories": "''",
            "fsync": "off",  # what the kernel has outlives the server, and no test pulls the plug
            "ssl": "on",
            "ssl_ca_file": "'ca.crt'",
            "shared_buffers": "16MB",
            "max_connections": 50,
            "lc_messages": "'C'",
        }
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()
        with self.admin() as admin:
            for user, right in ((CLIENT, "CREATEDB"), (PLAIN, "NOCREATEDB"), (CERTIFIED, "CREATEDB")):
                statement = psycopg.sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
                admin.execute(statement.format(psycopg.sql.Identifier(user), psycopg.sql.SQL(right), psycopg.sql.Literal(self.password)))

    def _own(self, *paths: Path) -> None:
        for path in paths:
            shutil.chown(path, self._user.pw_uid, self._user.pw_gid)


def _signal_family(process: Process | None, number: signal.Signals) -> list[int]:
    """Signal a server and its children; return their pids."""
    if process is None or not process.signal(number):
        return []
    signalled = [process.pid]
    with suppress(OSError):  # ended meanwhile
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
            os.kill(int(child), number)
            signalled.append(int(child))
    return signalled


def _memory() -> str | None:
    """A folder in memory if there is one that is large enough: on a disk it takes seconds to make a database and to remove it."""
    return MEMORY if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free >= NEEDED_BYTES else None


def _unprivileged() -> pwd.struct_passwd:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    for name in _SERVER_NAMES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    msg = f"PostgreSQL rejects root, and there is none of the users {', '.join(_SERVER_NAMES)}: make one, or run as another user"
    raise LocalKubeError(msg)
