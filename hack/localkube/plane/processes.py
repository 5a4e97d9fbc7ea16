"""Child processes: started, distinguished from others with the same pid, and ended; nothing about Kubernetes is known here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from localkube.errors import LocalKubeError
from localkube.files import write_json

POLL_SECONDS = 0.02
START_SECONDS = 30.0
PAUSE_SECONDS = 5.0
END_SECONDS = 1.0
"""How long to wait for a process's exit status: a process that counts as ended may still have threads that are ending."""

# Run in the new process before the program: PR_SET_PDEATHSIG (1) has the kernel send SIGKILL (9) when the thread that started it ends.
# A parent that died before the call is caught by comparing the parent's pid. exec keeps the setting.
_LEASH = (
    "import ctypes,os,sys; ctypes.CDLL(None).prctl(1,9); os.getppid()==int(sys.argv[1]) or os._exit(1); os.execv(sys.argv[2],sys.argv[2:])"
)


@dataclass
class Process:
    """One process by pid and start time, so that another process that got its pid later is never touched."""

    name: str
    pid: int
    started: int  # clock ticks since boot, field 22 of /proc/<pid>/stat
    boot: str  # id of the boot those ticks count from
    log: Path
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)  # only in the process that started it

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        if self.child is not None and self.child.poll() is not None:
            return False
        stat = _stat(self.pid)
        return stat is not None and stat == ("running", self.started) and self.boot == _boot()

    def exit_text(self) -> str:
        """How it ended, for a sentence: ``exited with status 1``, ``was ended by signal 9`` or ``ended``."""
        code: int | None = None
        if self.child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self.child.wait(END_SECONDS)
        if code is None:
            return "ended"
        return f"exited with status {code}" if code >= 0 else f"was ended by signal {-code}"

    def is_paused(self) -> bool:
        """Whether a signal has stopped all its threads."""
        return is_paused(self.pid)

    def pause(self) -> None:
        """Stop it with SIGSTOP, and return when it is stopped. LocalKubeError when it has ended."""
        if not self.signal(signal.SIGSTOP):
            raise LocalKubeError(f"{self.name} cannot be paused: it has ended")
        wait_until_paused([self.pid])

    def resume(self) -> None:
        """Undo `pause`."""
        self.signal(signal.SIGCONT)

    def processor_seconds(self) -> float:
        """User and system time that all its threads have used so far; 0 when it is gone."""
        fields = _fields(Path(f"/proc/{self.pid}"))
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0

    def ended_within(self, seconds: float) -> bool:
        """Wait until it has ended, at most this long; return whether it has."""
        ended = not _wait([self], seconds)
        if ended and self.child is not None:
            self.child.wait(END_SECONDS)  # this takes its exit status
        return ended

    def last_lines(self, count: int = 6) -> str:
        """The last ``count`` lines of its log, for an error message."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 16384))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(line[:400] for line in lines[-count:]) or "(its log is empty)"

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it is gone."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def start(
    name: str, argv: Sequence[str | Path], *, folder: Path, log: Path, env: Mapping[str, str] | None = None, leashed: bool = True
) -> Process:
    """Start ``argv`` in ``folder`` with output appended to ``log``. LocalKubeError when it cannot be started.

    A leashed process dies with this Python process, however that ends. Others may outlive it.
    """
    words = [str(word) for word in argv]
    return _starter(os.getpid()).submit(_start, name, words, folder=folder, log=log, env=env, leashed=leashed).result(START_SECONDS)


@cache
def _starter(_: int) -> ThreadPoolExecutor:
    """What starts the processes of a Python process: one thread, for the kernel ties a leash to the thread. It ends with Python."""
    return ThreadPoolExecutor(1, "starter")


def _start(name: str, argv: list[str], *, folder: Path, log: Path, env: Mapping[str, str] | None, leashed: bool) -> Process:
    if not os.access(argv[0], os.X_OK):
        raise LocalKubeError(f"{name} cannot be started: {argv[0]} is not there or not executable")
    if leashed:
        argv = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *argv]
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    stat = _stat(child.pid)
    return Process(name, child.pid, stat[1] if stat else 0, _boot(), log, child)


def stop(processes: Iterable[Process], *, grace: float = 5.0) -> list[Process]:
    """End exactly these processes: SIGTERM, and SIGKILL for those left after ``grace`` seconds. Returns those that had to be killed."""
    everyone = list(processes)
    left = [process for process in everyone if process.signal(signal.SIGTERM)]
    for process in left:
        process.signal(signal.SIGCONT)  # a stopped process handles no SIGTERM before it is continued
    left = _wait(left, grace)
    for process in left:
        process.signal(signal.SIGKILL)
    survivors = _wait(left, 5.0)
    if survivors:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in survivors)
        raise LocalKubeError(f"{names} did not end within 5 s of SIGKILL: check the machine's disk, then end it by hand")
    for process in everyone:
        process.ended_within(END_SECONDS)
    return left


def is_paused(pid: int) -> bool:
    """Whether a signal has stopped all threads of a process; False when it has ended."""
    try:
        return all(_fields(thread)[:1] == ["T"] for thread in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


def wait_until_paused(pids: Iterable[int]) -> None:
    """Wait until these processes, which were sent SIGSTOP, have stopped or ended: on a busy machine they still answer for a while.

    LocalKubeError if one still runs after 5 s.
    """
    left, deadline = list(pids), time.monotonic() + PAUSE_SECONDS
    while left := [pid for pid in left if (_stat(pid) or ("dead",))[0] == "running" and not is_paused(pid)]:
        if time.monotonic() > deadline:
            raise LocalKubeError(f"the processes {left} did not stop within {PAUSE_SECONDS:g} s of SIGSTOP")
        time.sleep(POLL_SECONDS)


class EarlyEndError(LocalKubeError):
    """A process ended before it had done what was awaited; the text ends with its last lines."""


def wait_until(done: Callable[[], bool], watched: Sequence[Process], what: str, deadline: float) -> None:
    """Wait for the last of these processes, ``what`` being what it is to do.

    EarlyEndError as soon as any of them has ended, LocalKubeError at the deadline (by time.monotonic).
    """
    while not done():
        last = watched[-1]
        for process in watched:
            if not process.alive():
                where = f"while waiting for {last.name} {what}; the end of {process.log}"
                raise EarlyEndError(f"{process.name} {process.exit_text()} {where}:\n{process.last_lines()}")
        if time.monotonic() > deadline:
            raise LocalKubeError(f"waited too long for {last.name} {what}; the end of {last.log}:\n{last.last_lines()}")
        time.sleep(POLL_SECONDS)


def save(path: Path, processes: Iterable[Process]) -> None:
    """Write the processes to ``path`` in one step, so that another command can find and end them."""
    write_json(path, [{"name": p.name, "pid": p.pid, "started": p.started, "boot": p.boot, "log": str(p.log)} for p in processes])


def load(path: Path) -> list[Process]:
    """The processes that ``save`` wrote; none if the file is not there. LocalKubeError if it cannot be understood."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [Process(str(r["name"]), int(r["pid"]), int(r["started"]), str(r["boot"]), Path(r["log"])) for r in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LocalKubeError(f"{path} does not say which processes run ({error}): end them by hand, then remove {path.parent}") from error


def _wait(processes: list[Process], seconds: float) -> list[Process]:
    """Those of ``processes`` that still run after at most ``seconds``."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if process.alive()]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [process for process in left if process.alive()]
    return left


def _stat(pid: int) -> tuple[str, int] | None:
    """("running" or "dead", start time in ticks since boot) of a pid, None when there is none."""
    fields = _fields(Path(f"/proc/{pid}"))
    return (("dead" if fields[0] in "ZX" else "running"), int(fields[19])) if fields else None


def _fields(process: Path) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on (`proc(5)`), or those of one thread; none when there is no such process."""
    try:
        text = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
