"""How many shards the client has by its own books, not by the operator's word: read from the simulator, placed among the API's writes."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from outside.laws import CLUSTER_LABEL

UPSTREAM_PORT = 8080
ANSWER_SECONDS = 3.0
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class SetShardsCall:
    """One call as the simulator noted it."""

    at: float
    """Unix time at which the call began."""
    shards: int | None
    restarted: bool
    """Whether the number was set before the call was answered."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What the client's books said once."""

    began: float
    """Unix time at which they were asked for."""
    version: int
    """A resourceVersion that the API server had after the answer: what has a higher one was written after this report."""
    shards: int
    restarts: int
    """How often the number was set so far."""
    calls: tuple[SetShardsCall, ...]


def report_of(counters: Mapping[str, Any], began: float, version: int) -> ClientReport:
    """Read ``GET /control/counters``. Raises LookupError, TypeError or ValueError when that is something else."""
    calls = tuple(
        SetShardsCall(datetime.fromisoformat(call["at"]).timestamp(), call["shards"], bool(call["restarted"]))
        for call in counters["set_shards_calls"]
    )
    return ClientReport(began, version, int(counters["shards"]), int(counters["restarts"]), calls)


def shards_when(reports: Sequence[ClientReport], version: int, seen: float) -> int | None:
    """How many shards the client had when the API stored ``version``, which was seen at Unix time ``seen``; None if that is not certain.

    It is certain between a report that ended before the write and one that began after the write was seen, when all that set the number
    between them were calls that began after the write was seen. ``reports`` are in order.
    """
    before = next((report for report in reversed(reports) if report.version < version), None)
    after = next((report for report in reports if report.began > seen), None)
    if before is None or after is None:
        return None
    known = len(before.calls)
    if after.calls[:known] != before.calls:  # another simulator with books of its own
        return None
    later = sum(call.restarted and call.at > seen for call in after.calls[known:])
    return before.shards if after.restarts - before.restarts == later else None


def read_counters(ip: str) -> dict[str, Any]:
    """``GET /control/counters`` of the simulator at this address. Raises OSError, HTTPException or ValueError."""
    connection = http.client.HTTPConnection(ip, UPSTREAM_PORT, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/control/counters")
        response = connection.getresponse()
        counters = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200 or not isinstance(counters, dict):
        msg = f"the simulator at {ip} answers {response.status}"
        raise ValueError(msg)
    return counters


def ask(pods: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], float, dict[str, Any]]]:
    """Yield (namespace, cluster), the Unix time before the question, and the counters of every simulator among ``pods`` that answers."""
    for pod in pods:
        meta, ip = pod["metadata"], (pod.get("status") or {}).get("podIP")
        if meta["labels"].get("app.kubernetes.io/component") == "simulator" and ip:
            began = time.time()
            with suppress(OSError, http.client.HTTPException, ValueError):  # what it has not said is not known
                yield (meta["namespace"], meta["labels"][CLUSTER_LABEL]), began, read_counters(ip)


class Repeat(threading.Thread):
    """Calls ``work`` again and again until stopped; what it raises ends it, and goes to ``failed`` as a sentence."""

    def __init__(self, work: Callable[[], None], failed: Callable[[str], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._failed = failed
        self._ended = threading.Event()

    def run(self) -> None:
        """Call it, with a pause of half a second."""
        try:
            while not self._ended.wait(PAUSE_SECONDS):
                self._work()
        except BaseException as error:  # a mistake here must not look like silence
            self._failed(f"the {self.name} ended by {type(error).__name__}: {error}")
            raise

    def stop(self) -> None:
        """Have it end after the call that it is in."""
        self._ended.set()
