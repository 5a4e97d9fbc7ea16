"""Programs that the end-to-end tests run: once, with a deadline and a sentence when they fail, or kept open as a shell inside a node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from localkube.errors import LocalKubeError

RUN_S = 60.0
SHELL_S = 10.0
MOST = 2000


async def run(
    *argv: str | Path, timeout: float = RUN_S, given: str = "", env: Mapping[str, str] | None = None, may_fail: bool = False
) -> str:
    """What a program writes on standard output; ``given`` is its standard input.

    LocalKubeError with its last words when it fails (unless it may) or does not end within ``timeout`` seconds; it is killed then.
    """
    words = [str(word) for word in argv]
    try:
        child = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
    except OSError as error:
        msg = f"{words[0]} cannot be run: {error.strerror}"
        raise LocalKubeError(msg) from error
    try:
        async with asyncio.timeout(timeout):
            output, complaint = await child.communicate(given.encode())
    except TimeoutError:
        msg = f"'{_short(words)}' did not end within {timeout:g} s"
        raise LocalKubeError(msg) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0 and not may_fail:
        said = (complaint or output).decode("utf-8", "replace").strip()[-MOST:]
        msg = f"'{_short(words)}' failed with status {child.returncode}: {said}"
        raise LocalKubeError(msg)
    return output.decode("utf-8", "replace")


class NodeShell:
    """A shell inside a node that is kept open, so that a fault strikes within a millisecond and not when a new process has started."""

    def __init__(self, container: str) -> None:
        """Prepare; ``container`` is the node's name in Docker."""
        self.container = container
        self._child: asyncio.subprocess.Process | None = None
        self._one = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """It is opened by the first command, and again after the node was away."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """End the shell; the next command opens another one."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it may have started on this machine
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHELL_S):
                await child.communicate()

    async def run(self, command: str, *, timeout: float = SHELL_S) -> str:
        """What a command writes. LocalKubeError when it fails or does not end within ``timeout`` seconds."""
        async with self._one:
            child = await self._open()
            mark = secrets.token_hex(8)
            try:
                async with asyncio.timeout(timeout):
                    return await self._exchange(child, command, mark)
            except (TimeoutError, OSError) as error:
                await self.close()
                why = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else str(error)
                msg = f"'{command}' in node {self.container}: {why}"
                raise LocalKubeError(msg) from None

    async def _exchange(self, child: asyncio.subprocess.Process, command: str, mark: str) -> str:
        if child.stdin is None or child.stdout is None:
            msg = "the shell has no pipes"
            raise OSError(msg)
        child.stdin.write(f"( {command}\n) 2>&1 </dev/null; echo {mark} $?\n".encode())
        await child.stdin.drain()
        lines: list[str] = []
        while True:
            line = (await child.stdout.readline()).decode("utf-8", "replace")
            if not line:
                msg = "the shell has ended"
                raise OSError(msg)
            before, found, status = line.rpartition(mark)
            if not found:
                lines.append(line)
                continue
            output = "".join([*lines, before])
            if status.strip() != "0":
                msg = f"'{command}' in node {self.container} failed: {output.strip()[-MOST:]}"
                raise LocalKubeError(msg)
            return output

    async def _open(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            self._child = await asyncio.create_subprocess_exec(
                *("docker", "exec", "-i", self.container, "bash", "--norc"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us; nodes are put right first
            )
        return self._child


def _short(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 160 else f"{text[:160]}..."
