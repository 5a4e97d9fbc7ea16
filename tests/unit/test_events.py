"""Events with the fields of both forms, and series of equal ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from whatsapp_operator.core.actions import EmitEvent
from whatsapp_operator.core.names import Key
from whatsapp_operator.core.reasons import Reason
from whatsapp_operator.shell.clock import SystemClock
from whatsapp_operator.shell.kube.client import Kube
from whatsapp_operator.shell.kube.errors import AlreadyExists, NotFound, Unavailable
from whatsapp_operator.shell.kube.kinds import EVENT, Kind, kind_of
from whatsapp_operator.shell.loop.events import SERIES_FOR, EventWriter

KEY = Key("ns", "acme")
START = datetime(2030, 1, 1, tzinfo=UTC)
LOST = EmitEvent(reason=Reason.SPARE_LOST, message="1 of 2 wanted spares are ready.", warning=True)


class World:
    """A client that keeps what is written, and a clock that is set."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.created: list[dict[str, Any]] = []
        self.patched: list[tuple[str, dict[str, Any]]] = []
        self.gone: set[str] = set()
        self.loses_answers = False
        clock = SystemClock(wall=lambda: START, seconds=lambda: self.seconds)
        self.writer = EventWriter(cast("Kube", self), clock=clock, identity="pod_" + "x" * 200)

    async def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        if obj["metadata"]["name"] in {one["metadata"]["name"] for one in self.created}:
            raise AlreadyExists("it is there")
        self.created.append(obj)
        if self.loses_answers:
            raise Unavailable("no answer within 5 s")
        return obj

    async def patch_merge(self, kind: Kind, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (kind, namespace) == (EVENT, "ns")
        if name in self.gone:
            raise NotFound("it expired")
        self.patched.append((name, body))
        return body

    @property
    def at(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    @property
    def counts(self) -> list[int]:
        return [body["series"]["count"] for _, body in self.patched]


async def test_an_event_has_all_fields_that_the_api_requires() -> None:
    world = World()
    await world.writer.write(KEY, "u", EmitEvent(reason=Reason.SPARE_LOST, message="x" * 2000), world.at)
    (event,) = world.created
    assert kind_of(event) is EVENT
    assert event["metadata"].pop("name").startswith("acme.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "ns"},
        "involvedObject": {
            "apiVersion": "multiconnect.dev/v1alpha1",
            "kind": "WhatsAppCluster",
            "name": "acme",
            "namespace": "ns",
            "uid": "u",
        },
        "type": "Normal",
        "reason": "SpareLost",
        "action": "SpareLost",
        "message": "x" * 1024,
        "eventTime": "2030-01-01T00:00:00.000000Z",
        "firstTimestamp": "2030-01-01T00:00:00Z",
        "lastTimestamp": "2030-01-01T00:00:00Z",
        "count": 1,
        "source": {"component": "whatsapp-operator"},
        "reportingComponent": "multiconnect.dev/whatsapp-operator",
        "reportingInstance": ("pod_" + "x" * 200)[:128],
    }


async def test_an_equal_event_counts_in_the_series_of_the_first() -> None:
    world = World()
    for _ in range(3):
        await world.writer.write(KEY, "u", LOST, world.at)
        world.seconds += SERIES_FOR - 1
    assert (len(world.created), world.counts) == (1, [2, 3])
    name = world.created[0]["metadata"]["name"]
    series = {"count": 3, "lastObservedTime": "2030-01-01T00:11:58.000000Z"}
    assert world.patched[-1] == (name, {"count": 3, "lastTimestamp": "2030-01-01T00:11:58Z", "series": series})


async def test_names_are_in_the_order_of_time() -> None:
    world = World()
    for number in range(20):
        await world.writer.write(KEY, "u", EmitEvent(reason=Reason.SPARE_LOST, message=str(number)), world.at)
        world.seconds += 1e-6
    names = [event["metadata"]["name"] for event in world.created]
    assert names == sorted(set(names))


async def test_an_event_that_was_stored_without_an_answer_is_not_stored_again() -> None:
    world = World()
    world.loses_answers = True
    with pytest.raises(Unavailable):
        await world.writer.write(KEY, "u", LOST, world.at)
    world.loses_answers = False
    at = world.at
    world.seconds += 10
    await world.writer.write(KEY, "u", LOST, at)
    await world.writer.write(KEY, "u", LOST, world.at)
    assert (len(world.created), world.counts) == (1, [2])


@pytest.mark.parametrize(
    ("uid", "event"),
    [
        ("other", LOST),
        ("u", EmitEvent(reason=Reason.SPARE_LOST, message="0 of 2 wanted spares are ready.", warning=True)),
        ("u", EmitEvent(reason=Reason.SPARE_LOST, message=LOST.message)),
        ("u", EmitEvent(reason=Reason.NO_SPARE_LEFT, message=LOST.message, warning=True)),
    ],
)
async def test_another_event_is_a_new_one(uid: str, event: EmitEvent) -> None:
    world = World()
    await world.writer.write(KEY, "u", LOST, world.at)
    await world.writer.write(KEY, uid, event, world.at)
    assert (len(world.created), world.patched) == (2, [])


async def test_a_series_ends_after_a_pause_and_with_its_event() -> None:
    world = World()
    await world.writer.write(KEY, "u", LOST, world.at)
    world.seconds += SERIES_FOR
    await world.writer.write(KEY, "u", LOST, world.at)
    assert (len(world.created), world.patched) == (2, [])
    world.gone.add(world.created[-1]["metadata"]["name"])
    world.seconds += 1
    await world.writer.write(KEY, "u", LOST, world.at)
    await world.writer.write(KEY, "u", LOST, world.at)
    assert (len(world.created), world.counts) == (3, [2]), "the series begins again"
