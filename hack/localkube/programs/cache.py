"""The folder that caches the programs: complete or not at all, checked at each use, one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.files import only_one, write_json
from localkube.programs.versions import Program
from localkube.progress import to_stderr
from localkube.run import output

LOCK_SECONDS = 1800.0  # a cold build on a slow machine, with room
VERSION_SECONDS = 30.0


def user_cache(environ: Mapping[str, str]) -> Path:
    """This project's folder in the user's cache directory (XDG Base Directory Specification)."""
    home = environ.get("XDG_CACHE_HOME", "")
    # the specification says to ignore a relative one
    root = Path(home) if home.startswith("/") else Path(environ.get("HOME") or Path.home()) / ".cache"
    return root / "whatsapp-operator"


@dataclass(frozen=True)
class Cache:
    """Programs in one folder, each with a note ``.<name>.json`` of its version, size, time and SHA-256, written when it is complete."""

    folder: Path

    def path(self, program: Program) -> Path:
        """Where the program is, or will be."""
        return self.folder / program.name

    def fault(self, program: Program) -> str | None:
        """None if the program is complete and of the pinned version, else what is wrong with it.

        Cheap: size and time are compared with the note, and the content only when the time differs.
        """
        path = self.path(program)
        if not path.exists():
            return "is not there"
        try:
            note = json.loads(self._note(program).read_text(encoding="utf-8"))
            version, size, mtime, digest = note["version"], note["size"], note["mtime_ns"], note["sha256"]
        except FileNotFoundError:
            return "is half-built: it has no note that says it is complete"
        except (ValueError, TypeError, KeyError):
            return "has a damaged note"
        status = path.stat()
        faults = (  # the first that holds
            (version != program.version, f"is {version}, not {program.version}"),
            (size != status.st_size, f"is damaged: {status.st_size} bytes instead of {size}"),
            (not os.access(path, os.X_OK), "is not executable"),
            (mtime != status.st_mtime_ns and sha256_of(path) != digest, "is damaged: its content has changed"),
        )
        return next((text for holds, text in faults if holds), None)

    @contextlib.contextmanager
    def staged(self, program: Program) -> Iterator[Path]:
        """Where to write the program; it is put in place as a whole after it has printed its version, and removed if anything fails.

        Hold the lock. LocalKubeError if it is not what it should be.
        """
        path, note = self.folder / f".{program.name}.partial", self._note(program)
        path.unlink(missing_ok=True)
        try:
            yield path
            path.chmod(0o755)
            version = version_of(program, path)
            if program.version_says not in version:
                raise LocalKubeError(f"{program.name} should be {program.version}, but says {version[:200]!r} when asked for its version")
            note.unlink(missing_ok=True)
            status = path.stat()
            content = {"version": program.version, "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(path)}
            path.replace(self.path(program))
            write_json(note, content)
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self, *, timeout: float = LOCK_SECONDS) -> Iterator[None]:
        """Only one process at a time fetches or builds; others wait, report it, and then find everything done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".lock").touch()
        except OSError as error:
            msg = f"the cache folder {self.folder} cannot be written ({error.strerror}): set XDG_CACHE_HOME to one that can"
            raise LocalKubeError(msg) from error
        late = f"waited {timeout:g} s for another process that works in {self.folder}: end it, then try again"
        waiting = partial(to_stderr, f"another process is fetching or building in {self.folder}; waiting for it")
        with only_one(self.folder / ".lock", late, within=timeout, waiting=waiting):
            yield

    def _note(self, program: Program) -> Path:
        return self.folder / f".{program.name}.json"


def version_of(program: Program, path: Path) -> str:
    """What the program at ``path`` says when asked for its version. LocalKubeError if it does not run."""
    return output([str(path), *program.version_args], timeout=VERSION_SECONDS, both=True).strip()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
