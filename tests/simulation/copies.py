"""Copies of a process that goes on in several ways from one moment on."""

from __future__ import annotations

import asyncio
import os
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


class Copies:
    """Makes copies of this process at moments within a block, one at a time, each of which runs the block to its end. What fails is kept.

    The block runs an event loop and makes copies in it. A copy has one thread: it must use no other, nor anything that is open outside.
    """

    def __init__(self) -> None:
        self.is_one = False
        """This process is a copy."""
        self.count = 0
        """How many were made."""
        self._what = ""
        self._failed: IO[str] | None = None

    @contextmanager
    def made_within(self) -> Iterator[None]:
        """Run a block in which copies are made. A copy ends with it; AssertionError if one failed."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as self._failed:
            code = 1
            try:
                yield
                code = 0
            except BaseException:
                if not self.is_one:
                    raise
                self._failed.write(f"{self._what}:\n{traceback.format_exc()}\n")
                self._failed.flush()
            finally:
                if self.is_one:
                    os._exit(code)
            self._failed.seek(0)
            failed = self._failed.read()
            assert not failed, failed

    def is_copy(self, what: str) -> bool:
        """Make a copy and wait for its end; return True in the copy, False in this process. ``what`` names the copy."""
        assert not self.is_one
        assert self._failed is not None, "no block is being run"
        self.count += 1
        with warnings.catch_warnings():
            # Other threads, as those of pytest-xdist, do not exist in the copy, and it shares nothing with them.
            warnings.simplefilter("ignore", DeprecationWarning)
            loop = asyncio.get_running_loop()
            pid = os.fork()
        if pid == 0:
            # asyncio takes no loop for running that another process set.
            asyncio._set_running_loop(loop)
            self.is_one, self._what = True, what
            return True
        _, status = os.waitpid(pid, 0)
        if status != 0:
            self._failed.seek(0, os.SEEK_END)
            if self._failed.tell() == 0:
                self._failed.write(f"{what}: it ended with status {status} and said nothing\n")
        return False
