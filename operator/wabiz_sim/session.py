"""Cache of valid bearer tokens, so that not every message needs a database query."""

import hashlib
import time

import aiohttp

from .link import upstream_url
from .process import Process

_MOST = 10_000
_ASK_SECONDS = 5.0


class Sessions:
    """Valid tokens by digest. Emptied when the upstream reports void tokens, and after the link to it was lost."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._good_until: dict[str, float] = {}

    def forget(self) -> None:
        """Drop all tokens."""
        self._good_until.clear()

    async def good(self, token: str) -> bool:
        """Return whether the token is valid.

        Raises one of UNREACHABLE when the upstream must be asked and does not answer.
        """
        if not token or not token.isascii():  # other bytes may not be text, and no token has them
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
            response.raise_for_status()  # an unavailable database has not rejected the token
            seconds = float((await response.json())["seconds"])
        if len(self._good_until) >= _MOST:
            self._good_until.clear()
        self._good_until[digest] = time.monotonic() + seconds
        return True
