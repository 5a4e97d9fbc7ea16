"""Follows one collection of the API server in a thread of its own, and notes whenever it may have missed something."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import httpx

from localkube.errors import LocalKubeError

Obj = dict[str, Any]
Key = tuple[str, str]

WATCH_SECONDS = 60
TIMEOUT = httpx.Timeout(3.0, read=75.0)
RETRY_SECONDS = 0.1
BLIND_SECONDS = 10.0
"""A watch that could not be continued for so long has died."""
CATCH_UP_SECONDS = 10.0


class ObserverError(LocalKubeError):
    """The observer could not see: its watch died or missed something; the text says what."""


class Sink(Protocol):
    """Where a watch reports."""

    def take(self, kind: str, obj: Obj, *, gone: bool = False, first: bool = False) -> None:
        """Take in one object; ``first``: it was there before the watch began."""

    def note(self, text: str) -> None:
        """Take in that a watch had to reconnect (nothing is lost by it) or to list anew (something may be)."""

    def bury(self, text: str) -> None:
        """Take in that a watch has died."""

    def known(self, kind: str) -> Mapping[Key, Obj]:
        """What is known of a kind."""


class _GoneError(Exception):
    """The API server no longer has the changes since the last one seen."""


class Watch(threading.Thread):
    """Follows the collection at ``path``, of objects with the label ``selector`` if that is given."""

    def __init__(self, kind: str, client: httpx.Client, path: str, selector: str, sink: Sink) -> None:
        super().__init__(name=f"observer of {kind} objects", daemon=True)
        self.kind = kind
        self._client, self._path, self._sink = client, path, sink
        self._selector = {"labelSelector": selector} if selector else {}
        self._version = ""
        self._response: httpx.Response | None = None
        self._ended = threading.Event()

    def list(self) -> int:
        """Take in all there is at the beginning; returns the resourceVersion of the list."""
        objects, self._version = self._list()
        for obj in objects.values():
            self._sink.take(self.kind, obj, first=True)
        return int(self._version)

    def current_version(self) -> int:
        """The resourceVersion that the API server has now."""
        return int(self._get({"limit": "1"})["metadata"]["resourceVersion"])

    def behind(self) -> str:
        """What was seen of these objects, and is not what the API server has now; empty if all is."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            fresh, seen = (
                {key: obj["metadata"]["resourceVersion"] for key, obj in objects.items()}
                for objects in (self._list()[0], self._sink.known(self.kind))
            )
            differ = sorted("/".join(key) for key in fresh.keys() | seen.keys() if fresh.get(key) != seen.get(key))
            if not differ or time.monotonic() > deadline:
                return ", ".join(differ)
            time.sleep(RETRY_SECONDS)

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._response is not None:  # its thread is in a read
            try:
                self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError, AttributeError):  # it ended by itself in this moment
                return

    def run(self) -> None:
        """Watch, and continue the watch wherever it ended, until stopped or dead."""
        failing_since: float | None = None
        while not self._ended.is_set():
            try:
                self._follow()
                failing_since = None
            except _GoneError:
                self._relist()
            except (httpx.HTTPError, OSError, ValueError, ObserverError) as error:
                if self._ended.is_set():
                    return
                now = time.monotonic()
                failing_since = failing_since or now
                self._sink.note(f"reconnected the watch of {self.kind} objects at {self._version}: {_sentence(error)}")
                if now - failing_since > BLIND_SECONDS:
                    self._sink.bury(f"the watch of {self.kind} objects failed for {BLIND_SECONDS:g} s: {_sentence(error)}")
                    return
                self._ended.wait(RETRY_SECONDS)
            except BaseException as error:  # a mistake here must not look like silence
                self._sink.bury(f"the watch of {self.kind} objects ended by {_sentence(error)}")
                raise

    def _follow(self) -> None:
        options = {"watch": "1", "resourceVersion": self._version, "timeoutSeconds": str(WATCH_SECONDS), "allowWatchBookmarks": "true"}
        with self._client.stream("GET", self._path, params=options | self._selector) as response:
            self._response = response
            try:
                if self._ended.is_set():
                    return
                self._check(response)
                for line in _lines(response):
                    self._event(json.loads(line))
            finally:
                self._response = None

    def _event(self, event: Obj) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            if obj.get("code") == 410:
                raise _GoneError
            msg = f"the API server ended the watch: {obj.get('message')}"
            raise ObserverError(msg)
        if kind != "BOOKMARK":
            self._sink.take(self.kind, obj, gone=kind == "DELETED")
        self._version = obj["metadata"]["resourceVersion"]

    def _relist(self) -> None:
        there, version = self._list()
        known = self._sink.known(self.kind)
        self._sink.note(f"relisted {self.kind} objects: changes between {self._version} and {version} were not seen one by one")
        for key in known.keys() - there.keys():
            meta = {**known[key]["metadata"], "resourceVersion": version}
            self._sink.take(self.kind, {**known[key], "metadata": meta}, gone=True)
        for key, obj in there.items():
            if key not in known or known[key]["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._sink.take(self.kind, obj)
        self._version = version

    def _list(self) -> tuple[dict[Key, Obj], str]:
        answer = self._get({})
        found = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): obj for obj in answer["items"]}
        return found, answer["metadata"]["resourceVersion"]

    def _get(self, options: dict[str, str]) -> Obj:
        deadline = time.monotonic() + BLIND_SECONDS
        response = self._client.get(self._path, params=options | self._selector)
        while response.status_code == 429 and time.monotonic() < deadline:  # the storage of a new CRD is not ready, or the server is busy
            self._ended.wait(float(response.headers.get("Retry-After", 1)))
            response = self._client.get(self._path, params=options | self._selector)
        self._check(response)
        answer: Obj = response.json()
        return answer

    def _check(self, response: httpx.Response) -> None:
        """Raises ObserverError when the API server rejects, _GoneError when the version is too old for it."""
        if response.status_code == 410:
            raise _GoneError
        if response.status_code != 200:
            msg = f"the API server rejects reading {self.kind} objects: {response.status_code} {response.read()[:300]!r}"
            raise ObserverError(msg)


def _lines(response: httpx.Response) -> Iterator[bytes]:
    """The lines of a streamed answer as they arrive."""
    rest = b""
    for chunk in response.iter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
