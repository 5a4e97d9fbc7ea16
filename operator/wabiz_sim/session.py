"""Which bearer tokens this Webapp has seen to be good, so that a message need not ask the database each time."""

import hashlib
import time

import aiohttp

from .link import upstream_url
from .process import Process

_MOST = 10_000
_ASK_SECONDS = 5.0


class Sessions:
    """Good tokens by digest. Emptied when the upstream says that some became void, and when the link to it is back after a loss."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._good_until: dict[str, float] = {}

    def forget(self) -> None:
        """Ask anew for every token."""
        self._good_until.clear()

    async def good(self, token: str) -> bool:
        """Return whether the token is good.

        Raises one of UNREACHABLE when the upstream must be asked and does not answer.
        """
        if not token:
            return False
        digest = hashlib.sha256(token.encode()).hexdigest()
        if self._good_until.get(digest, 0.0) > time.monotonic():
            return True
        url = await upstream_url(self._process, "/internal/session")
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        async with self._process.session.get(url, headers=headers, timeout=timeout) as response:
            if response.status == 401:
                return False
            response.raise_for_status()  # a database that is away knows no token: that is no refusal
            seconds = float((await response.json())["seconds"])
        if len(self._good_until) >= _MOST:
            self._good_until.clear()
        self._good_until[digest] = time.monotonic() + seconds
        return True
