"""An OCI runtime that asks for no capability which this machine lacks: it corrects what Docker wrote, then becomes runc.

Docker gives privileged containers every capability that the kernel knows. Where the machine itself lacks one, runc fails with "unable to
apply caps". Stands alone, on the standard library: Docker starts it for every container, with ``runc``'s path before the arguments.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# linux/capability.h, by number
NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN
    NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON
    BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905 - a list of forty lines reads worse
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
BARE_FLAGS = {"--debug", "--systemd-cgroup", "--help", "--version", "-h", "-v"}
"""runc's options that take no value; what follows any other one is its value."""


def missing(status: str | None = None) -> frozenset[str]:
    """The capabilities, such as ``CAP_SYS_RESOURCE``, that the bounding set in ``status`` lacks: the text of /proc/self/status."""
    status = Path("/proc/self/status").read_text(encoding="ascii") if status is None else status
    bounding = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:")), None)
    if bounding is None:
        return frozenset()
    return frozenset(f"CAP_{name}" for number, name in enumerate(NAMES) if not bounding >> number & 1)


def asked(args: Sequence[str]) -> tuple[Path, bool] | None:
    """(file that says what is to run, whether it is a whole configuration and not one process) of a runc command line, None for others."""
    words = iter(args)
    command = ""
    for word in words:
        if not word.startswith("-"):
            command = word
            break
        if word not in BARE_FLAGS and "=" not in word:
            next(words, None)
    rest = list(words)
    if command in {"create", "run"}:
        return Path(_option(rest, ("--bundle", "-b")) or ".") / "config.json", True
    process = _option(rest, ("--process", "-p")) if command == "exec" else None
    return (Path(process), False) if process else None


def without(content: dict[str, Any], names: frozenset[str], *, whole: bool) -> dict[str, Any]:
    """``content``, a configuration (``whole``) or one process in OCI's words, without the capabilities ``names``."""
    process = content.get("process") if whole else content
    capabilities = (process or {}).get("capabilities") or {}
    for each in SETS:
        if isinstance(capabilities.get(each), list):
            capabilities[each] = [name for name in capabilities[each] if name not in names]
    return content


def main(argv: Sequence[str]) -> None:
    """Correct the file that the arguments name and become the real runtime, ``argv[0]``."""
    runc, *args = argv
    found, names = asked(args), missing()
    if found is not None and names:
        path, whole = found
        content = without(json.loads(path.read_text(encoding="utf-8")), names, whole=whole)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(path)
    os.execv(runc, [runc, *args])  # noqa: S606 - becoming it, without a shell, is the whole purpose


def _option(args: Sequence[str], names: tuple[str, ...]) -> str | None:
    for number, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(args[number + 1 :]), None)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
