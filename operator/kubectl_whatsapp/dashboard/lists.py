"""The objects of one list, kept up to date by a watch in its own thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from kubectl_whatsapp import Obj
from kubectl_whatsapp.errors import RequestError
from kubectl_whatsapp.reading import Source

Key = tuple[str, str]
"""Namespace and name."""

CONNECT: Final = 3.0
"""Seconds after which an API server that does not answer counts as down."""
LIST: Final = 20.0
"""Seconds that a list may take."""
WATCH: Final = 8
"""Seconds after which the API server ends a watch; a new one then continues from there. A watch that died silently is replaced as fast."""
SILENCE: Final = WATCH + 2.0
PAUSE: Final = 0.5
"""Seconds between two attempts."""
REJECTED: Final = 2.0
"""Seconds until a rejected request is repeated."""
EXPIRED: Final = 410
NOT_YET: Final = "not read yet"


class Client(Protocol):
    """What a watched list needs of a client."""

    def get(self, path: str, *, timeout: float, **query: str) -> Obj:
        """Return what is at a path. RequestError."""
        ...

    def watch(self, path: str, *, timeout: float, silence: float, **query: str) -> Iterator[Obj]:
        """Yield the events of a watch. RequestError."""
        ...


class WatchedList:
    """The objects of one list. Any thread may read it."""

    def __init__(self, client: Client, source: Source, changed: Callable[[], None], *, stopped: threading.Event) -> None:
        """``changed`` is called in the list's own thread after each change, also of ``trouble``."""
        self.source = source
        self.objects: dict[Key, Obj] | None = None
        """The last known objects, replaced as a whole; None if they were never read."""
        self.trouble = NOT_YET
        """Why the list cannot be read now; empty if it can."""
        self.since = time.monotonic()
        """Since when there is this trouble, by the monotonic clock."""
        self.answered = 0.0
        """When the API server last answered, by the monotonic clock."""
        self._client, self._changed, self._stopped = client, changed, stopped
        self._version = ""
        """The resourceVersion at which a watch continues; empty: the list must be read again."""

    def start(self) -> None:
        """Start reading, in a thread that ends with the process."""
        threading.Thread(target=self.run, name=f"watch {self.source.title}", daemon=True).start()

    def run(self) -> None:
        """Read and watch until it is stopped.

        An expired version (410), every other rejection and every answer that cannot be understood lead to a new list.
        """
        while not self._stopped.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except RequestError as error:
                if error.status is not None:
                    self.answered = time.monotonic()
                    self._version = ""
                if error.status != EXPIRED:
                    self._report(str(error))
                self._stopped.wait(PAUSE if error.status in {None, EXPIRED} else REJECTED)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # If the thread ended here, old objects would be shown as current ones.
                self._version = ""
                self._report(f"the answer is not that of an API server ({type(error).__name__}: {error})")
                self._stopped.wait(REJECTED)

    def _list(self) -> None:
        listed = self._client.get(self.source.path, timeout=LIST, **self.source.query)
        self._take({_key(obj): obj for obj in listed.get("items") or ()})
        if self.trouble == NOT_YET:
            self._report("")  # any other trouble is over only once the watch works too
        self._version = str((listed.get("metadata") or {}).get("resourceVersion") or "")

    def _watch(self) -> None:
        query = {**self.source.query, "resourceVersion": self._version, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH)}
        events = self._client.watch(self.source.path, timeout=CONNECT, silence=SILENCE, **query)
        self.answered = time.monotonic()
        self._report("")
        for event in events:
            if self._stopped.is_set():
                return
            kind, obj = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                raise RequestError(str(obj.get("message") or "the watch ended with an error"), status=int(obj.get("code") or 500))
            if kind == "DELETED":
                self._take({key: one for key, one in self._known.items() if key != _key(obj)})
            elif kind != "BOOKMARK":
                self._take({**self._known, _key(obj): obj})
            self._version = str(obj["metadata"]["resourceVersion"])

    @property
    def _known(self) -> dict[Key, Obj]:
        return self.objects or {}

    def _take(self, objects: dict[Key, Obj]) -> None:
        """Replace the known objects; readers get the old ones or the new ones, never a mixture."""
        self.answered = time.monotonic()
        self.objects = objects
        self._changed()

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.since = time.monotonic()
            self.trouble = trouble
            self._changed()


def _key(obj: Obj) -> Key:
    meta: Obj = obj.get("metadata") or {}
    return str(meta.get("namespace") or ""), str(meta.get("name") or "")
