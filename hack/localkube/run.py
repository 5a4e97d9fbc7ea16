"""Runs a program to its end, with a deadline, and with one sentence when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localkube.errors import LocalKubeError

LONGEST = 160


def output(argv: Sequence[str], *, timeout: float = 60.0, text: str = "", env: Mapping[str, str] | None = None, both: bool = False) -> str:
    """The standard output of a program, fed with ``text``; with ``both`` standard error too.

    LocalKubeError, with the end of what it wrote, if it cannot be run, fails, or does not end within ``timeout`` seconds.
    """
    try:
        done = subprocess.run(argv, input=text, env=env, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
    except OSError as error:
        raise LocalKubeError(f"{argv[0]} cannot be run: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise LocalKubeError(f"'{_short(argv)}' did not end within {timeout:g} s") from error
    if done.returncode != 0:
        raise LocalKubeError(f"'{_short(argv)}' failed: {(done.stderr or done.stdout).strip()[-4000:]}")
    return done.stdout + done.stderr if both else done.stdout


def logged(
    argv: Sequence[str],
    *,
    log: Path,
    what: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 1200.0,
) -> None:
    """Run a program for minutes: its output goes into ``log``, and it ends with this process.

    ``env`` is added to the environment. LocalKubeError, with ``what`` and the end of the log, if it fails or takes more than ``timeout`` s.
    """
    what = what or f"'{_short(argv)}'"
    log.parent.mkdir(parents=True, exist_ok=True)
    environ, none = {**os.environ, **(env or {})}, subprocess.DEVNULL
    with log.open("wb") as stream:
        child = subprocess.Popen(argv, cwd=cwd or log.parent, env=environ, stdin=none, stdout=stream, stderr=subprocess.STDOUT)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LocalKubeError(f"{what} did not end within {timeout:g} s") from None
        finally:
            _end(child)
    if child.returncode != 0:
        # Go announces each download; the error comes after these lines
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if not line.startswith("go: downloading")]
        raise LocalKubeError(f"{what} failed; the end of {log}:\n" + ("\n".join(lines[-12:]) or "(it is empty)"))


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


def _short(argv: Sequence[str]) -> str:
    text = " ".join([Path(argv[0]).name, *argv[1:]])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
